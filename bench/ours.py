"""jailrun: in the measuring process, by its command line, and entering a jail that runs.

Each function here is a contestant (`bench.worker`).
"""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jailrun
from bench.ground import COMMAND, CPUS, HOME, IDLE, IMAGE, MEMORY, PIDS, run_program
from bench.worker import BenchError, Plain
from jailrun.engine.record import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.ground import Ground
    from bench.worker import Sample
    from jailrun import Result

PROGRAM = str(HOME / "bin" / "jailrun")
OPTIONS = ["--memory", MEMORY, "--cpus", str(CPUS), "--pids", str(PIDS)]
PAGE = os.sysconf("SC_PAGE_SIZE")


def check(result: Result) -> None:
    """Raise BenchError unless the command has ended well."""
    if result.status:
        raise BenchError(f"jailrun: exit status {result.status}: {result.stderr!r}")


def read_rss() -> int:
    """Return the bytes of memory that this process has in use, proc(5)."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * PAGE


@contextmanager
def run_in_process(*, executor: str = "native", megabytes: int = 0) -> Iterator[Sample]:
    """Take `jailrun.run` from a process that uses so much memory at least."""
    os.environ["JAILRUN_EXECUTOR"] = executor
    ballast = bytearray(max(0, (megabytes << 20) - read_rss()))
    for at in range(0, len(ballast), PAGE):
        ballast[at] = 1

    def take() -> None:
        check(jailrun.run(COMMAND, image=IMAGE, memory=MEMORY, cpus=CPUS, pids=PIDS))

    take()
    gc.collect()
    yield Plain(take)
    ballast.clear()


@contextmanager
def run_command_line(ground: Ground) -> Iterator[Sample]:
    """Take ``jailrun run`` from start to exit."""
    errors = ground.folder / f"jailrun-{os.getpid()}.err"
    words = [PROGRAM, "run", "--rm", "--net", "none", *OPTIONS, IMAGE, *COMMAND]
    yield Plain(lambda: run_program(words, errors))


@contextmanager
def exec_in_process() -> Iterator[Sample]:
    """Take `Jail.run` in a jail that idles."""
    with jailrun.Jail(IMAGE, memory=MEMORY, cpus=CPUS, pids=PIDS) as jail:
        yield Plain(lambda: check(jail.run(COMMAND)))


@contextmanager
def exec_command_line(ground: Ground) -> Iterator[Sample]:
    """Take ``jailrun exec`` into a jail that idles."""
    errors = ground.folder / f"jailrun-{os.getpid()}.err"
    with jailrun.Jail(IMAGE, memory=MEMORY, cpus=CPUS, pids=PIDS) as jail:
        words = [PROGRAM, "exec", jail.name, *COMMAND]
        yield Plain(lambda: run_program(words, errors))


@contextmanager
def idle_jails(ground: Ground, count: int) -> Iterator[list[int]]:
    """Keep detached jails; give the pids of their first processes."""
    errors = ground.folder / "jailrun-idle.err"
    names: list[str] = []
    try:
        for number in range(count):
            name = f"{ground.name}-{number}"
            words = [
                PROGRAM,
                "run",
                "--detach",
                "--net",
                "none",
                "--name",
                name,
                *OPTIONS,
                IMAGE,
                *IDLE,
            ]
            run_program(words, errors)
            names.append(name)
        yield [load(name).pid for name in names]
    finally:
        if names:
            run_program([PROGRAM, "rm", "--force", *names], errors)
