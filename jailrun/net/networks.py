"""What is done with networks: create, ensure, remove, describe, list, repair.

A network is a definition and, where it has a bridge of ours, kernel objects that can be made again
from it at any time.  The definition is written first and removed last, so that whatever a kill
leaves belongs to a network that is still there, and `ensure` or `remove` goes on from there.  Out
of scope: those objects (`jailrun.net.making`), a network's members (`jailrun.net.member`).
"""

from __future__ import annotations

import time

from jailrun.errors import JailError, NotFoundError
from jailrun.net import definition as definitions
from jailrun.net import leases
from jailrun.net.definition import BRIDGE_DRIVERS, DEFAULT, lock_all
from jailrun.net.making import (
    forget_ready,
    has_rules,
    is_ready,
    make,
    put_forwarding_back,
    read_ready,
    remove_run_folder,
    set_ready,
    unmake,
    was_made,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from jailrun.net.definition import Definition
    from jailrun.net.model import NetworkNic


# --- create --------------------------------------------------------------------------------------
def create(
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
) -> Definition:
    """Make a network, or nothing.

    ``subnet`` and ``ipv6`` are chosen where they are None; "none" leaves them out.  ``gateway`` is
    one address, or one of each family with a comma between.  ``parent`` is the host's interface
    that macvlan and ipvlan are on, or its bridge for host-bridge.  Raises ConflictError where there
    is a network of that name.
    """
    from jailrun.net.choice import Wish, choose

    definitions.check_name(name)
    wish = Wish(
        name,
        subnet=subnet,
        ipv6=ipv6,
        gateway=gateway,
        internal=internal,
        driver=driver,
        parent=parent,
        mtu=mtu,
        isolate=isolate,
    )
    with lock_all():
        definitions.refuse_taken(name)
        return _create(choose(wish))


def _create(new: Definition) -> Definition:
    """Make a chosen network; the caller holds the lock of all."""
    new["created"] = time.time()
    definitions.save(new)
    try:
        make(new)
    except BaseException:
        _undo(new)
        raise
    return new


def _undo(new: Definition) -> None:
    """Take back what could be made of a network; its making has an error to tell already."""
    try:
        unmake(new)
    except JailError:
        # What failed to be made can mostly not be unmade either: nftables is missing.  `repair`
        # removes what is left.
        remove_run_folder(new["name"])
    definitions.remove(new["name"])


# --- ensure --------------------------------------------------------------------------------------
def ensure(name: str, mended: list[str] | None = None) -> Definition:
    """Return a network that is there and works, made (again) where it does not.

    ``mended`` is told of one that was made again while there are jails in it: they need their links
    and rules back.
    Called at every start: where all is there, that is found out with one file, one symbolic link
    and the interface's number.  The network "default" is made at first use.
    """
    found = _load_or_none(name)
    if found is not None and is_ready(found):
        return found
    with lock_all():
        found = _load_or_none(name)
        if found is None:
            from jailrun.net.choice import Wish, choose

            return _create(choose(Wish(name)))
        if not is_ready(found):
            make(found)
            if mended is not None and leases.holders(name):
                mended.append(name)
        return found


def foresee(name: str) -> Definition:
    """Return a network as `ensure` would, and make nothing."""
    found = _load_or_none(name)
    if found is not None:
        return found
    from jailrun.net.choice import Wish, choose

    return choose(Wish(name))


def _load_or_none(name: str) -> Definition | None:
    try:
        return definitions.load(name)
    except NotFoundError:
        if name != DEFAULT:
            raise
        return None


# --- remove --------------------------------------------------------------------------------------
def remove(name: str) -> None:
    """Remove a network; raise ConflictError, naming who, while there are jails in it."""
    with lock_all():
        found = definitions.load(name)
        ready = read_ready(name)
        # First: whoever starts now looks for himself, and waits for the lock.
        forget_ready(name)
        try:
            leases.close_book(name)
        except BaseException:
            if ready:
                set_ready(name, int(ready))
            raise
        unmake(found)
        definitions.remove(name)


# --- look ----------------------------------------------------------------------------------------
def read_state(found: Definition) -> str:
    """Return "up", "down" (to be made by its first jail), or "damaged"."""
    if is_ready(found) and (found["driver"] not in BRIDGE_DRIVERS or has_rules(found)):
        return "up"
    return "damaged" if was_made(found) else "down"


def list_all() -> list[dict[str, Any]]:
    """Return all networks as `describe` has them, without what blocks them."""
    return [_describe(found) for found in definitions.load_all()]


def describe(name: str) -> dict[str, Any]:
    """Return a network's definition, state, members and what of the host's policy blocks it."""
    found = definitions.load(name)
    blocks: list[Any] = []
    if found["driver"] == "bridge":
        from jailrun.net import policy

        blocks = list(policy.find_blocks(found))
    return {**_describe(found), "blocks": blocks}


def _describe(found: Definition) -> dict[str, Any]:
    members: dict[str, list[str]] = {}
    for key, jail in sorted(leases.holders(found["name"]).items()):
        members.setdefault(jail, []).append(key)
    return {**found, "state": read_state(found), "members": members}


# --- repair --------------------------------------------------------------------------------------
def repair(names: Collection[str] | None = None) -> list[str]:
    """Put right what is not as the definitions say, of all networks or some; return what was.

    Networks that were not made since the host is up are left alone.  The links of running jails
    are put back by `reattach`, their rules by whoever knows their records.
    """
    done: list[str] = []
    first_error: JailError | None = None
    with lock_all():
        for name in definitions.list_names() if names is None else names:
            try:
                found = definitions.load(name)
                if was_made(found):
                    done += [f"network {name}: {what}" for what in make(found)]
            except JailError as error:
                first_error = first_error or error
        if names is None:
            definitions.remove_remains()
            done += _remove_strays()
    if first_error is not None:
        raise first_error
    return done


def _remove_strays() -> list[str]:
    """Remove what is left of networks whose definition is gone."""
    from jailrun.net import bridges

    known = definitions.list_names()
    links = {name: link for name, link in bridges.list_ours() if name not in known}
    done = []
    for name in sorted({*links, *definitions.list_run_folders()} - set(known)):
        if leases.holders(name):
            continue  # `jailrun.net.leases.stale` finds these
        stray = definitions.make_empty(name)
        stray["link"] = links.get(name, "")
        unmake(stray)
        done.append(f"network {name}: removed what was left of it")
    return done + put_forwarding_back()


def reattach(nics: Iterable[NetworkNic], *, hairpin: bool = False) -> list[str]:
    """Put the links of running jails back on the bridges of their networks; return which.

    ``hairpin``: the jail has published ports, and may call them itself.
    """
    from jailrun.net import bridges

    return bridges.reattach(nics, hairpin=hairpin)
