"""What `import jailrun` offers, and what of it needs no jail."""

from __future__ import annotations

import ast
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jailrun
from jailrun import errors
from jailrun.api import options, streams
from jailrun.api.process import Ends
from jailrun.api.result import CommandFailedError, JailTimeoutError, Result
from jailrun.spec import request

PIDFD_OPEN = os.pidfd_open  # before the unit tests' ground takes it
INTERNAL = {"command", "image", "rootfs", "host", "stat_device", "tty", "network_path"}


def test_everything_exported_is_there() -> None:
    for name in jailrun.__all__:
        assert getattr(jailrun, name) is not None
    assert set(jailrun.__all__) <= set(dir(jailrun))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jailrun.nothing  # noqa: B018


def test_every_error_is_exported() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.JailError)
    }
    assert found <= set(jailrun.__all__)


@pytest.mark.runs_programs
def test_nothing_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, jailrun, jailrun.engine.launch\n"
        "assert 'jailrun.api' not in sys.modules\n"
        "from jailrun import JailError\n"
        "assert 'jailrun.api' not in sys.modules\n"
        "from jailrun import Jail, run\n"
        "unwanted = {'subprocess', 'dataclasses', 'typing', 're', 'threading', 'pathlib'}\n"
        "assert not unwanted & set(sys.modules), unwanted & set(sys.modules)\n"
    )
    root = str(Path(jailrun.__file__).parents[1])
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {root!r})\n{program}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def keys_of(module: object, *names: str) -> set[str]:
    """Return the keys of TypedDicts that exist for type checkers alone."""
    tree = ast.parse(Path(str(getattr(module, "__file__"))).read_text())  # noqa: B009
    return {
        line.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in names
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def test_every_option_of_a_jail_is_one_of_the_api() -> None:
    ours = keys_of(options, "Limits", "Options", "RunOptions")
    assert ours == keys_of(request, "Request") - INTERNAL


def test_every_option_is_documented() -> None:
    page = Path(jailrun.__file__).parents[1] / "docs" / "reference" / "python.md"
    text = page.read_text()
    ours = keys_of(options, "Limits", "Options", "RunOptions") | set(jailrun.__all__)
    assert not {name for name in ours if f"`{name}" not in text}


# --- results --------------------------------------------------------------------------------------
def test_signal_is_told_from_a_status() -> None:
    assert (Result(["a"], -9).status, Result(["a"], -9).signal) == (137, 9)
    assert (Result(["a"], 137).status, Result(["a"], 137).signal) == (137, 0)


def test_text_of_bytes_that_are_none() -> None:
    result = Result(["a"], 0, b"a\xffb", b"\xfe")
    assert (result.text, result.error_text) == ("a�b", "�")
    assert "stdout=b'a\\xffb'" in repr(result)
    assert len(repr(Result(["a"], 0, b"x" * 10000))) < 1000


def test_check() -> None:
    good = Result(["a"], 0)
    assert good.check() is good
    with pytest.raises(CommandFailedError, match="a failed with exit status 3") as caught:
        Result(["a", "b"], 3, b"", b"one\ntwo\n").check()
    assert (caught.value.hint, caught.value.exit_status) == ("two", 3)
    with pytest.raises(CommandFailedError, match="signal 9, and the jail ran out of memory"):
        Result(["a"], -9, events={"oom_kill": 1}).check()


def test_errors_cross_processes() -> None:
    failed = pickle.loads(pickle.dumps(CommandFailedError(Result(["a"], 3, b"x"))))
    assert (failed.result.stdout, failed.message) == (b"x", "a failed with exit status 3")
    late = pickle.loads(pickle.dumps(JailTimeoutError(["a"], 1.5, b"x")))
    assert (late.stdout, str(late)) == (b"x", "a did not end in 1.5 s")


# --- streams --------------------------------------------------------------------------------------
def test_command_is_a_list() -> None:
    assert streams.check_command(("a", "b")) == ["a", "b"]
    for command in ("ls -l", b"ls"):
        with pytest.raises(TypeError, match="a command is a list of words"):
            streams.check_command(command)  # type: ignore[arg-type]


@pytest.mark.runs_programs
@pytest.mark.parametrize("program", ["cat", "head -c 10", "true", "cat; exec >&-; cat >/dev/null"])
def test_exchange(program: str) -> None:
    """Input of any size goes in, output of any size comes out, whoever closes first."""
    data = os.urandom(3 << 20)
    exchange = streams.Exchange(data, capture=True)
    theirs = exchange.theirs
    child = subprocess.Popen(
        ["sh", "-c", program], stdin=theirs[0], stdout=theirs[1], stderr=theirs[2]
    )
    exchange.close_theirs()
    pidfd = PIDFD_OPEN(child.pid)
    try:
        assert exchange.go_on(pidfd, 60)
        status, _ = streams.reap(child.pid, pidfd)
    finally:
        exchange.close()
        os.close(pidfd)
    child.returncode = status
    expected = {"head": data[:10], "true": b""}.get(program.split()[0], data)
    assert (status, exchange.collect()) == (0, (expected, b""))


@pytest.mark.runs_programs
def test_exchange_does_not_wait_for_what_a_command_left_behind() -> None:
    exchange = streams.Exchange(None, capture=True)
    child = subprocess.Popen(
        ["sh", "-c", "echo $$; cat <>/dev/ptmx & echo $!"],
        stdin=exchange.theirs[0], stdout=exchange.theirs[1], stderr=exchange.theirs[2],
        start_new_session=True,
    )  # fmt: skip
    exchange.close_theirs()
    pidfd = PIDFD_OPEN(child.pid)
    try:
        assert exchange.go_on(pidfd, 60)
        _, left_behind = exchange.collect()[0].split()
        child.returncode, _ = streams.reap(child.pid, pidfd)
        other = PIDFD_OPEN(int(left_behind))
        signal.pidfd_send_signal(other, signal.SIGKILL)
        os.close(other)
    finally:
        exchange.close()
        os.close(pidfd)


@pytest.mark.runs_programs
def test_status_that_someone_else_took() -> None:
    child = subprocess.Popen(["true"])
    pidfd = PIDFD_OPEN(child.pid)
    child.wait()
    assert streams.reap(child.pid, pidfd) == (255, 0.0)
    os.close(pidfd)


def test_pipe_end_is_closed_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    reader, writer = streams.make_pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.fstat(writer)
        except OSError:
            streams.close(writer)  # nothing, and no error
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    streams.close(writer)
    streams.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_ends() -> None:
    ends = Ends(streams.PIPE, streams.PIPE, streams.STDOUT)
    os.write(ends.files[0], b"in")
    assert os.read(ends.theirs[0], 2) == b"in"
    assert ends.theirs[1] == ends.theirs[2]
    os.write(ends.theirs[2], b"out")
    assert os.read(ends.files[1], 3) == b"out"
    assert ends.files[2] == -1
    ends.close()
    with Path(os.devnull).open("rb") as file:
        ends = Ends(file, None, streams.DEVNULL)
        assert ends.theirs[:2] == [file.fileno(), 1]
        ends.close()
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    with pytest.raises(ValueError, match="-7 is no descriptor"):
        Ends(streams.PIPE, streams.PIPE, -7)
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before


def test_constants_are_those_of_subprocess() -> None:
    assert (jailrun.PIPE, jailrun.STDOUT, jailrun.DEVNULL) == (
        subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL,
    )  # fmt: skip
