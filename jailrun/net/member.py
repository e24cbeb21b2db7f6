"""A jail as a member of networks: from what its config asks to links, addresses and names.

Owns: the order of the steps below, which `jailrun.engine` takes, and those from the third on.  Out
of scope: the first two (`jailrun.net.reservation`), what a network is (`jailrun.net.definition`)
and making one (`jailrun.net.networks`), the operations that make links (`jailrun.net.links`).

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

from jailrun.errors import ConflictError, JailError, NetworkError, UnsupportedError
from jailrun.net import (
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
from jailrun.net.definition import BRIDGE_DRIVERS
from jailrun.net.names import gateways_of
from jailrun.net.reservation import find_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.net.definition import Definition
    from jailrun.net.model import Network, NetworkNic
    from jailrun.net.ports import FindJail


# --- 3 -------------------------------------------------------------------------------------------
def establish(network: Network, jail: str, find_jail: FindJail) -> list[Definition]:
    """Make the jail known to the host: ports, firewall, resolver; see step 3.

    ``find_jail`` is asked who has published a port that is taken.  Returns the networks whose
    resolver has just been started, for `finish` to wait for: a jail is made in about that time.
    """
    ports.reserve(network["publish"], jail, find_jail=find_jail)
    if _bridged(network):
        try:
            nft.apply(_format_rules(network))
        except NetworkError as error:
            raise _find_double(error, network, find_jail) from error
    starting = []
    for nic in network["nics"]:
        if nic["driver"] == "bridge":
            found = definition.load(nic["network"])
            with definition.lock(nic["network"]):
                if resolver.begin(found):
                    starting.append(found)
                _add_names(found, nic, network, jail)
    view = find_view(network)
    if view:
        view.begin()
    return starting


def _find_double(error: NetworkError, network: Network, find_jail: FindJail) -> JailError:
    """Return the error for a port that is published, though nobody reserves it any more."""
    if nft.EXISTS in error.message:
        for port in network["publish"]:
            for number in range(port["host_port"], port["host_port"] + port["count"]):
                holder = find_jail(port["protocol"], port["host_address"], number)
                if holder:
                    return ConflictError(
                        f"port {number}/{port['protocol']} is published by jail {holder}, "
                        "whose monitor was killed",
                        hint=f"remove that jail: jailrun rm --force {holder}",
                    )
    return error


def _format_rules(network: Network) -> str:
    view = find_view(network)
    return rules.jail_text(view.allow_questions(network) if view else network)


def _bridged(network: Network) -> bool:
    return any(nic["driver"] in BRIDGE_DRIVERS for nic in network["nics"])


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
    view = find_view(network)
    if view:
        view.ensure_running()
    if network["devices"]:
        devices.hold(jail, pid)
    for nic in network["nics"]:
        if nic["rate_in"] or nic["rate_out"]:
            from jailrun.net.shaping import shape

            shape(nic)


# --- what the jail reads -------------------------------------------------------------------------
def find_resolvers(network: Network) -> list[str]:
    """Return where a jail asks for names: a resolver of ours that knows all its networks."""
    view = find_view(network)
    if view and (address := view.read_address()):
        return [address]
    bridged = (nic for nic in network["nics"] if nic["driver"] == "bridge")
    return next((gateways_of(nic) for nic in bridged), [])


# --- 6 -------------------------------------------------------------------------------------------
def release(network: Network, jail: str) -> None:
    """Undo what was reserved and established, from the record; any number of times; see step 6.

    Raises the first error after everything has been tried.
    """
    first: JailError | None = None
    mine = [nic for nic in network["nics"] if _holds(nic, jail)]
    if any(nic["driver"] in BRIDGE_DRIVERS for nic in mine):
        try:
            nft.remove(rules.jail_removal_text({**network, "nics": mine}))
        except UnsupportedError:
            pass  # without the library nothing was added
        except JailError as error:
            first = error
    ports.drop(jail)  # after what the firewall has of them: whoever gets one adds it anew
    try:
        devices.give_back(jail, network["devices"])
    except JailError as error:
        first = first or error
    view = find_view(network)
    if view:
        try:
            view.leave(jail)
        except JailError as error:
            first = first or error
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
    if not os.path.isdir(definition.run_folder(nic["network"])):
        return  # nothing was taken, or all of it is gone
    try:
        found = definition.load(nic["network"])
    except JailError:  # removed or damaged by hand: the name is enough
        found = definition.make_empty(nic["network"])
    with definition.lock(nic["network"]):
        if nic["driver"] == "bridge":
            resolver.remove_names(found, jail)
        # The record may be from before it was known which.
        known = [key for key in (nic["address"], nic["address6"], nic["mac"]) if key]
        leases.release(nic["network"], jail, known if nic["prefix"] or nic["prefix6"] else None)
        _end_unused(found)


def end_unused(name: str) -> None:
    """End the resolvers of a network in which nobody is any more."""
    if definition.exists(name) and os.path.isdir(definition.run_folder(name)):
        with definition.lock(name):
            _end_unused(definition.load(name))


def _end_unused(found: Definition) -> None:
    if found["driver"] != "bridge" or not resolver.stop_if_unused(found):
        return
    if os.path.isdir(f"{definition.run_folder(found['name'])}/views"):
        from jailrun.net.views import end_all

        end_all(found)  # what nobody was left to end


def has_lost_tables(error: NetworkError) -> bool:
    """Tell whether `establish` failed since the tables are not there any more."""
    return nft.MISSING in error.message


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
    links = networks.reattach(network["nics"], hairpin=bool(network["publish"]))
    done = [f"put the link {link} of jail {jail} back on its bridge" for link in links]
    if _bridged(network):
        nft.remove(rules.jail_removal_text(network))
        nft.apply(_format_rules(network))
    for nic in network["nics"]:
        if nic["driver"] == "bridge":
            found = definition.load(nic["network"])
            with definition.lock(nic["network"]):
                if not resolver.find_process(found):
                    resolver.ensure_running(found)
                    done.append(f"started the resolver of {nic['network']} again")
                _add_names(found, nic, network, jail)
    view = find_view(network)
    if view:
        view.join(jail)
        if not view.ensure_running():
            done.append(f"started the resolver of {', '.join(view.networks)} again")
    return done
