"""jailrun: isolated virtual servers on one Linux kernel.

Glossary, for the code and its documentation:

jail        the isolated environment: namespaces, root file system, limits, the processes in it
server      a jail with a configuration of its own that is kept: a folder with server.toml
image       what a jail's root file system is made from; read-only, shared by all its jails
layer       one folder of an image, stacked with others by overlay
config      the OCI runtime specification's config.json as a dict; what a jail is before it runs
program     the ordered system calls that make a jail out of a config
operation   one system call of a program, with its purpose in words
slot        the result of an operation (a descriptor), to be used by a later one
facility    a part of the kernel that jails use: namespaces, cgroups, rootfs, net, security
parent      the process that starts a jail and waits for it
init        process 1 of a jail
payload     the program that the user asked to run in a jail
record      the folder under /run/jailrun that says what was made for a jail, before it is made
floor       a level of the source tree; a module imports from lower floors only
lean        a floor on the path of every start, which imports built-in modules only

``host_path`` is a path as the host sees it, ``jail_path`` as the jail does.  Names that end in
``_fd`` are descriptors; ``_bytes`` and ``_usec`` are units.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.api import DEVNULL as DEVNULL
    from jailrun.api import PIPE as PIPE
    from jailrun.api import STDOUT as STDOUT
    from jailrun.api import CommandFailedError as CommandFailedError
    from jailrun.api import Jail as Jail
    from jailrun.api import JailTimeoutError as JailTimeoutError
    from jailrun.api import Process as Process
    from jailrun.api import Result as Result
    from jailrun.api import recover as recover
    from jailrun.api import run as run
    from jailrun.errors import CgroupError as CgroupError
    from jailrun.errors import CommandNotExecutableError as CommandNotExecutableError
    from jailrun.errors import CommandNotFoundError as CommandNotFoundError
    from jailrun.errors import ConflictError as ConflictError
    from jailrun.errors import ImageError as ImageError
    from jailrun.errors import JailError as JailError
    from jailrun.errors import NamespaceError as NamespaceError
    from jailrun.errors import NetworkError as NetworkError
    from jailrun.errors import NotFoundError as NotFoundError
    from jailrun.errors import RootfsError as RootfsError
    from jailrun.errors import SecurityError as SecurityError
    from jailrun.errors import SpecError as SpecError
    from jailrun.errors import UnsupportedError as UnsupportedError

__version__ = "0.1.0.dev0"

_API = (
    *("DEVNULL", "PIPE", "STDOUT", "CommandFailedError", "Jail", "JailTimeoutError"),
    *("Process", "Result", "recover", "run"),
)
_ERRORS = (
    *("CgroupError", "CommandNotExecutableError", "CommandNotFoundError", "ConflictError"),
    *("ImageError", "JailError", "NamespaceError", "NetworkError", "NotFoundError"),
    *("RootfsError", "SecurityError", "SpecError", "UnsupportedError"),
)
__all__ = [*_API, *_ERRORS]


def __getattr__(name: str) -> object:
    """Load what is asked for (PEP 562): every start imports this module, few need all of it."""
    home = "api" if name in _API else "errors" if name in _ERRORS else ""
    if not home:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(__import__(f"{__name__}.{home}", fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
