"""A jail as a member of networks: from what its config asks to links, addresses and names.

Owns: the steps below, in the order in which `jailrun.engine` takes them.  Out of scope: what a
network is (`jailrun.net.definition`) and making one (`jailrun.net.networks`), the operations that
make the links (`jailrun.net.links`).

1. `foresee`    what there will be, the links' names included, for the record; nothing is made
2. `reserve`    takes the addresses; a network that is not there yet is made
3. `establish`  binds published ports, adds to the firewall, tells the resolver the jail's names
4. (the program makes the links)
5. `finish`     limits the rates of links that exist, holds on to interfaces moved in
6. `release`    undoes 2, 3 and 5 from the record; links vanish with their network namespace

What the firewall and the resolver know is keyed by the lease: who does not hold it (any more) has
nothing to take away, so that `release` may be called twice.
"""

from __future__ import annotations

import os

from jailrun.errors import JailError, NetworkError, NotFoundError
from jailrun.kernel.files import read_file
from jailrun.net import (
    addresses,
    definition,
    devices,
    leases,
    names,
    networks,
    nft,
    ports,
    resolver,
    rules,
)
from jailrun.net.networks import ensure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.net.definition import Definition
    from jailrun.net.model import Network, NetworkNic
    from jailrun.net.ports import FindJail
    from jailrun.spec.extensions import Extensions, Names, Nic

BRIDGES = ("bridge", "host-bridge")
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
def reserve(network: Network, jail: str) -> None:
    """Take the addresses of a jail and fill them in; see step 2.

    Raises NotFoundError for a network that is not there, ConflictError for an address that is
    taken, NetworkError for one that is not in its network.
    """
    for nic in network["nics"]:
        for attempt in range(ATTEMPTS):
            found = ensure(nic["network"])
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
    if network["shared"]:
        from jailrun.net.shared import check_addresses

        check_addresses(network["shared"])


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
            "published ports need a network of the driver bridge, before all others with a gateway",
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


# --- 3 -------------------------------------------------------------------------------------------
def establish(network: Network, jail: str, find_jail: FindJail) -> list[Definition]:
    """Make the jail known to the host: ports, firewall, resolver; see step 3.

    ``find_jail`` is asked who has published a port that is taken.  Returns the networks whose
    resolver has just been started, for `finish` to wait for: a jail is made in about that time.
    """
    ports.reserve(network["publish"], jail, find_jail=find_jail)
    if _bridged(network):
        nft.apply(rules.jail_text(network))
    starting = []
    for nic in network["nics"]:
        if nic["driver"] == "bridge":
            found = definition.load(nic["network"])
            with definition.lock(nic["network"]):
                if resolver.begin(found):
                    starting.append(found)
                _add_names(found, nic, network, jail)
    return starting


def _bridged(network: Network) -> bool:
    return any(nic["driver"] in BRIDGES for nic in network["nics"])


def _add_names(found: Definition, nic: NetworkNic, network: Network, jail: str) -> None:
    known = names.own_names(network["names"][1], network["names"][:1])
    resolver.add_names(found, jail, known, [nic["address"], nic["address6"]])


# --- 5 -------------------------------------------------------------------------------------------
def finish(network: Network, jail: str, pid: int, starting: list[Definition]) -> None:
    """Do what needs the links, before the payload runs; see step 5.

    ``starting`` is what `establish` has returned.
    """
    for found in starting:
        with definition.lock(found["name"]):
            resolver.ensure_running(found)
    if network["devices"]:
        devices.hold(jail, pid)
    for nic in network["nics"]:
        if nic["rate_in"] or nic["rate_out"]:
            from jailrun.net.shaping import shape

            shape(nic)


# --- what the jail reads -------------------------------------------------------------------------
def files(
    network: Network | None, asked: Names, place: str, hostname: str, name: str
) -> dict[str, str]:
    """Return the texts of /etc/hosts, /etc/resolv.conf and /etc/hostname, by file name.

    ``place`` is where a jail is that is in none of our networks: see `jailrun.net.names`.
    """
    nics = network["nics"] if network else []
    found: list[str] = []
    gateways: list[str] = []
    for nic in nics:
        found += [address for address in (nic["address"], nic["address6"]) if address]
    if nics:
        place = "resolver" if nics[0]["driver"] == "bridge" else "direct"
        gateways = [each for each in (nics[0]["gateway"], nics[0]["gateway6"]) if each]
    elif network and network["shared"]:
        place, found = "host", network["shared"]
    elif network and network["devices"]:
        place = "direct"
    host = names.read_host_resolv(place)
    return {
        "hosts": names.format_hosts(hostname, [name], found, asked.get("hosts", []), gateways),
        "resolv.conf": names.format_resolv_conf(place, host, gateways, asked),
        "hostname": names.format_hostname(hostname),
    }


# --- 6 -------------------------------------------------------------------------------------------
def release(network: Network, jail: str) -> None:
    """Undo what was reserved and established, from the record; any number of times; see step 6.

    Raises the first error after everything has been tried.
    """
    ports.drop(jail)
    devices.give_back(jail, network["devices"])
    first: JailError | None = None
    mine = [nic for nic in network["nics"] if _holds(nic, jail)]
    if any(nic["driver"] in BRIDGES for nic in mine):
        try:
            nft.remove(rules.jail_removal_text({**network, "nics": mine}))
        except JailError as error:
            first = error
    for nic in network["nics"]:
        try:
            _leave(nic, jail)
        except JailError as error:
            first = first or error
    if first:
        raise first


def _holds(nic: NetworkNic, jail: str) -> bool:
    keys = (nic["address"], nic["address6"])
    return any(key and leases.holder_of(nic["network"], key) == jail for key in keys)


def _leave(nic: NetworkNic, jail: str) -> None:
    if nic["shaper"]:
        from jailrun.net.shaping import unshape

        unshape(nic)
    try:
        found = definition.load(nic["network"])
    except NotFoundError:
        return  # removed by hand, with all that was in it
    with definition.lock(nic["network"]):
        if nic["driver"] == "bridge":
            resolver.remove_names(found, jail)
        # The record may be from before it was known which.
        known = [key for key in (nic["address"], nic["address6"], nic["mac"]) if key]
        leases.release(nic["network"], jail, known if nic["prefix"] or nic["prefix6"] else None)
        if found["driver"] == "bridge":
            resolver.stop_if_unused(found)


def has_lost_tables(error: NetworkError) -> bool:
    """Tell whether `establish` failed since the tables are not there any more."""
    return nft.is_gone(error)


# --- for who waits for a jail, and for repairs ---------------------------------------------------
def held(jail: str) -> list[int]:
    """Return the descriptors by which this process holds a jail's part of the host's network.

    The first is that of its network namespace, or -1; see `adopt`.
    """
    return [devices.held(jail), *ports.held(jail)]


def adopt(jail: str, descriptors: list[int]) -> None:
    """Take over from another process what `held` has returned there."""
    devices.adopt(jail, descriptors[0])
    ports.adopt(jail, descriptors[1:])


def rejoin(network: Network, jail: str) -> list[str]:
    """Give a jail that runs back what its networks have lost; return what, in words."""
    done = networks.reattach(network["nics"], hairpin=bool(network["publish"]))
    if _bridged(network):
        nft.remove(rules.jail_removal_text(network))
        nft.apply(rules.jail_text(network))
    for nic in network["nics"]:
        if nic["driver"] == "bridge":
            found = definition.load(nic["network"])
            with definition.lock(nic["network"]):
                if not resolver.find_process(found):
                    resolver.ensure_running(found)
                    done.append(f"resolver of {nic['network']}")
                _add_names(found, nic, network, jail)
    return done
