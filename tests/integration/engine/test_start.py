"""A jail starts, says what it has to say, and ends: streams, descriptors, statuses, names."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine.launch import Request, explain, launch
from jailrun.engine.payload import Streams
from jailrun.engine.record import list_names
from jailrun.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    ConflictError,
    JailError,
    RootfsError,
    SecurityError,
    SpecError,
    UnsupportedError,
)
from jailrun.kernel.execute import reap
from tests.integration.jails import Build, Jails, Probe, eventually, new_name


def test_runs_and_ends(jails: Jails, config: Build) -> None:
    """Streams and exit status come back."""
    ended = jails.run(config("sh", "-c", "cat; echo error >&2; exit 7"), stdin="input")
    assert (ended.status, ended.stdout, ended.stderr) == (7, "input", "error\n")


def test_leaves_no_zombie(jails: Jails, config: Build) -> None:
    """After the end of a jail this process has no child to wait for."""
    jails.run(config("true"))
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_end_by_signal(jails: Jails, config: Build, number: int) -> None:
    """A signal that ends the payload is seen as one: PID 1 is killed by those from outside."""
    running = jails.begin(
        config("sh", "-c", f"trap 'exit 3' {number}; echo ready; sleep 60 & wait")
    )
    running.execution.executor.syscall(
        424, running.execution.pidfd, number, 0, 0
    )  # pidfd_send_signal
    expected = 128 + number if number == signal.SIGKILL else 3
    assert running.wait().status == expected


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("no-such-program", CommandNotFoundError),
        ("/no/such/program", CommandNotFoundError),
        ("/etc/passwd/x", CommandNotFoundError),
        ("/etc", CommandNotExecutableError),
        ("/etc/passwd", CommandNotExecutableError),
        ("./etc", CommandNotExecutableError),
    ],
)
def test_command_that_cannot_run(
    jails: Jails, config: Build, command: str, error: type[JailError]
) -> None:
    """What cannot be executed is told at the start, with the shell's exit status."""
    with pytest.raises(JailError) as caught:
        jails.run(config(command))
    assert type(caught.value) is error
    assert command in str(caught.value)
    assert caught.value.exit_status == (127 if error is CommandNotFoundError else 126)


def test_script_without_interpreter(jails: Jails, config: Build) -> None:
    """A file with the x bit that is no program is 126, not an ENOEXEC of ours."""
    text = "echo '#!/no/such/shell' > /a; echo nothing > /b; chmod 755 /a /b; cat"
    running = jails.start(config("sh", "-c", text + "; :", process={"env": ["PATH=/bin"]}))
    eventually(
        lambda: (
            (Path(f"/proc/{running.pid}/root/b").stat().st_mode & 0o111)
            if Path(f"/proc/{running.pid}/root/b").exists()
            else 0
        ),
        "the files",
    )
    for path, error in (("/a", CommandNotFoundError), ("/b", CommandNotExecutableError)):
        with pytest.raises(error):
            jails.enter(running.name, path)
    running.wait()


def test_path_of_the_payload(jails: Jails, config: Build) -> None:
    """The program is looked for in the payload's own PATH, past folders that are missing."""
    env = ["PATH=/nowhere::/etc:/usr/bin:/bin", "A=1"]
    ended = jails.run(config("env", process={"env": env}))
    assert sorted(ended.lines) == ["A=1", "PATH=/nowhere::/etc:/usr/bin:/bin"]
    with pytest.raises(CommandNotFoundError):
        jails.run(config("env", process={"env": ["PATH=/nowhere"]}))


def test_nothing_of_the_callers_leaks(
    probe: Probe, executor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Descriptors, environment, working directory, umask, signal mask: none is the caller's."""
    monkeypatch.setenv("SECRET", "x")
    directory = Path.cwd()
    os.chdir(tmp_path)
    one, other = socket.socketpair()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    opened = [
        os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        os.open("/dev/null", os.O_RDWR),
        os.open("/root", os.O_PATH),
        os.pidfd_open(os.getpid()),
        *os.pipe(),
        os.open("/proc/self/ns/net", os.O_RDONLY),
        os.dup2(0, 700),
    ]
    inheritable = [*opened, one.fileno(), other.fileno(), listener.fileno()]
    for fd in inheritable:
        os.set_inheritable(fd, True)
    old_mask = os.umask(0o777)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        seen = probe("fds", "status", "system", "environment")
    finally:
        os.chdir(directory)
        signal.signal(signal.SIGUSR2, old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        os.umask(old_mask)
        for fd in opened:
            os.close(fd)
        for sock in (one, other, listener):
            sock.close()
    assert sorted(seen["fds"]["open"]) == ["0", "1", "2"]
    assert seen["environment"]["environment"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ]
    assert seen["system"]["cwd"] == "/"
    assert seen["status"]["Umask"] == "0022"
    assert seen["status"].mask("SigBlk") == 0
    assert seen["status"].mask("SigIgn") == 0


def test_extra_descriptors(jails: Jails, config: Build) -> None:
    """Descriptors that are handed on become 3, 4, … in order, as with LISTEN_FDS."""
    pairs = [os.pipe() for _ in range(3)]
    command = "for fd in 3 4 5; do echo word$fd >&$fd; done; ls /proc/self/fd | wc -l"
    ended = jails.run(config("sh", "-c", command), extra=[writer for _, writer in pairs])
    for number, (reader, writer) in enumerate(pairs, 3):
        os.close(writer)
        assert os.read(reader, 100) == f"word{number}\n".encode()
        os.close(reader)
    assert ended.lines == ["7"]  # and the one of ls itself


def test_extra_descriptors_in_each_others_places(jails: Jails, config: Build) -> None:
    """Streams that lie where others must go are not lost."""
    files = []
    for place in range(3, 6):  # these are taken in the test process: any numbers do, swapped
        file = os.memfd_create(f"file{place}")
        os.write(file, f"file{place}".encode())
        os.lseek(file, 0, os.SEEK_SET)
        files.append(file)
    ended = jails.run(config("sh", "-c", "cat <&3; cat <&4; cat <&5"), extra=list(reversed(files)))
    for file in files:
        os.close(file)
    assert ended.stdout == "file5file4file3"


def test_owned_streams_can_be_opened(jails: Jails, config: Build) -> None:
    """A payload that is not root can open /dev/stdout, its pipe having been made for it."""
    process = {"user": {"uid": 1000, "gid": 1000}}
    ended = jails.run(
        config("sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr", process=process)
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "out\n", "err\n")


def test_caller_without_standard_streams(config: Build, executor: str) -> None:
    """A caller whose own 0, 1 and 2 are closed starts a jail all the same."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            files = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
            files = [os.dup2(fd, 100 + place) for place, fd in enumerate(files)]
            os.closerange(0, 100)
            standard = (files[0], files[1], files[2])
            request = Request(new_name(), streams=Streams(standard), remove=True)
            execution = launch(config("sh", "-c", "exit 5"), request)
            status = reap(execution.pidfd)
            from jailrun.engine.lifecycle import finish

            finish(request.name, status)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


@pytest.mark.parametrize("name", ["a/b", "..", ".", "-x", "a" * 65, "ü", "a b", "a\n"])
def test_bad_name(jails: Jails, config: Build, name: str) -> None:
    """What cannot be a name makes nothing."""
    with pytest.raises(JailError, match="cannot be the name of a jail"):
        jails.run(config("true"), name=name)


def test_name_is_taken(jails: Jails, config: Build) -> None:
    """A second jail of one name does not disturb the first."""
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    with pytest.raises(ConflictError, match=f"the name {running.name} is taken") as caught:
        jails.run(config("true"), name=running.name)
    assert "jailrun rm" in (caught.value.hint or "")
    running.write("still here\n")
    assert running.wait().stdout == "still here\n"


def test_two_starts_of_one_name_at_once(jails: Jails, config: Build) -> None:
    """Of several starts with one name exactly one wins, and the others leave no trace."""
    name = new_name()
    start = threading.Barrier(4)
    results: list[object] = []

    def try_it() -> None:
        start.wait()
        try:
            results.append(jails.start(config("cat"), name=name))
        except ConflictError as error:
            results.append(error)

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results) == [
        *["ConflictError"] * 3,
        "Running",
    ]
    assert list_names() == [name]
    (winner,) = jails.running
    assert winner.wait().status == 0


def test_many_threads(jails: Jails, config: Build) -> None:
    """Jails start from several threads of one process, each with its own streams."""
    ended: dict[int, Any] = {}

    def run(number: int) -> None:
        for turn in range(3):
            ended[number * 10 + turn] = jails.run(config("sh", "-c", f"echo {number}{turn}; cat"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: int(one.stdout) for number, one in ended.items()} == {
        number * 10 + turn: number * 10 + turn for number in range(1, 5) for turn in range(3)
    }


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"process": {"args": []}}, SpecError, "process.args"),
        ({"root": None, "jailrun": {"layers": None}}, SpecError, "root"),
        ({"process": {"cwd": "relative"}}, SpecError, "process.cwd"),
        ({"process": {"user": {"uid": 70000}}}, SpecError, "process.user.uid"),
        ({"linux": {"resources": {"memory": {"limit": -2}}}}, JailError, "memory"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, UnsupportedError, "linux.intelRdt"),
        ({"without": ["mount"]}, JailError, "mount namespace"),
        ({"jailrun": {"layers": ["/no/such/layer"]}}, RootfsError, "/no/such/layer"),
        ({"jailrun": {"layers": ["/dev/null"]}}, RootfsError, "/dev/null"),
        ({"linux": {"uidMappings": [], "gidMappings": []}}, JailError, "apping"),
        (
            {"linux": {"maskedPaths": ["relative"]}},
            SpecError,
            "linux.maskedPaths",
        ),
    ],
)
def test_bad_config(
    jails: Jails, config: Build, changes: dict[str, Any], error: type[JailError], text: str
) -> None:
    """What is wrong with a config is named, and nothing is left."""
    with pytest.raises(error, match=text):
        jails.run(config("true", **changes))


def test_missing_root_folder(jails: Jails, config: Build) -> None:
    """A root that is not there, and one that is a file."""
    with pytest.raises(RootfsError, match="cannot use /no/such/root as root: No such file"):
        jails.run(config("true", folder="/no/such/root"))
    with pytest.raises(RootfsError, match="not a directory"):
        jails.run(config("true", folder="/dev/null"))


def test_invalid_seccomp(jails: Jails, config: Build) -> None:
    """A profile that libseccomp refuses is an error before anything is made."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "X"}]}
    with pytest.raises((SpecError, SecurityError), match="seccomp"):
        jails.run(config("true", linux={"seccomp": profile}, jailrun={"seccomp": None}))


def test_explain_makes_nothing(config: Build, own_folders: Path, executor: str) -> None:
    """The program is shown without a record, a lease or a cgroup."""
    lines = explain(config("true"), Request(new_name()))
    assert "# the new process" in lines
    assert any("pivot_root" in line for line in lines)
    assert not (own_folders / "jails").exists()
    assert not (own_folders / "ids").exists()


def test_random_name(config: Build, executor: str) -> None:
    """A jail that is given no name gets one."""
    from jailrun.engine.lifecycle import finish

    null = os.open("/dev/null", os.O_RDWR)
    request = Request(streams=Streams((null, null, null)), remove=True)
    execution = launch(config("true"), request)
    os.close(null)
    (name,) = list_names()
    finish(name, reap(execution.pidfd))
