"""The errors that jailrun raises: one base class, subclasses where a caller acts differently.

A message says what was tried, on which object and why it failed; lower case, no full stop.
The hint is the next thing to type.  The kernel floor raises ``OSError`` only; each facility
translates once, at its boundary.
"""

from __future__ import annotations


class JailError(Exception):
    """Something that jailrun was asked to do and could not.

    ``hint`` is what the user can do about it, None where there is nothing to say.
    ``exit_status`` is what the command line exits with (125 is our own failure).
    """

    exit_status = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Say how to be copied into another process, as pools of processes do."""
        return restore, (type(self), self.args, self.__dict__)


def restore(
    kind: type[JailError], args: tuple[object, ...], values: dict[str, object]
) -> JailError:
    """Return the error that `JailError.__reduce__` has taken apart."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(values)
    return error


class SpecError(JailError):
    """A configuration is not valid; ``path`` is the JSON path of the value at fault."""

    def __init__(self, path: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {message}" if path else message, hint=hint)
        self.path = path


class UnsupportedError(JailError):
    """A valid request that this host, or this version, cannot honour."""


class NotFoundError(JailError):
    """There is no jail, image or other object of that name."""


class ConflictError(JailError):
    """The object exists already, or is in a state that does not allow the operation."""


class CommandNotFoundError(JailError):
    """The payload's program does not exist in the jail."""

    exit_status = 127


class CommandNotExecutableError(JailError):
    """The payload's program exists in the jail and cannot be executed."""

    exit_status = 126


class CgroupError(JailError):
    """A resource limit could not be set."""


class RootfsError(JailError):
    """The root file system could not be put together."""


class NamespaceError(JailError):
    """A namespace could not be made, joined or configured."""


class NetworkError(JailError):
    """A network, an address or a port cannot be had."""


class SecurityError(JailError):
    """A security setting (capabilities, seccomp, ids, rlimits) could not be applied."""


class ImageError(JailError):
    """An image is missing, damaged, hostile or could not be built."""
