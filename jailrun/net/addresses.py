"""Addresses of IPv4, IPv6 and Ethernet: text to numbers and back, subnets, derived addresses.

Pure.  ``parse_*`` raise `NetworkError` that shows the text and what is wrong with it.  Out of
scope: which addresses are in use (`jailrun.net.leases`) and which subnets are free
(`jailrun.net.subnets`).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from jailrun.errors import NetworkError

BITS = {4: 32, 6: 128}
FAMILIES = {4: AF_INET, 6: AF_INET6}


class Subnet:
    """A subnet: its IP ``version``, its ``first`` address as a number, its ``prefix`` length."""

    __slots__ = ("first", "prefix", "version")

    def __init__(self, version: int, first: int, prefix: int) -> None:
        self.version = version
        self.first = first
        self.prefix = prefix

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (BITS[self.version] - self.prefix)

    @property
    def last(self) -> int:
        """Its last address as a number; with IPv4 its broadcast address."""
        return self.first + self.size - 1

    def contains(self, address: int) -> bool:
        """Tell whether an address, as a number, is in it."""
        return self.first <= address <= self.last

    def overlaps(self, other: Subnet) -> bool:
        """Tell whether the two have an address in common."""
        return (
            self.version == other.version and self.first <= other.last and other.first <= self.last
        )

    def nth(self, number: int) -> str:
        """Return its address of that number, counted from its first, which is 0."""
        if not 0 <= number < self.size:
            raise NetworkError(f"{self} has no address of number {number}")
        return format_address(self.version, self.first + number)

    def is_usable(self, number: int) -> bool:
        """Tell whether a host may have that number: not the subnet's own, not the broadcast."""
        return 0 < number < self.size - (self.version == 4)

    def __str__(self) -> str:
        return f"{format_address(self.version, self.first)}/{self.prefix}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subnet) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse_address(text: str) -> tuple[int, int]:
    """Return the IP version and the number of an address."""
    version = 6 if ":" in text else 4
    try:
        return version, int.from_bytes(inet_pton(FAMILIES[version], text), "big")
    except (OSError, ValueError):
        raise NetworkError(
            f"{text!r} is not an IP address", hint="as 10.87.0.10 or fd00:87::10"
        ) from None


def format_address(version: int, number: int) -> str:
    """Return an address as text, the canonical one of its many (RFC 5952)."""
    return inet_ntop(FAMILIES[version], number.to_bytes(BITS[version] // 8, "big"))


def parse_interface(text: str) -> tuple[int, int, int]:
    """Return IP version, number and prefix length of an address in its subnet, as 10.0.0.7/24."""
    address, slash, length = text.partition("/")
    version, number = parse_address(address)
    good = slash and length.isascii() and length.isdigit() and len(length) <= 3
    if not good or int(length) > BITS[version]:
        raise NetworkError(
            f"{text!r} lacks a prefix length of 0 to {BITS[version]}",
            hint="as 10.87.0.0/16 or fd00:87::/64",
        )
    return version, number, int(length)


def parse_subnet(text: str) -> Subnet:
    """Return a subnet; one whose text has bits of a host is refused."""
    version, number, prefix = parse_interface(text)
    host_bits = BITS[version] - prefix
    first = number >> host_bits << host_bits
    if first != number:
        raise NetworkError(
            f"{text} is an address in a subnet, not a subnet: its last {host_bits} bits are "
            f"{number - first:#x}, not 0",
            hint=f"the subnet is {Subnet(version, first, prefix)}",
        )
    return Subnet(version, first, prefix)


def derive_mac(jail: str, nic: str, salt: str = "") -> str:
    """Return the MAC of a jail's interface: always the same, locally administered, unicast.

    ``salt`` keeps jails of the same name on two hosts apart, where their networks meet.
    """
    number = hash_text(f"{salt}\0{jail}\0{nic}")
    folded = (number ^ number >> 40) & (1 << 40) - 1
    return ":".join(f"{byte:02x}" for byte in (2, *folded.to_bytes(5, "big")))


def hash_text(text: str) -> int:
    """Return a number of 64 bits for a text (FNV-1a, mixed): the same in every process."""
    value = 0xCBF29CE484222325
    for byte in text.encode("utf-8", "surrogateescape"):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    # The last characters of similar names change the low bits most: spread them over all.
    value = (value ^ value >> 32) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 29
