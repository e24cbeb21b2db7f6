"""Limiting the rate of a jail's interface, from the host's side, where the jail cannot undo it.

Owns: `shape` and `unshape`.  What goes to the jail waits in a token bucket (tc-tbf(8)) at the
host's end of the pair.  What comes from it is redirected, as it enters the host, to a device of its
own (ifb) with the same bucket.  Only for an interface that has a rate: importing pyroute2 costs
more than a start.  Out of scope: reading what a user writes for a rate (`jailrun.spec`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from jailrun.errors import NetworkError, UnsupportedError
from jailrun.net.bridges import outside_loop

if TYPE_CHECKING:
    from typing import Any

    from jailrun.net.model import NetworkNic

INGRESS = 0xFFFF0000  # linux/pkt_sched.h: TC_H_INGRESS, TC_H_MAKE(0xFFFF, 0)
ETH_P_ALL = 0x0003
MAX_RATE = 2**32 - 1  # bytes/s, struct tc_ratespec
MAX_FILL_SECONDS = 256  # of a bucket: struct tc_tbf_qopt counts them in 32 bits of 64 ns
ETHERNET_MTU = 1500
HEADER_BYTES = 22  # Ethernet, two VLAN tags: what a frame has beyond the MTU
BURST_FRAMES = 2  # a bucket must hold a frame; with one alone the rate is not reached
QUEUE_FRAMES = 10  # what TCP needs to go on at a low rate


def check_rates(nic: NetworkNic) -> None:
    """Raise where the rates of an interface cannot be limited."""
    if not nic["rate_in"] and not nic["rate_out"]:
        return
    if nic["driver"] not in ("bridge", "host-bridge"):
        raise UnsupportedError(
            f"cannot limit the rate of {nic['name']} in the network {nic['network']}: an interface "
            f"of the driver {nic['driver']} has no end on the host where that could be done",
            hint="use a network of the driver bridge or host-bridge, or leave rate= out",
        )
    for rate in (nic["rate_in"], nic["rate_out"]):
        if rate > MAX_RATE:
            raise UnsupportedError(
                f"cannot limit {nic['name']} to so high a rate: the kernel's token bucket counts "
                f"up to {MAX_RATE * 8 // 10**9}gbit",
                hint="leave rate= out",
            )
        burst = plan_bucket(rate, nic["mtu"] or ETHERNET_MTU)["burst"]
        if rate and burst > MAX_FILL_SECONDS * rate:
            lowest = -(-burst * 8 // MAX_FILL_SECONDS)
            raise UnsupportedError(
                f"cannot limit {nic['name']} to so low a rate: a frame would take minutes",
                hint=f"ask for {lowest}bit or more",
            )


@outside_loop
def shape(nic: NetworkNic) -> None:
    """Limit the rates of an interface whose pair exists; nothing where it has none."""
    check_rates(nic)
    if not nic["rate_in"] and not nic["rate_out"]:
        return
    mtu = nic["mtu"] or ETHERNET_MTU
    try:
        with IPRoute() as route:
            index = _find(route, nic["link"])
            if nic["rate_in"]:
                route.tc("add", "tbf", index=index, **plan_bucket(nic["rate_in"], mtu))
            if nic["rate_out"]:
                _shape_out(route, index, nic, plan_bucket(nic["rate_out"], mtu))
    except NetlinkError as error:
        raise NetworkError(
            f"cannot limit the rate of {nic['name']} in the network {nic['network']}: "
            f"{error.args[1]}",
            hint="it needs the kernel's sch_tbf, sch_ingress, cls_u32, act_mirred and ifb",
        ) from error


@outside_loop
def unshape(nic: NetworkNic) -> None:
    """Remove what `shape` has made and what does not vanish with the pair; any number of times."""
    if not nic["shaper"]:
        return
    try:
        with IPRoute() as route:
            for index in route.link_lookup(ifname=nic["shaper"]):
                route.link("del", index=index)
    except NetlinkError as error:
        raise NetworkError(f"cannot remove {nic['shaper']}: {error.args[1]}") from error


def plan_bucket(rate: int, mtu: int) -> dict[str, int]:
    """Return what a token bucket for ``rate`` bytes/s is made with.

    It holds 10 ms of the rate, so that frames joined for speed (GSO) pass whole where they are
    small against that, and at least two frames; behind it 50 ms wait.
    """
    frame = mtu + HEADER_BYTES
    burst = max(rate // 100, BURST_FRAMES * frame)
    return {"rate": rate, "burst": burst, "limit": burst + max(rate // 20, QUEUE_FRAMES * frame)}


def _shape_out(route: Any, index: int, nic: NetworkNic, bucket: dict[str, int]) -> None:
    """Redirect what enters the host by a link to a device that limits it, and back."""
    route.link("add", ifname=nic["shaper"], kind="ifb", state="up")
    shaper = _find(route, nic["shaper"])
    route.tc("add", "tbf", index=shaper, **bucket)
    route.tc("add", "ingress", index=index, handle=INGRESS)
    redirect = {
        "kind": "mirred",
        "direction": "egress",
        "action": "redirect",
        "ifindex": shaper,
    }
    route.tc(
        "add-filter",
        "u32",
        index=index,
        parent=INGRESS,
        prio=1,
        protocol=ETH_P_ALL,
        target=0,
        keys=["0x0/0x0+0"],
        action=redirect,
    )


def _find(route: Any, name: str) -> int:
    """Return the index of a link."""
    indexes: list[int] = list(route.link_lookup(ifname=name))
    if not indexes:
        raise NetworkError(f"cannot limit the rate of {name}: it is gone")
    return indexes[0]
