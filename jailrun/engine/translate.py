"""From a failed operation to the error that the user sees.

Owns: which error class belongs to which facility's operations, and what execve's errno means.
"""

from __future__ import annotations

import errno

from jailrun.cgroups.errors import translate as translate_cgroup
from jailrun.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    JailError,
    NamespaceError,
    NetworkError,
    RootfsError,
    SecurityError,
)
from jailrun.kernel.operation import OperationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.operation import Operation

CLASSES: dict[str, type[JailError]] = {
    "namespaces": NamespaceError,
    "net": NetworkError,
    "rootfs": RootfsError,
    "security": SecurityError,
}
NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)


def translate(error: OSError, notes: list[tuple[Operation, int]]) -> JailError:
    """Return the error to raise for ``error``; ``notes`` are the failures that were passed over."""
    if not isinstance(error, OperationError):
        return _translate_clone(error)
    operation = error.operation
    if operation.name in ("execve", "execveat"):
        return _translate_exec(error, notes)
    if operation.facility == "cgroups":
        return translate_cgroup(error)
    if operation.facility == "net" and operation.name == "bpf":
        from jailrun.net.shared import translate as translate_lock

        return translate_lock(error)
    kind = CLASSES.get(operation.facility, JailError)
    return kind(str(error), hint=operation.hint or None)


def _translate_clone(error: OSError) -> JailError:
    """Translate what the clone itself, or a process that was killed before its exec, gave."""
    hints = {
        errno.ENOSPC: "a limit of namespaces is reached: sysctl user | grep max_ ; and raise it",
        errno.EAGAIN: "a limit of processes is reached: ulimit -u, or pids.max of a cgroup above",
        errno.EPERM: "see what is missing: jailrun check",
        errno.ENOSYS: "a container around us may forbid clone3: see jailrun check",
    }
    why = error.strerror or str(error)
    return JailError(f"cannot start the process: {why}", hint=hints.get(error.errno or 0))


def _translate_exec(error: OperationError, notes: list[tuple[Operation, int]]) -> JailError:
    command = error.operation.what.removeprefix("execute ")
    denied = [number for operation, number in notes if operation.name == "execve"]
    number = denied[-1] if denied else (error.errno or 0)
    if number in NOT_FOUND:
        return CommandNotFoundError(
            f"cannot execute {command}: not found in the jail",
            hint="name a program that is in the image; a script needs its interpreter there, too",
        )
    why = {
        errno.ENOEXEC: "not a program (a script must begin with #!)",
        errno.EACCES: "permission denied",
    }
    text = why.get(number, error.strerror if number == error.errno else "it failed")
    return CommandNotExecutableError(f"cannot execute {command}: {text}")
