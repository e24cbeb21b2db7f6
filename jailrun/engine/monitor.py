"""Detached jails: the small process that stays as a jail's parent, and what it does at the end.

Owns: `launch_detached`.  The caller forks; the child starts the jail and becomes the monitor by
executing our small static program (``kernel/init.c``), which waits for the jail's end, writes the
exit status down and executes the interpreter once more, for `main`, which finishes the record.
Out of scope: restarting (`jailrun.server`).
"""

from __future__ import annotations

import os
import sys

from jailrun import errors
from jailrun.engine.launch import Request, launch
from jailrun.engine.lifecycle import finish
from jailrun.engine.payload import Streams
from jailrun.engine.record import Record, load
from jailrun.errors import JailError, UnsupportedError
from jailrun.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MONITOR = f"{PACKAGE}/kernel/init"


def launch_detached(
    config: object, request: Request, receive_terminal: Callable[[], int] | None = None
) -> int:
    """Start a jail that outlives its caller; return the pid of its init.

    Its output goes to ``request.log``.  ``receive_terminal`` returns the master of the jail's
    terminal where the config asks for one.  The caller must have one thread only, since it forks.
    """
    if not os.access(MONITOR, os.X_OK):
        raise UnsupportedError(
            "a detached jail needs the small monitor program, which was not built",
            hint="install a C compiler and set jailrun up again: bin/setup",
        )
    if not request.log:
        raise JailError("a detached jail needs a log")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_parent(config, request, writer, receive_terminal)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    if not answer:
        os.waitpid(pid, 0)
        raise JailError("the process that starts the jail was killed")
    told = loads(answer)
    if "pid" in told:
        return int(told["pid"])
    os.waitpid(pid, 0)
    kind = getattr(errors, told["kind"], JailError)
    error: JailError = kind.__new__(kind)
    JailError.__init__(error, told["message"], hint=told["hint"])
    raise error


def _be_parent(
    config: object, request: Request, writer: int, receive_terminal: Callable[[], int] | None
) -> NoReturn:
    """Start the jail, say so, and become its monitor; never return to the caller's code."""
    try:
        os.setsid()
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        request.streams = Streams((null, null, null))
        execution = launch(config, request)
        master = receive_terminal() if receive_terminal else -1
        for place in range(3):
            os.dup2(null, place)
        os.write(writer, dumps({"pid": execution.pid}).encode())
        record = load(request.name)
        _execute_monitor(record, execution.pid, master, request.log_fd)
    except JailError as error:
        told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        os.write(writer, dumps(told).encode())
    except BaseException as error:
        told = {"kind": "JailError", "message": f"{type(error).__name__}: {error}", "hint": None}
        os.write(writer, dumps(told).encode())
    finally:
        os._exit(125)


def _execute_monitor(record: Record, pid: int, master: int, log: int) -> None:
    alive = record.hold()
    held = _held(record)
    kept = sorted(fd for fd in (2, alive, master, log, *held) if fd >= 0)
    for fd, following in zip(kept, [*kept[1:], 1 << 20], strict=True):
        os.set_inheritable(fd, True)
        os.closerange(fd + 1, following)
    code = f"import sys; sys.path.insert(0, {os.path.dirname(PACKAGE)!r}); " \
        "from jailrun.engine.monitor import main; main(*sys.argv[1:])"  # fmt: skip
    environment = {
        key: value for key, value in os.environ.items() if key in ("JAILRUN_RUN", "JAILRUN_DATA")
    }
    status_file = f"{record.folder}/exit"
    os.execve(  # noqa: S606 - it is our own program
        MONITOR,
        ["jailrun-monitor", "--monitor", str(pid), status_file, str(master), str(log),
         sys.executable, "-I", "-S", "-c", code, record.name, str(alive),
         *map(str, held)],
        environment,
    )  # fmt: skip


def _held(record: Record) -> list[int]:
    """Return the descriptors that hold what the jail has of the host's network."""
    if not record.network:
        return []
    from jailrun.net import member

    return member.held(record.name)


def main(name: str, alive: str, *held: str) -> None:
    """Finish a jail whose monitor has written its exit status down."""
    if held:
        from jailrun.net import member

        member.adopt(name, [int(fd) for fd in held])
    record = load(name)
    with open(f"{record.folder}/exit", "rb") as file:
        status = int(file.read())
    finish(name, status, alive_fd=int(alive))
