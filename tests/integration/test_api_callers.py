"""`import jailrun` from threads and processes, however the caller ends; and the documentation."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import jailrun
from jailrun.engine.identity import read_stat
from jailrun.engine.record import list_names
from tests.integration.host import reap_orphans
from tests.integration.jails import eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["native", "ctypes"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with either executor."""
    monkeypatch.setenv("JAILRUN_EXECUTOR", request.param)
    return str(request.param)


@pytest.fixture
def owner() -> Any:
    """Return what starts a Python program that uses jailrun, and ends it after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport os, jailrun\n{program}"
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        with child:
            pass  # closes its pipes, and waits


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a thread that has ended then."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


# --- threads and processes ------------------------------------------------------------------------
def double(number: int) -> int:
    return int(jailrun.run(["expr", str(number), "*", "2"], check=True).text)


def test_many_threads(executor: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(double, range(1, 25))) == [2 * number for number in range(1, 25)]


def test_many_threads_in_one_jail() -> None:
    with jailrun.Jail(pids=64) as jail, ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda n: jail.run(["echo", str(n)], check=True).text, range(24))
        assert [int(text) for text in results] == list(range(24))


def test_jail_outlives_the_thread_that_made_it(executor: str) -> None:
    jail = in_thread(jailrun.Jail)
    process = in_thread(lambda: jail.start(["cat"], stdin=jailrun.PIPE, stdout=jailrun.PIPE))
    with jail, process:
        assert jail.run(["echo", "here"]).text == "here\n"
        process.stdin.write(b"still")
        process.stdin.close()
        assert process.stdout.read() == b"still"


def test_jail_is_closed_under_a_command() -> None:
    jail = jailrun.Jail()
    reader, writer = os.pipe()
    with ThreadPoolExecutor(2) as pool, os.fdopen(reader, "rb") as pipe:
        process = jail.start(["sh", "-c", "echo up; exec sleep 1000"], stdout=writer)
        os.close(writer)
        waiting = pool.submit(process.wait)
        script = "echo up > /proc/1/cwd/up; exec sleep 1000"
        running = pool.submit(jail.run, ["sh", "-c", script])
        eventually(lambda: jail.run(["cat", "/up"]).stdout, "the command's start")
        assert pipe.readline() == b"up\n"
        jail.close()
        assert waiting.result() == 137
        assert running.result().status == 137


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_at_once(method: str, owner: Any, tmp_path: Path) -> None:
    """A program of its own: a spawned process imports its main module anew."""
    module = tmp_path / "many.py"
    module.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import multiprocessing, jailrun\n"
        "def double(n):\n"
        "    with jailrun.Jail(memory='32M') as jail:\n"
        "        jail.run(['true'], check=True)\n"
        "        return int(jailrun.run(['expr', str(n), '*', '2'], check=True).text)\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(4) as pool:\n"
        "        assert pool.map(double, range(1, 13)) == list(range(2, 26, 2))\n"
        "        pool.close(); pool.join()\n"
    )
    subprocess.run([sys.executable, module], check=True)


def use_and_leave(jail: jailrun.Jail, answers: Any) -> None:
    answers.send(jail.run(["hostname"]).text)
    jail.close()
    with jailrun.Jail() as own:
        answers.send(own.run(["hostname"]).text)


def test_forked_child_uses_a_jail_and_does_not_end_it() -> None:
    with jailrun.Jail() as jail:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=use_and_leave, args=(jail, theirs)
        )
        child.start()
        theirs.close()
        assert ours.recv() == f"{jail.name}\n"
        assert ours.recv() != f"{jail.name}\n"
        child.join()
        assert child.exitcode == 0
        child.close()
        ours.close()
        assert jail.run(["echo", "still"]).text == "still\n"


def test_caller_of_200_megabytes() -> None:
    ballast = bytearray(200 << 20)
    ballast[:: 1 << 12] = bytes(len(ballast[:: 1 << 12]))
    assert double(21) == 42


# --- ends of the caller ---------------------------------------------------------------------------
def wait_gone(pid: int) -> None:
    """Wait for the end of a process of another's, which this one inherits; see `adopt_orphans`."""

    def is_gone() -> bool:
        reap_orphans()
        return read_stat(pid)[0] in ("", "X", "Z")

    eventually(is_gone, f"the end of {pid}")


def test_owner_that_is_killed_leaves_nothing(executor: str, owner: Any) -> None:
    child = owner(
        "jail = jailrun.Jail(memory='64M')\n"
        "jail.start(['sleep', '1000'])\n"
        "if os.fork() == 0: os.read(0, 1); os._exit(0)\n"  # does not keep the jail alive
        "print(jail.pid, jail.name, flush=True); os.read(0, 1)\n"
    )
    pid, name = child.stdout.readline().split()
    assert list_names() == [name]
    child.kill()
    child.wait()
    wait_gone(int(pid))
    assert jailrun.recover() == [name]
    child.stdin.close()


def test_caller_of_run_that_is_killed_leaves_nothing(executor: str, owner: Any) -> None:
    child = owner("jailrun.run(['sh', '-c', 'echo up; exec sleep 1000'], capture=False)")
    assert child.stdout.readline() == "up\n"
    [name] = list_names()
    child.kill()
    child.wait()
    assert child.stdout.read() == ""  # nobody has the other end: it died with its caller
    assert jailrun.recover() == [name]


@pytest.mark.parametrize("kind", ["run", "Jail"])
def test_interrupt_cleans_up(kind: str, owner: Any) -> None:
    how = {"run": "jailrun.run(", "Jail": "with jailrun.Jail() as jail: jail.run("}[kind]
    child = owner(
        "try:\n"
        f"    {how}['sh', '-c', 'echo up; exec sleep 1000'], capture=False)\n"
        "except KeyboardInterrupt:\n"
        "    from jailrun.engine.record import list_names\n"
        "    print(list_names())\n"
    )
    assert child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.read() == "[]\n"
    assert child.wait() == 0


def test_program_that_ends_with_its_jail_open(owner: Any) -> None:
    child = owner(
        "jail = jailrun.Jail(); jail.start(['sleep', '1000']); print(jail.run(['id']).status)"
    )
    assert child.communicate() == ("0\n", "")
    assert list_names() == []


def test_caller_without_standard_streams(owner: Any) -> None:
    child = owner(
        "out = os.dup(1)\n"
        "for fd in range(3): os.close(fd)\n"
        "result = jailrun.run(['sh', '-c', 'cat; echo err >&2'], input=b'in ')\n"
        "with jailrun.Jail() as jail: other = jail.run(['cat'], input=b'more')\n"
        "os.write(out, result.stdout + result.stderr + other.stdout)\n"
    )
    assert child.stdout.read() == "in err\nmore"


def test_no_descriptor_is_left_inside(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        listed = jailrun.run(["ls", "/proc/self/fd"], check=True).text.split()
        assert listed == ["0", "1", "2", "3"]  # 3 is that of the listing
        with jailrun.Jail() as jail:
            assert jail.run(["ls", "/proc/self/fd"]).text.split() == ["0", "1", "2", "3"]
            assert jail.run(["ls", "/proc/1/fd"]).text.split() == ["0", "1", "2", "3"]


# --- the documentation ----------------------------------------------------------------------------
def examples() -> list[tuple[str, str]]:
    """Return title and code of each example."""
    text = (ROOT / "docs" / "how-to" / "python.md").read_text()
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return [
        (part.partition("\n")[0], code)
        for part in parts
        for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    ]


@pytest.mark.parametrize(("title", "code"), examples(), ids=[title for title, _ in examples()])
def test_example(title: str, code: str) -> None:
    exec(compile(code, title, "exec"), {"__name__": "example"})
