"""Which seccomp filter a jail gets: the configuration's own, the default one, or none.

Owns: the choice, and the cache of compiled filters.  A start with a warm cache reads one file of
4 KB: neither libseccomp nor the profile's 400 names are touched.  Out of scope: the profile
(`jailrun.security.profile`), the compiler (`jailrun.security.compile`).

A cache entry is the SHA-256 of the filter, then the filter.  Its name is the SHA-256 of all that
the filter depends on.  Entries are written beside and renamed, so that any number of processes may
share a cache; one that is damaged or belongs to someone else is made again; a cache that cannot
be written costs a compilation at each start and nothing more.
"""

from __future__ import annotations

import os
import sys

from jailrun.errors import SpecError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

# Stands for the default profile in the name of a cache entry; a unit test compares it with the
# profile, and prints the new value after a change.
PROFILE_DIGEST = "f91bbd16ccdad756"
# Counts the changes of compile.py that make another filter of the same profile.
COMPILER_VERSION = 2

# linux/seccomp.h
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
MAX_BYTES = 8 * 4096  # BPF_MAXINSNS instructions
DIGEST_BYTES = 32
LIBRARY = "libseccomp.so.2"

_filters: dict[str, bytes] = {}  # what this process has loaded already


def load_config_filter(config: Mapping[str, Any], cache_dir: str) -> bytes | None:
    """Return the filter of a jail, None where it shall have none.

    ``linux.seccomp`` comes first.  Without it ``jailrun.seccomp`` says "default" for the default
    profile, loosened by the names in ``jailrun.allow``, and "unconfined" (or nothing) for none.
    """
    own = (config.get("linux") or {}).get("seccomp")
    if own is not None:
        return load_filter(own, cache_dir)
    extensions = config.get("jailrun") or {}
    wanted = extensions.get("seccomp", "unconfined")
    if wanted == "unconfined":
        return None
    if wanted != "default":
        raise SpecError(
            "jailrun.seccomp", f"{wanted!r} is not a profile", hint="default or unconfined"
        )
    capabilities = (config.get("process") or {}).get("capabilities") or {}
    return load_default_filter(
        capabilities.get("bounding") or (), extensions.get("allow") or (), cache_dir
    )


def load_default_filter(capabilities: Iterable[str], allow: Iterable[str], cache_dir: str) -> bytes:
    """Return the filter of the default profile for these capabilities and loosenings."""
    machine = os.uname().machine
    granted = sorted(set(capabilities))
    allowed = sorted(set(allow))
    source = f"default {PROFILE_DIGEST} {machine} {' '.join(granted)} + {' '.join(allowed)}"

    def build() -> Mapping[str, Any]:
        from jailrun.security.profile import default_profile

        return default_profile(granted, allowed, machine)

    return _load(source, build, cache_dir)


def load_filter(seccomp: Mapping[str, Any] | None, cache_dir: str) -> bytes | None:
    """Return the filter of an OCI profile; None for no profile."""
    if seccomp is None:
        return None
    source = f"{os.uname().machine} {canonical_json(seccomp)}"
    return _load(source, lambda: seccomp, cache_dir)


def filter_flags(seccomp: Mapping[str, Any] | None) -> int:
    """Return the flags for seccomp(2).

    Without a list it is SPEC_ALLOW, as in runc: before Linux 5.16 a filter else switched on a
    mitigation that slows the whole jail.  WAIT_KILLABLE_RECV means something only with a listener.
    """
    names = None if seccomp is None else seccomp.get("flags")
    if names is None:
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    flags = 0
    for index, name in enumerate(names):
        if name not in FLAGS:
            raise SpecError(
                f"linux.seccomp.flags[{index}]",
                f"{name!r} is not a flag",
                hint=f"one of: {', '.join(FLAGS)}",
            )
        flags |= FLAGS[name]
    return flags & ~FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys, by the encoder below the json module."""
    from _json import encode_basestring_ascii, make_encoder

    def refuse(item: object) -> None:
        raise SpecError("linux.seccomp", f"{item!r} cannot be written as JSON")

    encoder = make_encoder(None, refuse, encode_basestring_ascii, None, ":", ",", True, False, True)
    return "".join(encoder(value, 0))


def library_version() -> str:
    """Return the version of the installed libseccomp, "" where it is in no usual place.

    A newer one knows more system calls by name and so makes another filter.
    """
    machine = os.uname().machine
    for folder in (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib"):
        try:
            return os.readlink(f"{folder}/{LIBRARY}").rpartition(".so.")[2]
        except OSError:
            continue
    return ""


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of ``data``, by the module below hashlib, which would load OpenSSL."""
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256  # type: ignore[import-not-found]
    value: bytes = sha256(data).digest()
    return value


# --- the cache -----------------------------------------------------------------------------------
def _load(source: str, build: Callable[[], Mapping[str, Any]], cache_dir: str) -> bytes:
    body = _filters.get(source)
    if body is not None:
        return body
    text = f"{COMPILER_VERSION} {library_version()} {source}"
    path = f"{cache_dir}/seccomp/{digest(text.encode()).hex()}.bpf"
    body = read_entry(path)
    if body is None:
        profile = build()
        check_supported(profile)
        from jailrun.security.compile import compile_profile

        body = compile_profile(profile)
        write_entry(path, body)
    _filters[source] = body
    return body


def check_supported(seccomp: Mapping[str, Any]) -> None:
    """Refuse by name what no one would answer: notifications to a listener."""
    rules = seccomp.get("syscalls") if isinstance(seccomp, dict) else None
    entries = rules if isinstance(rules, list) else []
    actions = [entry.get("action") for entry in entries if isinstance(entry, dict)]
    if "SCMP_ACT_NOTIFY" in actions or (
        isinstance(seccomp, dict)
        and (seccomp.get("listenerPath") or seccomp.get("defaultAction") == "SCMP_ACT_NOTIFY")
    ):
        raise UnsupportedError(
            "linux.seccomp: a listener for notifications (SCMP_ACT_NOTIFY) is not supported",
            hint="use SCMP_ACT_ERRNO for these calls",
        )


def read_entry(path: str) -> bytes | None:
    """Return the filter in a cache entry; None where it is missing, damaged or not ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        data = os.read(fd, DIGEST_BYTES + MAX_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    body = data[DIGEST_BYTES:]
    if not body or len(body) % 8 or len(body) > MAX_BYTES:
        return None
    return body if digest(body) == data[:DIGEST_BYTES] else None


def write_entry(path: str, body: bytes) -> bool:
    """Put a filter into the cache; False where that is not possible, which is no error."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        data = digest(body) + body
        complete = os.write(fd, data) == len(data)
        if complete:
            os.rename(temporary, path)
            return True
    except OSError:
        pass
    finally:
        os.close(fd)
    remove_file(temporary)
    return False


def remove_file(path: str) -> None:
    """Remove a file that may be gone."""
    try:
        os.unlink(path)
    except OSError:
        return
