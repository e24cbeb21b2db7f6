"""From what a jail's config asks of networks to what it has: the first two steps.

Owns: `foresee`, `reserve` and `preview`, which is `reserve` for --explain; what does not go
together, where only the networks themselves tell.  Out of scope: the steps after them, and the
release (`jailrun.net.member`, which has them all in order).
"""

from __future__ import annotations

import os

from jailrun.errors import NetworkError, NotFoundError
from jailrun.kernel.files import read_file
from jailrun.net import addresses, leases, networks, rules
from jailrun.net.networks import ensure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.net.definition import Definition
    from jailrun.net.model import Network, NetworkNic
    from jailrun.net.views import View
    from jailrun.spec.extensions import Extensions, Nic

MARK = "0" * 10  # in the place of one that is drawn
ATTEMPTS = 20  # to join a network that others remove


def foresee(extensions: Extensions, jail: str, hostname: str) -> Network:
    """Return what a jail will have; see step 1."""
    return {
        "nics": [_foresee_nic(nic) for nic in extensions.get("networks", [])],
        "publish": extensions.get("publish", []),
        "firewall": extensions.get("firewall", []),
        "shared": extensions.get("shared_addresses", []),
        "devices": extensions.get("devices_in", []),
        "names": [jail, hostname or jail],
    }


def _foresee_nic(nic: Nic) -> NetworkNic:
    mark = os.urandom(5).hex()
    rate_out = nic.get("rate_out", 0)
    return {
        "network": nic["network"],
        "driver": "",
        "bridge": "",
        "parent": "",
        "link": f"jr{mark}",
        "shaper": f"ji{mark}" if rate_out else "",
        "name": nic["name"],
        "address": nic.get("address", ""),
        "prefix": 0,
        "gateway": "",
        "address6": nic.get("address6", ""),
        "prefix6": 0,
        "gateway6": "",
        "mac": nic.get("mac", ""),
        "mtu": 0,
        "rate_in": nic.get("rate_in", 0),
        "rate_out": rate_out,
        "internal": False,
        "isolate": False,
    }


# --- 2 -------------------------------------------------------------------------------------------
def reserve(network: Network, jail: str) -> bool:
    """Take the addresses of a jail and fill them in; see step 2.

    Returns whether a network had to be made again whose other jails have lost their links.
    Raises NotFoundError for a network that is not there, ConflictError for an address that is
    taken, NetworkError for one that is not in its network.
    """
    mended: list[str] = []
    for nic in network["nics"]:
        for attempt in range(ATTEMPTS):
            found = ensure(nic["network"], mended)
            _describe(nic, found, jail)
            try:
                _take(nic, found, jail)
            except NotFoundError:
                # Removed since we looked; the default network is made once more.
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                break
    _check(network)
    view = find_view(network)
    if view:
        view.join(jail)
    if network["shared"]:
        from jailrun.net.shared import check_addresses

        check_addresses(network["shared"])
    return bool(mended)


def _take(nic: NetworkNic, found: Definition, jail: str) -> None:
    nic["address"], nic["address6"] = leases.take_free(
        found, jail, nic["name"], nic["address"], nic["address6"]
    )
    leases.take(nic["network"], nic["mac"], jail)


def preview(network: Network, jail: str) -> list[str]:
    """Fill in what `reserve` would, and take nothing; return in words what else would be done."""
    lines = []
    for nic in network["nics"]:
        _describe(nic, networks.foresee(nic["network"]), jail)
        wanted = leases.suggest(networks.foresee(nic["network"]), jail, nic["name"])
        nic["address"], nic["address6"] = nic["address"] or wanted[0], nic["address6"] or wanted[1]
        taken = " ".join(address for address in (nic["address"], nic["address6"]) if address)
        nic["link"] = f"jr{MARK}"  # a start would draw another
        nic["shaper"] = nic["shaper"] and f"ji{MARK}"
        lines.append(f"lease({taken})  # take addresses of the network {nic['network']}")
    _check(network)
    lines += [
        f"bind({port['protocol']}, {port['host_address'] or '*'}:{port['host_port']}, "
        f"{port['count']})  # reserve the published port on the host"
        for port in network["publish"]
    ]
    lines += [f"nft {line}" for line in rules.jail_text(network).splitlines() if line]
    return lines


def _describe(nic: NetworkNic, found: Definition, jail: str) -> None:
    nic["driver"] = found["driver"]
    nic["bridge"] = found["link"]
    nic["parent"] = found["parent"]
    nic["mtu"] = found["mtu"]
    nic["internal"], nic["isolate"] = found["internal"], found["isolate"]
    nic["gateway"], nic["gateway6"] = found["gateway"], found["gateway6"]
    nic["prefix"], nic["prefix6"] = _prefix(found["subnet"]), _prefix(found["subnet6"])
    # Where other hosts are near, one of them may have a jail of the same name.
    salt = "" if found["driver"] == "bridge" else _read_machine_id()
    nic["mac"] = nic["mac"] or addresses.derive_mac(jail, nic["name"], salt)


def _read_machine_id() -> str:
    """Return what tells this host from others, machine-id(5); its name where it has none."""
    try:
        return read_file("/etc/machine-id").decode().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename


def _prefix(subnet: str) -> int:
    return int(subnet.partition("/")[2] or 0)


def _check(network: Network) -> None:
    """Refuse what a network of that driver cannot do."""
    bridged = [nic for nic in network["nics"] if nic["driver"] == "bridge"]
    gateways = [nic for nic in network["nics"] if nic["gateway"] or nic["gateway6"]]
    ways_out = [nic for nic in gateways if not nic["internal"]]
    if network["publish"] and not (ways_out and ways_out[0] in bridged):
        # Who calls from outside is answered on the default route.
        raise NetworkError(
            "published ports need a network of the driver bridge that is not internal, before all "
            "others with a gateway",
            hint="put --net default first; in the others the jail is reached at its own address",
        )
    if network["firewall"] and (len(bridged) < len(network["nics"]) or network["devices"]):
        raise NetworkError(
            "rules for traffic can be kept in networks of the driver bridge alone",
            hint="leave out the other networks, or the rules",
        )
    for nic in network["nics"]:
        if nic["rate_in"] or nic["rate_out"]:
            from jailrun.net.shaping import check_rates

            check_rates(nic)


def find_view(network: Network) -> View | None:
    """Return what tells a jail the names of several networks; None where that of one will do."""
    if len(network["nics"]) < 2 and not network["devices"]:
        return None
    from jailrun.net.views import find

    return find(network)
