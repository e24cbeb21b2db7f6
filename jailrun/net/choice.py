"""From what was asked of a new network to its definition.

Owns: which options go together, and what is chosen where nothing was said.  Reads the host's
links, routes and addresses; makes nothing, but, for a moment, a link on the parent, to see whether
that can be.  Out of scope: making the network (`jailrun.net.making`).
"""

from __future__ import annotations

from jailrun.errors import NetworkError, UnsupportedError
from jailrun.net import subnets
from jailrun.net.addresses import Subnet, format_address, parse_address, parse_subnet
from jailrun.net.definition import DRIVERS, load_all
from jailrun.net.forwarding import has_ipv6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.net.definition import Definition

NONE = "none"
MIN_MTU, MIN_MTU6, MAX_MTU = 68, 1280, 65535  # RFC 791, RFC 8200, linux/if_ether.h


class Wish:
    """What was asked of a new network; see `jailrun.net.networks.create`."""

    __slots__ = (
        "driver", "gateway", "internal", "ipv6", "isolate", "mtu", "name", "parent", "subnet",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        subnet: str | None = None,
        ipv6: str | None = None,
        gateway: str | None = None,
        internal: bool = False,
        driver: str = "bridge",
        parent: str | None = None,
        mtu: int | None = None,
        isolate: bool = False,
    ) -> None:
        self.name = name
        self.subnet = subnet
        self.ipv6 = ipv6
        self.gateway = gateway
        self.internal = internal
        self.driver = driver
        self.parent = parent or ""
        self.mtu = mtu or 0
        self.isolate = isolate

    def check(self) -> None:
        """Refuse what does not go together."""
        if self.driver not in DRIVERS:
            raise self.refuse(
                f"there is no driver {self.driver!r}", f"drivers are {', '.join(DRIVERS)}"
            )
        on_parent = self.driver in ("macvlan", "ipvlan")
        needs = (
            (on_parent, self.parent, f"the driver {self.driver} needs --parent", "--parent eth0"),
            (
                self.driver == "host-bridge",
                self.parent,
                "the driver host-bridge needs --parent, a bridge of the host",
                "--parent br0",
            ),
            (
                self.driver != "bridge",
                _is_given(self.subnet) or _is_given(self.ipv6),
                f"the driver {self.driver} needs --subnet, the one of the network outside",
                "--subnet 192.0.2.0/24",
            ),
        )
        for needed, value, why, hint in needs:
            if needed and not value:
                raise self.refuse(
                    why, f"jailrun net create {self.name} --driver {self.driver} … {hint}"
                )
        excess = (
            (
                self.parent and self.driver == "bridge",
                "--parent is for macvlan, ipvlan and host-bridge",
            ),
            (
                self.internal and self.driver != "bridge",
                f"--internal cannot be kept with the driver {self.driver}, whose network is "
                "outside of our control",
            ),
            (
                self.isolate and on_parent,
                f"--isolate cannot be kept with the driver {self.driver}",
            ),
        )
        for wrong, why in excess:
            if wrong:
                raise self.refuse(why)
        if self.subnet == NONE and self.ipv6 == NONE:
            raise self.refuse("it has no addresses", "leave out --subnet none or --ipv6 none")
        if self.mtu and not MIN_MTU <= self.mtu <= MAX_MTU:
            raise self.refuse(f"the MTU {self.mtu} is not one from {MIN_MTU} to {MAX_MTU}")

    def refuse(self, why: str, hint: str | None = None) -> NetworkError:
        """Return the error that says why the network cannot be made."""
        return NetworkError(f"cannot make the network {self.name}: {why}", hint=hint)


def _is_given(subnet: str | None) -> bool:
    return subnet not in (None, NONE)


def choose(wish: Wish) -> Definition:
    """Return the definition of a new network; the caller holds the lock of all networks."""
    from jailrun.net import bridges

    wish.check()
    others = load_all()
    uses = [*subnets.definition_uses(others), *bridges.read_uses()]
    new: Definition = {
        "name": wish.name,
        "driver": wish.driver,
        "link": wish.parent if wish.driver == "host-bridge" else "",
        "parent": wish.parent if wish.driver in ("macvlan", "ipvlan") else "",
        "subnet": "",
        "gateway": "",
        "subnet6": "",
        "gateway6": "",
        "reserved": [],
        "mtu": wish.mtu,
        "internal": wish.internal,
        "isolate": wish.isolate,
        "created": 0.0,
    }
    if wish.driver == "bridge":
        new["link"] = bridges.choose_link(wish.name, [other["link"] for other in others])
    elif wish.driver == "host-bridge":
        bridges.check_host_bridge(wish.name, wish.parent)
    else:
        bridges.check_parent(wish.name, wish.driver, wish.parent, wish.mtu)
    chosen = {4: _choose_v4(wish, uses), 6: _choose_v6(wish, uses)}
    gateways = _read_gateways(wish, chosen)
    new["subnet"], new["subnet6"] = _text(chosen[4]), _text(chosen[6])
    new["gateway"], new["gateway6"] = gateways[4], gateways[6]
    if wish.driver != "bridge":
        there = bridges.read_addresses(wish.parent)
        new["reserved"] = [
            one for one in there if _is_in(one, chosen) and one not in gateways.values()
        ]
    return new


def _choose_v4(wish: Wish, uses: list[subnets.Use]) -> Subnet | None:
    if wish.subnet == NONE or (wish.subnet is None and wish.driver != "bridge"):
        return None
    if wish.subnet is None:
        return subnets.choose_v4(wish.name, uses)
    return _check_given(wish, wish.subnet, 4, uses)


def _choose_v6(wish: Wish, uses: list[subnets.Use]) -> Subnet | None:
    if wish.ipv6 == NONE or (wish.ipv6 is None and wish.driver != "bridge"):
        return None
    if wish.ipv6 is None:
        too_small = 0 < wish.mtu < MIN_MTU6
        return None if too_small or not has_ipv6() else subnets.choose_v6(uses)
    if not has_ipv6():
        raise UnsupportedError(
            f"cannot make the network {wish.name}: this kernel has no IPv6",
            hint="leave it out: --ipv6 none",
        )
    if 0 < wish.mtu < MIN_MTU6:
        raise wish.refuse(
            f"IPv6 needs an MTU of {MIN_MTU6}, not {wish.mtu}", "leave IPv6 out: --ipv6 none"
        )
    return _check_given(wish, wish.ipv6, 6, uses)


def _check_given(wish: Wish, text: str, version: int, uses: list[subnets.Use]) -> Subnet:
    option = "--subnet" if version == 4 else "--ipv6"
    subnet = parse_subnet(text)
    if subnet.version != version:
        raise wish.refuse(
            f"{option} is an IPv{version} subnet, not {text}",
            "--subnet is the IPv4 subnet, --ipv6 the IPv6 subnet",
        )
    subnets.check_size(wish.name, subnet)
    if wish.driver != "bridge":  # the host routes nothing of it: only networks of ours can clash
        uses = subnets.definition_uses(load_all())
    subnets.check_free(wish.name, subnet, uses, wish.parent)
    return subnet


def _read_gateways(wish: Wish, chosen: dict[int, Subnet | None]) -> dict[int, str]:
    """Return the gateway of each family; our bridges have one in any case, their own address."""
    found = {4: "", 6: ""}
    for text in (wish.gateway or "").split(","):
        if not text:
            continue
        version, number = parse_address(text)
        subnet = chosen[version]
        if subnet is None:
            raise wish.refuse(f"the gateway {text} is of IPv{version}, for which it has no subnet")
        if not subnet.contains(number) or not subnet.is_usable(number - subnet.first):
            raise wish.refuse(f"the gateway {text} is not the address of a host in {subnet}")
        if found[version]:
            raise wish.refuse(f"it has two gateways, {found[version]} and {text}")
        found[version] = format_address(version, number)
    if wish.driver == "bridge":
        for version, subnet in chosen.items():
            found[version] = found[version] or (subnet.nth(1) if subnet else "")
    return found


def _is_in(address: str, chosen: dict[int, Subnet | None]) -> bool:
    version, number = parse_address(address)
    subnet = chosen[version]
    return subnet is not None and subnet.contains(number)


def _text(subnet: Subnet | None) -> str:
    return str(subnet) if subnet else ""
