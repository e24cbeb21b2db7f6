"""Transactions on the host's nftables, through libnftables.

Owns: `apply`, `remove` and `query`, and what is said when they fail.  Out of scope: what the rules
are (`jailrun.net.rules`).

``nft`` as a process takes 3 to 5 ms for an element, this 0.2; ctypes and the library, loaded at
the first call, take 3 to 4 ms.  Closing the socket of a context waits until the kernel has let go
of all that was deleted (8 to 20 ms, ``nft_rcv_nl_event``): so a context is kept until the process
ends, or is in another network namespace, or `close` is called.  A process that has removed
something waits for the rest of that time at its end: remove early.
"""

from __future__ import annotations

import os
from _socket import socket
from _thread import allocate_lock

from jailrun.errors import NetworkError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = "libnftables.so.1"
NFT_CTX_DEFAULT = 0  # nftables/libnftables.h
NFT_CTX_OUTPUT_STATELESS = 1 << 2
NFT_CTX_OUTPUT_JSON = 1 << 4
NFT_CTX_OUTPUT_TERSE = 1 << 11
# How libnftables names the errors of the kernel; strerror(3) is not translated, since Python
# sets no locale for messages.
MISSING = "No such file or directory"
EXISTS = "File exists"

AF_NETLINK, NETLINK_NETFILTER = 16, 12  # linux/netlink.h

_library: Any = None
_context: Any = None
_owner: tuple[int, int, int] | None = None  # whose context it is: process, network namespace
_lock = allocate_lock()


def apply(text: str) -> None:
    """Run nft commands as one transaction: all of them come true, or none."""
    if text:
        _run(text, 0)


def remove(text: str) -> None:
    """Run what takes things away, block by block where it cannot be done at once.

    Blocks are separated by empty lines.  One that is about what is gone (the admin may flush all
    tables), or about what belongs to another by now, is passed over.
    """
    try:
        apply(text)
    except NetworkError as error:
        if not is_gone(error):
            raise
    else:
        return
    for block in text.split("\n\n"):
        try:
            apply(block)
        except NetworkError as error:
            if not is_gone(error):
                raise


def query(command: str) -> str:
    """Return what nft prints for a command, as JSON, without elements of sets and counters."""
    return _run(command, NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_TERSE | NFT_CTX_OUTPUT_STATELESS)


def close() -> None:
    """Let go of the context, and of the socket in it."""
    with _lock:
        _drop_context()


def is_gone(error: NetworkError) -> bool:
    """Tell whether something failed since what it is about is not there, or not ours any more."""
    return MISSING in error.message or EXISTS in error.message


def _run(commands: str, flags: int) -> str:
    with _lock:  # a context, and the library's parser, are for one thread at a time
        library = _load()
        context = _get_context(library)
        library.nft_ctx_output_set_flags(context, flags)
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        said = library.nft_ctx_get_error_buffer(context).decode(errors="replace")
        output: str = library.nft_ctx_get_output_buffer(context).decode(errors="replace")
        if failed:
            _drop_context()
    if failed:
        raise explain(said)
    return output


def _get_context(library: Any) -> Any:
    """Return the context of this process in the network namespace in which it is."""
    global _context, _owner
    namespace = os.stat("/proc/thread-self/ns/net")
    owner = (os.getpid(), namespace.st_dev, namespace.st_ino)
    if owner != _owner:
        _drop_context()
        free_fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
        os.close(free_fd)
        _context = library.nft_ctx_new(NFT_CTX_DEFAULT)
        if not _context:
            raise UnsupportedError("cannot make a context of libnftables: out of memory")
        _close_on_exec(free_fd)
        library.nft_ctx_buffer_output(_context)
        library.nft_ctx_buffer_error(_context)
        _owner = owner
    return _context


def _drop_context() -> None:
    global _context, _owner
    context, _context, _owner = _context, None, None
    if context:
        _library.nft_ctx_free(context)


def _close_on_exec(fd: int) -> None:
    """Set what libnftables leaves out, on the descriptor that its socket must have got."""
    try:
        found = socket(fileno=fd)
    except OSError:
        return  # another thread was faster, and has closed it again
    if (found.family, found.proto) == (AF_NETLINK, NETLINK_NETFILTER):
        os.set_inheritable(fd, False)
    found.detach()


def explain(said: str) -> NetworkError | UnsupportedError:
    """Return the error for what nft has said: the reason, the command, a line that points at it."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip(" ^~\t")]
    first = lines[0] if lines else "no reason given"
    reason = first.partition("Error: ")[2] or first
    command = f": {lines[1].strip()}" if len(lines) > 1 else ""
    if "Operation not permitted" in reason:
        return NetworkError(
            f"cannot change the firewall{command}: {reason}", hint="run it as root of the host"
        )
    if "Operation not supported" in reason or "Protocol not supported" in reason:
        return UnsupportedError(
            f"this kernel's nftables cannot do what networks need{command}: {reason}",
            hint="Linux 5.6 or later with CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_BRIDGE, "
            "CONFIG_NFT_NAT, CONFIG_NFT_MASQ and CONFIG_NFT_FIB_INET is needed: "
            "modprobe nf_tables nft_nat nft_masq nft_fib_inet",
        )
    if MISSING in reason:
        hint = "are our tables there (nft list table inet jailrun)? jailrun repair makes them again"
        return NetworkError(f"cannot change the firewall{command}: {reason}", hint=hint)
    return NetworkError(f"cannot change the firewall{command}: {reason}")


def _load() -> Any:
    """Return the library, its functions declared."""
    global _library
    if _library is None:
        try:
            import ctypes
        except ImportError as error:
            raise UnsupportedError(
                f"networks need nftables, and this Python has no ctypes: {error}",
                hint="use --net none, --net host, or a Python with ctypes",
            ) from error
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise UnsupportedError(
                f"networks need nftables, and {LIBRARY} cannot be loaded: {error}",
                hint="apt-get install libnftables1 (dnf install nftables-libs), "
                "or use --net none or --net host",
            ) from error
        pointer, number, text = ctypes.c_void_p, ctypes.c_uint, ctypes.c_char_p
        for name, result, arguments in (
            ("nft_ctx_new", pointer, [ctypes.c_uint32]),
            ("nft_ctx_free", None, [pointer]),
            ("nft_ctx_buffer_output", ctypes.c_int, [pointer]),
            ("nft_ctx_buffer_error", ctypes.c_int, [pointer]),
            ("nft_ctx_output_set_flags", None, [pointer, number]),
            ("nft_ctx_get_output_buffer", text, [pointer]),
            ("nft_ctx_get_error_buffer", text, [pointer]),
            ("nft_run_cmd_from_buffer", ctypes.c_int, [pointer, text]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        _library = library
    return _library


def _forget_lock() -> None:
    """Have a lock of our own after a fork: the one who held it is not here."""
    global _lock
    _lock = allocate_lock()


os.register_at_fork(after_in_child=_forget_lock)
