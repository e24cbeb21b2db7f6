"""Addresses and names of interfaces, as users and configs write them.

Owns: what is one, and which of them can serve for what.  Texts come back in the one form that the
kernel prints, so that two that are equal are the same.  Out of scope: whether an address is free,
or in the subnet of its network (`jailrun.net`).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from jailrun.errors import JailError
from jailrun.units import is_digits, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

IPV4, IPV6 = "an IPv4 address", "an IPv6 address"
ANY = "an address"
INTERFACE_HINT = "1 to 15 letters, digits, _ . and -, as eth0; not lo, all or default"

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_HEX = frozenset("0123456789abcdef")


def pack_address(text: str) -> bytes:
    """Return the 4 or 16 bytes of an address, none where ``text`` is no address."""
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):  # not an address; a NUL, or what UTF-8 does not have
        return b""


def unpack_address(packed: bytes) -> str:
    """Return the address of 4 or 16 bytes."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def is_ipv4(text: str) -> bool:
    """Tell whether ``text`` is an IPv4 address."""
    return len(pack_address(text)) == 4


def is_ipv6(text: str) -> bool:
    """Tell whether ``text`` is an IPv6 address."""
    return len(pack_address(text)) == 16


def is_address(text: str) -> bool:
    """Tell whether ``text`` is an address of either family."""
    return bool(pack_address(text))


def classify(packed: bytes) -> str:
    """Return what an address is that no single interface elsewhere has; empty for all others."""
    if len(packed) == 4:
        first = packed[0]
        if first == 0:
            return "unspecified"
        if first == 127:
            return "loopback"
        return "" if first < 224 else "multicast" if first < 240 else "reserved"
    if not any(packed[:15]) and packed[15] < 2:
        return "loopback" if packed[15] else "unspecified"
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return "IPv4-mapped"
    if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
        return "link-local"
    return "multicast" if packed[0] == 0xFF else ""


# What an address cannot be that a jail is to have for itself.
NOT_ONES_OWN = ("unspecified", "loopback", "multicast", "reserved", "IPv4-mapped", "link-local")


def parse_address(text: str, what: str, kind: str = ANY, but: Collection[str] = ()) -> str:
    """Return an address of ``kind``, in brackets or not, that is none of ``but`` (`classify`)."""
    inside = text[1:-1] if text[:1] == "[" and text[-1:] == "]" and ":" in text else text
    packed = pack_address(inside)
    if not packed or (kind == IPV4 and len(packed) != 4) or (kind == IPV6 and len(packed) != 16):
        example = "192.0.2.10" if kind == IPV4 else "fd00::10"
        example = "192.0.2.10 or fd00::10" if kind == ANY else example
        hint = f"write {example}"
        if "/" in text and kind != ANY:
            hint = "write it without the prefix: that is the network's"
        raise JailError(f"{what} {show(text)} is not {kind}", hint=hint)
    found = classify(packed)
    if found in but:
        article = "an" if found[0] in "uI" else "a"
        raise JailError(
            f"{what} {show(text)} is {article} {found} address, which cannot serve here",
            hint="write one that a single interface has",
        )
    return unpack_address(packed)


def split_prefix(text: str) -> tuple[bytes, int]:
    """Return an address and the length of its prefix; no bytes where ``text`` is not the two."""
    address, slash, digits = text.partition("/")
    packed = pack_address(address)
    if not slash or not is_digits(digits) or int(digits) > 8 * len(packed):
        return b"", 0
    return packed, int(digits)


def mask_address(packed: bytes, prefix: int) -> bytes:
    """Return an address with all bits after the prefix 0."""
    bits = 8 * len(packed)
    mask = (1 << bits) - (1 << (bits - prefix))
    return (int.from_bytes(packed, "big") & mask).to_bytes(len(packed), "big")


def is_with_prefix(text: str) -> bool:
    """Tell whether ``text`` is an address with the length of its prefix, as 192.0.2.7/24."""
    return bool(split_prefix(text)[0])


def is_subnet(text: str) -> bool:
    """Tell whether ``text`` is the first address of a subnet and its prefix."""
    packed, prefix = split_prefix(text)
    return bool(packed) and mask_address(packed, prefix) == packed


def parse_with_prefix(text: str, what: str) -> str:
    """Return an address with its prefix that an interface can have."""
    packed, prefix = split_prefix(text)
    if not packed or not prefix:
        raise JailError(
            f"{what} {show(text)} is not an address with a prefix", hint="write 192.0.2.7/24"
        )
    parse_address(unpack_address(packed), what, but=NOT_ONES_OWN)
    return f"{unpack_address(packed)}/{prefix}"


def parse_subnet(text: str, what: str) -> str:
    """Return a subnet with its prefix; an address alone is a subnet of one."""
    # [fd00::]/8 and [fd00::/8] are the same.
    plain = text[1:].replace("]", "", 1) if text[:1] == "[" and "]" in text else text
    if alone := pack_address(plain):
        return f"{unpack_address(alone)}/{8 * len(alone)}"
    packed, prefix = split_prefix(plain)
    if not packed:
        raise JailError(
            f"{what} {show(text)} is not an address",
            hint="write 192.0.2.7, 10.0.0.0/8 or [fd00::]/8",
        )
    first = mask_address(packed, prefix)
    if first != packed:
        raise JailError(
            f"{what} {show(text)} is an address within a subnet, not a subnet",
            hint=f"write {unpack_address(first)}/{prefix}, "
            f"or {unpack_address(packed)} for this one alone",
        )
    return f"{unpack_address(first)}/{prefix}"


# --- interfaces -----------------------------------------------------------------------------------
def _pack_mac(text: str) -> bytes:
    """Return the six bytes of a MAC, none where ``text`` is no MAC."""
    parts = text.lower().split(":")
    if len(parts) != 6 or not all(len(part) == 2 and _HEX.issuperset(part) for part in parts):
        return b""
    return bytes([int(part, 16) for part in parts])


def is_mac(text: str) -> bool:
    """Tell whether ``text`` is the MAC of one interface, as 02:00:00:00:00:01."""
    packed = _pack_mac(text)
    # The lowest bit of the first byte: many receivers, IEEE 802.
    return any(packed) and not packed[0] & 1


def parse_mac(text: str, what: str) -> str:
    """Return the MAC of one interface, in small letters with colons."""
    packed = _pack_mac(text.replace("-", ":"))
    if not packed or not any(packed):
        raise JailError(
            f"{what} {show(text)} is not the MAC address of an interface",
            hint="write six bytes that are not all 0, as 02:42:0a:57:00:0a",
        )
    if packed[0] & 1:
        raise JailError(
            f"{what} {show(text)} is a multicast address, not that of one interface",
            hint="write an even first byte, as in 02:42:0a:57:00:0a",
        )
    return packed.hex(":")


def is_interface_name(text: str) -> bool:
    """Tell whether ``text`` can be the name of an interface of a jail, beside ``lo``."""
    return (
        0 < len(text) <= 15  # IFNAMSIZ, linux/if.h
        and _LETTERS.issuperset(text)
        # names in /proc/sys/net/ipv4/conf beside those of interfaces
        and text not in (".", "..", "lo", "all", "default")
    )


def check_interface_name(text: str, what: str) -> str:
    """Return ``text``, which can be the name of an interface; JailError says why it cannot."""
    if not is_interface_name(text):
        long = f": it has {len(text)} characters" if len(text) > 15 else ""
        raise JailError(f"{what} {show(text)} is not valid{long}", hint=f"write {INTERFACE_HINT}")
    return text
