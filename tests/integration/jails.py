"""Jails for tests: a config from a few words, a jail with pipes, its end with all it said.

Owns: `build_config`, `Jails`, `Running`, `Ended`.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jailrun.engine import lifecycle
from jailrun.engine.enter import enter
from jailrun.engine.launch import Request, launch
from jailrun.engine.payload import Streams
from jailrun.engine.record import list_names, load
from jailrun.errors import JailError
from jailrun.kernel.execute import Execution, reap
from jailrun.spec.default import default_config
from tests.probes.probe import Report

COUNT = itertools.count()
SECONDS = 60.0  # a deadline, never a measure
Config = dict[str, Any]
Build = Callable[..., Config]  # `build_config` on the busybox image: the fixture ``config``
Reports = dict[str, Report]
Probe = Callable[..., Reports]  # runs the probe program in a jail: the fixture ``probe``
MakeRoot = Callable[..., Path]  # makes a plain folder with busybox in it: ``make_root``


def mount_probe(program: Path) -> Config:
    """Return the mount that puts the probe program at /probe."""
    return {
        "destination": "/probe",
        "type": "bind",
        "source": str(program),
        "options": ["bind", "ro"],
    }


def new_name() -> str:
    """Return a name for a jail that no other session uses."""
    return f"jrt-{os.getpid()}-{next(COUNT)}"


def eventually(condition: Any, what: str) -> Any:
    """Return the first true result of ``condition``; fail after a generous time."""
    deadline = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it never came: {what}"
        select.poll().poll(2)
    return result


def merge(base: Any, change: Any) -> Any:
    """Return ``base`` with the keys of ``change``; None takes one away, lists are replaced."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    result = {**base}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(base.get(key), value)
    return result


def build_config(
    *args: str,
    layers: list[str] | None = None,
    folder: str | None = None,
    mounts: Sequence[dict[str, Any]] = (),
    without: Sequence[str] = (),
    namespaces: dict[str, str | None] | None = None,
    **changes: Any,
) -> Config:
    """Return the config of a safe jail that runs ``args``.

    ``mounts`` come after the default ones, ``without`` names namespaces to inherit,
    ``namespaces`` paths to join (None: a new one).  A plain ``folder`` takes the place of the
    ``layers``.  ``changes`` are merged into the config, key by key.
    """
    config: Config = copy.deepcopy({**default_config()})
    config["process"]["args"] = list(args) or ["true"]
    if folder is None:
        config["jailrun"]["layers"] = layers or []
    else:
        config["root"]["path"] = folder
    config["mounts"] += list(mounts)
    wanted: dict[str, str | None] = {one["type"]: None for one in config["linux"]["namespaces"]}
    wanted |= namespaces or {}
    config["linux"]["namespaces"] = [
        {"type": kind, **({"path": path} if path else {})}
        for kind, path in wanted.items()
        if kind not in without
    ]
    if "user" in without or wanted.get("user"):
        for key in ("uidMappings", "gidMappings"):
            del config["linux"][key]
        config["jailrun"] = {**config["jailrun"], "id_shift": "none"}
        del config["jailrun"]["user_range"]
    result: Config = merge(config, changes)
    return result


@dataclass
class Ended:
    """How a process ended and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The lines of its output."""
        return self.stdout.splitlines()


class Pipes:
    """The caller's ends of a process's standard streams, and what it has said so far."""

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self.stdin = -1
        self.said: dict[int, bytearray] = {}
        for place in range(3):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self.theirs.append(writer if place else reader)
            if place:
                self.said[reader] = bytearray()
            else:
                self.stdin = writer
        self.outputs = list(self.said)
        self.open = set(self.outputs)

    def close_theirs(self) -> None:
        """Close the ends that are the process's now."""
        while self.theirs:
            os.close(self.theirs.pop())

    def close_stdin(self) -> None:
        """Let the process see the end of its input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def read_until(self, done: Any) -> None:
        """Read both outputs until ``done`` says so, or both have ended."""
        poll = select.poll()
        for fd in self.open:
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + SECONDS
        while self.open and not done():
            left = deadline - time.monotonic()
            events = poll.poll(max(left, 0) * 1000)
            assert events, f"no more words after {self.said}"
            for fd, _event in events:
                data = os.read(fd, 65536)
                self.said[fd] += data
                if not data:
                    poll.unregister(fd)
                    self.open.discard(fd)

    def close(self) -> None:
        """Close everything."""
        self.close_theirs()
        self.close_stdin()
        for fd in self.outputs:
            os.close(fd)
        self.outputs = []
        self.open = set()


class Running:
    """A process in a jail whose parent we are, with its streams."""

    def __init__(self, name: str, execution: Execution, pipes: Pipes, *, first: bool) -> None:
        self.name = name
        self.execution = execution
        self.pipes = pipes
        self.first = first  # the jail's init, with which the jail ends
        self.alive = -1
        self.outputs = list(pipes.outputs)

    @property
    def pid(self) -> int:
        """Its pid on the host."""
        return self.execution.pid

    def write(self, text: str) -> None:
        """Write to its standard input."""
        os.write(self.pipes.stdin, text.encode())

    def read_line(self) -> str:
        """Return the next line of its standard output."""
        said = self.pipes.said[self.outputs[0]]
        self.pipes.read_until(lambda: b"\n" in said)
        line, found, rest = bytes(said).partition(b"\n")
        assert found, f"it ended: {line!r}, {bytes(self.pipes.said[self.outputs[1]])!r}"
        said[:] = rest
        return line.decode()

    def wait(self, *, end_input: bool = True) -> Ended:
        """Read to the end, reap it and, if it is the first of a jail, finish the jail's record."""
        if end_input:
            self.pipes.close_stdin()
        self.pipes.read_until(lambda: False)
        status = reap(self.execution.pidfd)
        self.execution.pidfd = -1
        status = 128 - status if status < 0 else status
        texts = [bytes(self.pipes.said[fd]).decode(errors="replace") for fd in self.outputs]
        self.pipes.close()
        if self.first:
            alive, self.alive = self.alive, -1
            lifecycle.finish(self.name, status, alive_fd=alive)
        return Ended(status, texts[0], texts[1])

    def drop(self) -> None:
        """Let go of everything, after a test that has failed."""
        self.pipes.close()
        if self.execution.pidfd >= 0:
            self.execution.abandon()
        if self.alive >= 0:
            os.close(self.alive)
            self.alive = -1


class Jails:
    """Starts jails through the engine."""

    def __init__(self) -> None:
        self.running: list[Running] = []

    def start(
        self, config: Config, *, name: str = "", extra: Sequence[int] = (), **request: Any
    ) -> Running:
        """Start a jail with pipes as its standard streams."""
        pipes = Pipes()
        name = name or new_name()
        request.setdefault("remove", True)
        try:
            standard = (pipes.theirs[0], pipes.theirs[1], pipes.theirs[2])
            streams = Streams(standard, extra=tuple(extra), owned=standard)
            execution = launch(config, Request(name, streams=streams, **request))
        except BaseException:
            pipes.close()
            raise
        pipes.close_theirs()
        running = Running(name, execution, pipes, first=True)
        self.running.append(running)
        running.alive = load(name).hold()
        return running

    def run(self, config: Config, *, stdin: str = "", **request: Any) -> Ended:
        """Run a jail to its end, and remove it."""
        running = self.start(config, **request)
        if stdin:
            running.write(stdin)
        return running.wait()

    def begin(self, config: Config, **request: Any) -> Running:
        """Start a jail and return when its payload has said a line."""
        running = self.start(config, **request)
        running.read_line()
        return running

    def enter(self, name: str, *args: str, **process: Any) -> Running:
        """Start one more process in a jail; ``process`` is merged into a default one."""
        pipes = Pipes()
        options = {key: process.pop(key) for key in ("attached", "ignore_paused") if key in process}
        whole = merge(build_config(*args)["process"], process)
        try:
            standard = (pipes.theirs[0], pipes.theirs[1], pipes.theirs[2])
            execution = enter(name, whole, streams=Streams(standard, owned=standard), **options)
        except BaseException:
            pipes.close()
            raise
        pipes.close_theirs()
        running = Running(name, execution, pipes, first=False)
        self.running.append(running)
        return running

    def execute(self, name: str, *args: str, **process: Any) -> Ended:
        """Run one more process in a jail to its end."""
        return self.enter(name, *args, **process).wait()

    def clear(self) -> None:
        """Remove what is left of the jails of this test, after a failure of it."""
        for running in reversed(self.running):
            running.drop()
        with contextlib.suppress(JailError, OSError):
            for name in list_names():
                lifecycle.delete(name, force=True)
