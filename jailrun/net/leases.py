"""Addresses of a network's jails: each has one holder, whatever starts at once.

A lease is the symbolic link ``<run>/networks/NAME/leases/KEY`` whose target is the jail's name;
the key is an IPv4 address, an IPv6 address or a MAC.  symlink(2) takes it and says for whom in one
step: nobody waits for a lock, and no crash leaves a lease without a holder.  The folder is made
with the network and removed with it; rmdir(2), which fails while there is a lease, is what decides
between a removal and a start.  Out of scope: which jails still exist (the caller knows).
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, LOCK_UN, flock

from jailrun.errors import ConflictError, NetworkError, NotFoundError
from jailrun.net.addresses import Subnet, format_address, hash_text, parse_address, parse_subnet
from jailrun.net.definition import make_folder, run_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from jailrun.net.definition import Definition

# How far the search for a free IPv6 address goes: a /64 has no end.
_SEARCHED = 1 << 16


# --- one key -------------------------------------------------------------------------------------
def leases_folder(network: str) -> str:
    """Return the folder of a network's leases."""
    return f"{run_folder(network)}/leases"


def take(network: str, key: str, jail: str) -> None:
    """Take an address or a MAC; raise ConflictError where somebody has it."""
    if _try_take(network, key, jail):
        return
    holder = holder_of(network, key)
    if holder is None:  # given back just now
        take(network, key, jail)
        return
    raise ConflictError(
        f"cannot give {jail} the address {key} of the network {network}: {holder} has it",
        hint=f"choose another; who has which: jailrun net inspect {network}",
    )


def _try_take(network: str, key: str, jail: str) -> bool:
    try:
        os.symlink(jail, f"{leases_folder(network)}/{key}")
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise NotFoundError(
            f"cannot give {jail} the address {key}: the network {network} was just removed",
            hint=f"make it again: jailrun net create {network}",
        ) from None
    except OSError as error:
        raise NetworkError(
            f"cannot note that {jail} has the address {key} of the network {network}: "
            f"{error.strerror}"
        ) from error
    return True


def holder_of(network: str, key: str) -> str | None:
    """Return the jail that has an address or a MAC, None where nobody has."""
    try:
        return os.readlink(f"{leases_folder(network)}/{key}")
    except OSError:
        return None


def holders(network: str) -> dict[str, str]:
    """Return key → jail of all leases of a network."""
    found = {}
    for key in _list_keys(network):
        holder = holder_of(network, key)
        if holder is not None:
            found[key] = holder
    return found


def stale(network: str, existing_names: Container[str]) -> list[tuple[str, str]]:
    """Return the leases, as (key, jail), of jails that do not exist any more.

    A jail's record is made before its leases: ask for the leases first, for the records then.
    """
    return sorted(pair for pair in holders(network).items() if pair[1] not in existing_names)


def release(network: str, jail: str, keys: Iterable[str] | None = None) -> None:
    """Give back what a jail has of a network, or those of the keys that it has; twice is fine."""
    folder = leases_folder(network)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # One release at a time: else a second one could see the old holder and remove the lease
        # of the next.  Who takes an address needs no lock.
        flock(fd, LOCK_EX)
        for key in os.listdir(fd) if keys is None else keys:
            if key and holder_of(network, key) == jail:
                os.unlink(key, dir_fd=fd)
    except OSError as error:
        raise NetworkError(
            f"cannot give back the addresses of {jail} in the network {network}: {error.strerror}"
        ) from error
    finally:
        flock(fd, LOCK_UN)  # a process forked meanwhile has the descriptor, too
        os.close(fd)


def _list_keys(network: str) -> list[str]:
    try:
        return os.listdir(leases_folder(network))
    except FileNotFoundError:
        return []


# --- the folder ----------------------------------------------------------------------------------
def open_book(network: str) -> None:
    """Make it possible to take addresses; the network's folder exists."""
    make_folder(leases_folder(network), 0o700)


def close_book(network: str) -> None:
    """Make it impossible to take addresses; raise ConflictError where some are taken."""
    folder = leases_folder(network)
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise NetworkError(f"cannot remove {folder}: {error.strerror}") from error
        else:
            return
        jails = sorted(set(holders(network).values()))
        if jails:
            break
        if _list_keys(network):
            raise NetworkError(f"there is something in {folder} that is no lease: remove it")
        # The last one was given back meanwhile.
    more = f" and {len(jails) - 10} more" if len(jails) > 10 else ""
    raise ConflictError(
        f"the network {network} is in use by {', '.join(jails[:10])}{more}",
        hint="remove them first: jailrun rm --force NAME; if they are gone: jailrun repair",
    )


# --- the addresses of a NIC ----------------------------------------------------------------------
def take_free(
    definition: Definition, jail: str, nic: str, address: str = "", address6: str = ""
) -> tuple[str, str]:
    """Take an IPv4 and an IPv6 address for a jail's interface, those given or any free ones.

    Empty is what the network has no subnet for.  The search starts at a place that jail and
    interface decide, so that a jail mostly gets the same addresses again; the IPv6 address mostly
    has the same number in its subnet as the IPv4 address.
    """
    name, start = definition["name"], hash_text(f"{jail}\0{nic}")
    address = check_fixed(definition, address, 4) if address else ""
    address6 = check_fixed(definition, address6, 6) if address6 else ""
    taken: list[str] = []
    try:
        if address:
            take(name, address, jail)
        elif definition["subnet"]:
            address = _take_any(definition, 4, jail, start)
        taken.append(address)
        if address6:
            take(name, address6, jail)
        elif definition["subnet6"]:
            wanted = start
            if address:
                wanted = _number(address, parse_subnet(definition["subnet"])) - 1
            address6 = _take_any(definition, 6, jail, wanted)
        taken.append(address6)
    except BaseException:
        release(name, jail, taken)
        raise
    return address, address6


def suggest(definition: Definition, jail: str, nic: str) -> tuple[str, str]:
    """Return the addresses that `take_free` would try first, and take nothing."""
    number = hash_text(f"{jail}\0{nic}")
    found = []
    for subnet in (definition["subnet"], definition["subnet6"]):
        found.append(next(_candidates(parse_subnet(subnet), number)) if subnet else "")
        if found[0]:
            number = _number(found[0], parse_subnet(definition["subnet"])) - 1
    return found[0], found[1]


def check_fixed(definition: Definition, address: str, version: int) -> str:
    """Return an address in its canonical text; refuse one that no jail of the network can have."""
    name = definition["name"]
    found, number = parse_address(address)
    if found != version:
        raise NetworkError(f"{address} is an IPv{found} address, asked for is an IPv{version} one")
    text = format_address(version, number)
    wide = definition["subnet"] if version == 4 else definition["subnet6"]
    if not wide:
        raise NetworkError(
            f"cannot give out {text}: the network {name} has no IPv{version} subnet",
            hint=f"see what it has: jailrun net inspect {name}",
        )
    subnet = parse_subnet(wide)
    if not subnet.contains(number):
        raise NetworkError(
            f"cannot give out {text}: it is not in {subnet}, the subnet of the network {name}"
        )
    if text in _gateways(definition):
        raise NetworkError(f"cannot give out {text}: it is the gateway of the network {name}")
    if text in definition["reserved"]:
        raise NetworkError(f"cannot give out {text}: the host has it, in the network {name}")
    if not subnet.is_usable(number - subnet.first):
        what = "the subnet itself" if number == subnet.first else "the subnet's broadcast address"
        raise NetworkError(f"cannot give out {text}: in {subnet} it is {what}")
    return text


def _take_any(definition: Definition, version: int, jail: str, start: int) -> str:
    name = definition["name"]
    subnet = parse_subnet(definition["subnet"] if version == 4 else definition["subnet6"])
    excluded = {*_gateways(definition), *definition["reserved"]}
    candidates = _candidates(subnet, start)
    first = next(candidates)
    if first not in excluded and _try_take(name, first, jail):
        return first
    # Only now ask which are taken: in a large network the first is nearly always free.
    excluded.update(_list_keys(name))
    for candidate in candidates:
        if candidate not in excluded and _try_take(name, candidate, jail):
            return candidate
    raise NetworkError(
        f"cannot give {jail} an IPv{version} address of the network {name}: "
        f"all of {subnet} are taken",
        hint="remove jails that are not needed, or make a larger network: "
        "jailrun net create NAME --subnet 10.90.0.0/16",
    )


def _candidates(subnet: Subnet, start: int) -> Iterator[str]:
    """Yield the addresses that hosts may have, from a place on and round."""
    usable = subnet.size - (2 if subnet.version == 4 else 1)
    for step in range(min(usable, _SEARCHED) if subnet.version == 6 else usable):
        yield subnet.nth(1 + (start + step) % usable)


def _gateways(definition: Definition) -> tuple[str, str]:
    return definition["gateway"], definition["gateway6"]


def _number(address: str, subnet: Subnet) -> int:
    return parse_address(address)[1] - subnet.first
