"""What a network consists of beside its definition: making it, finding it made, unmaking it.

Owns: the order of the steps, and ``<run>/networks/NAME/ready``, a symbolic link to the number of
the interface that the network was last made on.  It is made last and removed first, so that a
network whose making, or removal, was killed is found incomplete; each step finds out by itself
whether it is done already.  The caller holds the lock of all networks.  Out of scope: what the
steps do (`jailrun.net.bridges`, `forwarding`, `rules`, `leases`, `resolver`), definitions.
"""

from __future__ import annotations

import os
from _socket import if_nametoindex

from jailrun.errors import JailError, NetworkError
from jailrun.net import definition as definitions
from jailrun.net import forwarding, leases
from jailrun.net.definition import BRIDGE_DRIVERS, run_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailrun.net.definition import Definition


# --- made? ---------------------------------------------------------------------------------------
def is_ready(found: Definition) -> bool:
    """Tell whether a network was made completely, on an interface that is there still."""
    anchor = _anchor_index(found)
    return anchor != 0 and read_ready(found["name"]) == str(anchor)


def _anchor(found: Definition) -> str:
    """Return the interface without which the network is nothing."""
    return found["link"] or found["parent"]


def _anchor_index(found: Definition) -> int:
    try:
        return if_nametoindex(_anchor(found))
    except OSError:
        return 0


def _ready_path(name: str) -> str:
    return f"{run_folder(name)}/ready"


def read_ready(name: str) -> str:
    """Return the number of the interface that the network was made on, "" if it was not."""
    try:
        return os.readlink(_ready_path(name))
    except OSError:
        return ""


def set_ready(name: str, anchor: int) -> None:
    """Say that all of the network was made, on that interface."""
    if read_ready(name) == str(anchor):
        return
    forget_ready(name)
    try:
        os.symlink(str(anchor), _ready_path(name))
    except OSError as error:
        raise NetworkError(f"cannot make {_ready_path(name)}: {error.strerror}") from error


def forget_ready(name: str) -> None:
    """Say that the network is not complete, or may soon not be."""
    _unlink(_ready_path(name))


def was_made(found: Definition) -> bool:
    """Tell whether some of a network was made since the host is up, and not unmade."""
    return (
        bool(read_ready(found["name"]))
        or os.path.exists(leases.leases_folder(found["name"]))
        or (found["driver"] == "bridge" and _anchor_index(found) != 0)
    )


# --- make ----------------------------------------------------------------------------------------
def make(found: Definition) -> list[str]:
    """Make what a network consists of, or what of it is missing; return what that was, in words."""
    name = found["name"]
    done: list[str] = []
    definitions.make_folder(run_folder(name), 0o711)
    if found["driver"] == "bridge":
        done += _make_bridge(found)
    anchor = _anchor_index(found)
    if not anchor:
        raise NetworkError(
            f"cannot use the network {name}: its interface {_anchor(found)} does not exist",
            hint=f"bring it back, or remove the network: jailrun net rm {name}",
        )
    if found["driver"] in BRIDGE_DRIVERS:
        done += _make_rules(found)
    leases.open_book(name)
    set_ready(name, anchor)
    return done


def _make_bridge(found: Definition) -> list[str]:
    from jailrun.net import bridges

    others = [other for other in definitions.load_all() if other["name"] != found["name"]]
    there = bridges.read_links().get(found["link"])
    if there is None or not bridges.is_ours(there, found["name"]):
        _check_still_free(found)
    if not found["link"] or (there and not bridges.is_ours(there, found["name"])):
        # Somebody took the name while the host was down, or before we came to it.
        found["link"] = bridges.choose_link(found["name"], [other["link"] for other in others])
        definitions.save(found)

    done = []
    if not found["internal"] and forwarding.switch_on():
        done.append("switched forwarding on")
        # The kernel has switched it on for each interface there is.
        for other in others:
            if other["internal"] and other["driver"] == "bridge" and _anchor_index(other):
                _configure(other)
    return done + bridges.make(found, lambda: _configure(found))


def _configure(found: Definition) -> None:
    forwarding.configure_bridge(
        found["link"], internal=found["internal"], ipv6=bool(found["subnet6"])
    )


def _check_still_free(found: Definition) -> None:
    """Refuse a subnet to which the host has got a route since the network was created."""
    from jailrun.net import bridges
    from jailrun.net.addresses import parse_subnet

    uses = bridges.read_uses()
    for text in (found["subnet"], found["subnet6"]):
        subnet = parse_subnet(text) if text else None
        for use in uses if subnet else ():
            # A wider route is no obstacle: ours is looked at first.
            if (
                subnet
                and subnet.overlaps(use.subnet)
                and use.subnet.prefix >= subnet.prefix
                and use.link != found["link"]
            ):
                name = found["name"]
                raise NetworkError(
                    f"cannot make the bridge of the network {name}: its subnet {subnet} overlaps "
                    f"{use.what}, which is new",
                    hint=f"remove that, or make the network with another subnet: "
                    f"jailrun net rm {name}; jailrun net create {name}",
                )


def _make_rules(found: Definition) -> list[str]:
    from jailrun.net import nft, rules

    if has_rules(found):
        return []
    nft.apply(rules.network_text(found))
    return [f"made the firewall rules of {found['link']}"]


def has_rules(found: Definition) -> bool:
    """Tell whether the firewall knows a network's bridge; the host's own are not in its sets."""
    from jailrun.net import nft

    ours = found["driver"] == "bridge"
    element = f'get element inet jailrun bridges {{ "{found["link"]}" }}'
    try:
        nft.query(element if ours else "list table inet jailrun")
        nft.query("list table bridge jailrun")
    except JailError:
        return False
    return True


# --- unmake -------------------------------------------------------------------------------------
def unmake(found: Definition) -> None:
    """Take away what `make` makes, as far as it is there; the definition stays.

    Where a step fails, those after it are taken all the same, and the first error is raised.
    """
    from jailrun.net import bridges, nft, resolver, rules

    name = found["name"]
    forget_ready(name)
    leases.close_book(name)
    errors = []
    with definitions.lock(name):
        steps: list[Callable[[], object]] = []
        if found["driver"] in BRIDGE_DRIVERS:
            steps.append(lambda: resolver.stop_if_unused(found))
        if found["driver"] in BRIDGE_DRIVERS and found["link"]:
            steps.append(lambda: nft.remove(rules.network_removal_text(found)))
        if found["driver"] == "bridge" and found["link"]:
            steps.append(lambda: bridges.remove(found))
        steps.append(lambda: _remove_shared(name))
        steps.append(lambda: put_forwarding_back(name))
        for step in steps:
            try:
                step()
            except JailError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        remove_run_folder(name)


def remove_run_folder(name: str) -> None:
    """Remove what a network has while the host is up; there are no leases and no resolver."""
    _remove_folder(run_folder(name))


def _remove_shared(without: str) -> None:
    """Remove the tables that all networks have in common, where this was the last one."""
    from jailrun.net import bridges, nft, rules

    if not _made_bridges(without) and not bridges.has_other_instance():
        nft.remove(rules.last_removal_text())


def put_forwarding_back(without: str = "") -> list[str]:
    """Give the host its own sysctls back, where the last network that needs others is gone."""
    if not forwarding.is_changed():
        forwarding.forget()  # what was half written
        return []
    from jailrun.net import bridges

    if any(
        other["driver"] == "bridge" and not other["internal"] for other in _made_bridges(without)
    ):
        return []
    return ["put forwarding back"] if forwarding.put_back(bridges.foreign_bridges()) else []


def _made_bridges(without: str) -> list[Definition]:
    return [
        found
        for found in definitions.load_all()
        if found["name"] != without and found["driver"] in BRIDGE_DRIVERS and was_made(found)
    ]


def _remove_folder(folder: str) -> None:
    """Remove a folder of ours and what is in it."""
    try:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                _remove_folder(entry.path)
            else:
                _unlink(entry.path)
        os.rmdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NetworkError(f"cannot remove {folder}: {error.strerror}") from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
