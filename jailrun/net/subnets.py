"""Which subnet a network gets: one that nothing on the host uses.

Pure: what is in use comes in as a list of `Use`, from `jailrun.net.bridges`.  Out of scope:
addresses within a subnet (`jailrun.net.leases`).
"""

from __future__ import annotations

import os

from jailrun.errors import NetworkError
from jailrun.net.addresses import Subnet, parse_subnet
from jailrun.net.definition import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jailrun.net.definition import Definition

# Where subnets are looked for: (first, last, prefix length).  The first line is the usual one; the
# others are for hosts with a route to all of 10.0.0.0/8, as many have that are in a company's VPN.
_FOR_DEFAULT = (
    ("10.87.0.0", "10.127.0.0", 16),
    ("172.24.0.0", "172.31.0.0", 16),
    ("192.168.128.0", "192.168.255.0", 24),
)
_FOR_NAMED = (
    ("10.128.0.0", "10.255.255.0", 24),
    ("172.20.0.0", "172.23.255.0", 24),
    ("192.168.128.0", "192.168.255.0", 24),
)
LONGEST = {4: 30, 6: 126}  # prefix: one address for the gateway and one for a jail


class Use:
    """A subnet in use: which, by what (in words), and on which of the host's links."""

    __slots__ = ("link", "subnet", "what")

    def __init__(self, subnet: Subnet, what: str, link: str = "") -> None:
        self.subnet = subnet
        self.what = what
        self.link = link


def definition_uses(definitions: Iterable[Definition]) -> list[Use]:
    """Return the subnets of networks of ours."""
    return [
        Use(parse_subnet(text), f"the network {found['name']} ({text})")
        for found in definitions
        for text in (found["subnet"], found["subnet6"])
        if text
    ]


def choose_v4(name: str, uses: Sequence[Use]) -> Subnet:
    """Return the first free IPv4 subnet for a network."""
    tried = []
    for first, last, prefix in _FOR_DEFAULT if name == DEFAULT else _FOR_NAMED:
        tried.append(f"{first}/{prefix} to {last}/{prefix}")
        near = [use.subnet for use in uses if use.subnet.overlaps(_span(first, last, prefix))]
        for subnet in _walk(first, last, prefix):
            if not any(subnet.overlaps(other) for other in near):
                return subnet
    raise NetworkError(
        f"cannot find an IPv4 subnet for the network {name}: from {', '.join(tried)} all overlap "
        "a route of this host or another network",
        hint=f"choose one yourself: jailrun net create {name} --subnet 203.0.113.0/24",
    )


def choose_v6(uses: Sequence[Use]) -> Subnet:
    """Return a new IPv6 subnet: a unique local one with a random global id (RFC 4193, 3.2)."""
    while True:
        subnet = parse_subnet(f"fd{_random(1)}:{_random(2)}:{_random(2)}::/64")
        if find_overlap(subnet, uses) is None:
            return subnet


def _random(count: int) -> str:
    return os.urandom(count).hex()


def check_free(name: str, subnet: Subnet, uses: Iterable[Use], own_link: str = "") -> None:
    """Refuse a subnet that is in use; on ``own_link``, to which the network belongs, it may be."""
    found = find_overlap(subnet, uses, own_link)
    if found is not None:
        raise NetworkError(
            f"cannot use {subnet} for the network {name}: it overlaps {found.what}",
            hint="choose another; with the driver bridge a free one is chosen if it is left out",
        )


def find_overlap(subnet: Subnet, uses: Iterable[Use], own_link: str = "") -> Use | None:
    """Return what uses some of a subnet, None where nothing does."""
    for use in uses:
        if subnet.overlaps(use.subnet) and not (own_link and use.link == own_link):
            return use
    return None


def check_size(name: str, subnet: Subnet) -> None:
    """Refuse a subnet without room for a gateway and a jail, or too large to be meant."""
    longest = LONGEST[subnet.version]
    if subnet.prefix > longest:
        raise NetworkError(
            f"cannot use {subnet} for the network {name}: it has no room for a gateway and a jail",
            hint=f"the longest prefix is /{longest}",
        )
    if subnet.prefix < 8:
        raise NetworkError(
            f"cannot use {subnet} for the network {name}: it is a large part of the internet",
            hint="the shortest prefix is /8",
        )
    if not _is_for_hosts(subnet):
        raise NetworkError(
            f"cannot use {subnet} for the network {name}: no host can have such an address for all",
            hint="addresses for networks of one's own: 10.0.0.0/8, 172.16.0.0/12, fd00::/8",
        )


def _is_for_hosts(subnet: Subnet) -> bool:
    """Tell whether its addresses are neither of one's own, nor of a link, nor of groups."""
    if subnet.version == 4:
        first = subnet.first >> 24
        return 0 < first < 224 and first != 127
    first = subnet.first >> 112
    return 0x100 <= first < 0xFE80


def _span(first: str, last: str, prefix: int) -> Subnet:
    """Return the smallest subnet that holds a range."""
    low, high = parse_subnet(f"{first}/{prefix}"), parse_subnet(f"{last}/{prefix}")
    while not low.contains(high.first):
        length = low.prefix - 1
        low = Subnet(4, low.first >> (32 - length) << (32 - length), length)
    return low


def _walk(first: str, last: str, prefix: int) -> Iterator[Subnet]:
    subnet, end = parse_subnet(f"{first}/{prefix}"), parse_subnet(f"{last}/{prefix}")
    while subnet.first <= end.first:
        yield subnet
        subnet = Subnet(4, subnet.first + subnet.size, prefix)
