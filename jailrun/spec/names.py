"""Names that users give: of jails and of hosts.

Owns: what is allowed in them.  A jail's name becomes a folder, a cgroup and a host name.
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.units import show

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _LETTERS | frozenset("_.-")
_HOST = _LETTERS | frozenset(".-")
LONGEST = 64


def is_name(name: str) -> bool:
    """Tell whether ``name`` can be a jail's."""
    return 0 < len(name) <= LONGEST and name[0] in _LETTERS and _NAME.issuperset(name)


def check_name(name: str, what: str = "name") -> str:
    """Return ``name``, which is valid for a jail; JailError says why it is not."""
    if not is_name(name):
        raise JailError(
            f"{what} {show(name)} is not valid",
            hint=f"1 to {LONGEST} letters, digits, _ . and -, the first a letter or digit",
        )
    return name


def check_hostname(name: str, what: str = "hostname") -> str:
    """Return ``name``, which is valid for a host or domain, RFC 1123 but up to 64 characters."""
    parts = name.split(".") if _HOST.issuperset(name) else []
    if (
        not parts
        or len(name) > LONGEST  # sethostname(2)
        or not all(part and part[0] != "-" and part[-1] != "-" for part in parts)
    ):
        raise JailError(
            f"{what} {show(name)} is not valid",
            hint=f"up to {LONGEST} letters, digits and -, parts with dots between",
        )
    return name
