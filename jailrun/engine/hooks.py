"""Hooks: programs of the config's that run at the moments of a jail's life.

Owns: running them, with the state on standard input, in the namespaces that the specification
names (config.md, "POSIX-platform Hooks").  Out of scope: when (`jailrun.engine.launch`).
"""

from __future__ import annotations

import errno
import os
import select
import time

from jailrun.errors import JailError
from jailrun.jsontext import dumps
from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution, reap, send_signal
from jailrun.kernel.program import Program
from jailrun.namespaces import differing, plan_become_root, plan_enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.engine.record import Record
    from jailrun.spec.model import Hook, Hooks

STATUSES = {"prestart": "creating", "createRuntime": "creating", "createContainer": "creating",
            "startContainer": "created", "poststart": "running", "poststop": "stopped"}  # fmt: skip
HOST = ""
DEADLINE_SECONDS = 3600.0  # of a hook without a time-out of its own


def run_poststop(hooks: Hooks, record: Record) -> list[str]:
    """Run the poststop hooks, all of them; return what went wrong, as warnings."""
    state = dumps(format_state(record, STATUSES["poststop"])).encode()
    warnings = []
    for hook in hooks.get("poststop", []):
        try:
            _run(hook, "poststop", state, 0, HOST)
        except JailError as error:
            warnings.append(error.message)
    return warnings


def run_hooks(hooks: Hooks, moment: str, record: Record, *, inside: str = HOST) -> None:
    """Run the hooks of a moment in order; raise JailError at the first that fails.

    ``inside``: "" on the host, "mount" in the jail's namespaces with the host's root still (paths
    are the host's), "root" in the jail.
    """
    for hook in hooks.get(moment, []):  # type: ignore[attr-defined]
        state = dumps(format_state(record, STATUSES[moment])).encode()
        _run(hook, moment, state, record.pid, inside)


def format_state(record: Record, status: str) -> dict[str, object]:
    """Return the state of a jail as the specification has it (runtime.md, "State")."""
    state: dict[str, object] = {
        "ociVersion": "1.2.1",
        "id": record.name,
        "status": status,
        "bundle": record.bundle,
    }
    if record.pid and status != "stopped":
        state["pid"] = record.pid
    if record.labels:
        state["annotations"] = record.labels
    return state


def _run(hook: Hook, moment: str, state: bytes, pid: int, inside: str) -> None:
    what = f"{moment} hook {hook['path']}"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    execution = Execution(_plan(hook, reader, pid, inside))
    try:
        execution.run_before()
        execution.spawn(share_memory=False)
        os.close(reader)
        reader = -1
        execution.wait(DEADLINE_SECONDS)
        feed, writer = writer, -1
        status = _feed_and_wait(execution, feed, state, hook.get("timeout"))
    except OSError as error:
        execution.abandon()
        raise JailError(f"{what} failed: {error.strerror or error}") from error
    except BaseException:
        execution.abandon()
        raise
    finally:
        execution.close_opened()
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
    if status is None:
        raise JailError(f"{what} failed: no end after its time-out of {hook.get('timeout')} s")
    if status:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise JailError(f"{what} failed: {how}")


def _plan(hook: Hook, stdin: int, pid: int, inside: str) -> Program:
    program = Program()
    child = program.child
    program.keep(stdin)
    if inside:
        process = program.before.call("pidfd_open", pid, 0, what="reach the jail", result="pidfd")
        kinds = differing(pid)
        plan_enter(program, process, kinds)
        if kinds & c.CLONE_NEWUSER:
            plan_become_root(program)
        program.enter("hooks")
        if inside == "root":
            child.chdir("/", what="enter the root")
    child.dup3(stdin, 0, what="give the state")
    child.close_range(3, c.FD_MAX, c.CLOSE_RANGE_CLOEXEC)
    child.reset_signals()
    child.announce_exec()
    child.execve(
        hook["path"], hook.get("args") or [hook["path"]], hook.get("env") or [], what="execute"
    )
    return program


def _feed_and_wait(
    execution: Execution, writer: int, state: bytes, timeout: int | None
) -> int | None:
    """Write the state, which the hook may not read, and wait; None if it took too long."""
    os.set_blocking(writer, False)
    try:
        os.write(writer, state)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EAGAIN):
            raise
    finally:
        os.close(writer)
    poll = select.poll()
    poll.register(execution.pidfd, select.POLLIN)
    deadline = time.monotonic() + (timeout or DEADLINE_SECONDS)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return reap(execution.pidfd)
    send_signal(execution.pidfd, 9)
    reap(execution.pidfd)
    return None
