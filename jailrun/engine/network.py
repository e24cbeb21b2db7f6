"""The engine's side of networks: when a jail joins them, and what of it goes where.

Owns: the record's part, the texts of the files in /etc, finding who has published a port.  A jail
without a network loads nothing of `jailrun.net` but this asks for it.  Out of scope: how a network
is joined (`jailrun.net.member`).
"""

from __future__ import annotations

from jailrun.engine.identity import is_alive
from jailrun.engine.record import Lock, Record, list_names, load
from jailrun.errors import ConflictError, JailError, NetworkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.program import Program, Slot
    from jailrun.namespaces import Namespaces
    from jailrun.net.definition import Definition
    from jailrun.spec.model import Config

KEYS = ("networks", "devices_in", "shared_addresses")
FILES = ("hosts", "resolv.conf", "hostname")


def fill_record(record: Record, config: Config) -> None:
    """Note what the jail will have of networks, before any of it is made."""
    extensions = config.get("jailrun", {})
    if any(extensions.get(key) for key in KEYS):
        from jailrun.net import reservation

        record.network = reservation.foresee(extensions, record.name, config.get("hostname", ""))


def join(record: Record, config: Config) -> list[Definition]:
    """Take addresses, write them down, and make the jail known to the host.

    Returns what `finish_links` has to wait for.
    """
    if record.network is None:
        return []
    from jailrun.net import member, reservation

    check_rights(record, config)
    others_lost = reservation.reserve(record.network, record.name)
    record.write()
    if others_lost:
        rejoin_all()

    def find_jail(protocol: str, address: str, port: int) -> str:
        return find_publisher(protocol, address, port, but=record.name)

    try:
        return member.establish(record.network, record.name, find_jail)
    except NetworkError as error:
        if not member.has_lost_tables(error):
            raise
        rejoin_all()  # somebody has flushed the tables: all others have lost theirs as well
        return member.establish(record.network, record.name, find_jail)


def check_rights(record: Record, config: Config) -> None:
    """Refuse a process that could undo the lock of a jail in the host's network."""
    if record.network is not None and record.network["shared"]:
        from jailrun.net import shared

        shared.check_rights(config)


def preview(record: Record) -> list[str]:
    """Return what `join` would do, in words, and fill in the record what it would find."""
    if record.network is None:
        return []
    from jailrun.net import reservation

    lines = reservation.preview(record.network, record.name)
    return ["# the caller, in the jail's networks", *lines] if lines else []


def plan_links(program: Program, record: Record) -> Slot | None:
    """Add making the links; return what `plan_links_inside` needs."""
    if record.network is None:
        return None
    from jailrun.net.links import plan_nics

    return plan_nics(program, record.network)


def plan_links_inside(
    program: Program, record: Record, namespaces: Namespaces, caller: Slot | None
) -> None:
    """Add setting up the interfaces of a network namespace of the jail's own."""
    if not namespaces.has_own("network"):
        return
    from jailrun.net.links import plan_loopback

    plan_loopback(program)
    if record.network is not None:
        from jailrun.net.links import plan_nics_inside

        plan_nics_inside(program, record.network, caller)


def plan_lock(program: Program, record: Record, cgroup: Slot | None) -> None:
    """Add locking a jail in the host's network to its addresses."""
    if record.network is None or not record.network["shared"]:
        return
    from jailrun.cgroups.hierarchy import UNIFIED
    from jailrun.net.shared import plan_shared, read_says_why

    plan_shared(
        program,
        record.network["shared"],
        cgroup,
        record.cgroups.get(UNIFIED, ""),
        says_why=read_says_why(),
    )


def finish_links(record: Record, starting: list[Definition]) -> None:
    """Do what needs the links, before the payload runs; ``record.pid`` is in their namespace."""
    if record.network is not None:
        from jailrun.net import member

        member.finish(record.network, record.name, record.pid, starting)


def etc_files(config: Config, record: Record, namespaces: Namespaces) -> dict[str, str]:
    """Return the texts of the files in /etc that the jail gets, by name.

    What the user mounts there is left alone.
    """
    asked = config.get("jailrun", {}).get("names")
    if asked is None or not namespaces.has_own("mount"):
        return {}
    mounted = {mount["destination"].rstrip("/") for mount in config.get("mounts", [])}
    wanted = [name for name in FILES if not {"/etc", f"/etc/{name}"} & mounted]
    if not wanted:
        return {}
    from jailrun.net.names import format_files

    servers: list[str] = []
    if record.network is not None:
        from jailrun.net.member import find_resolvers

        servers = find_resolvers(record.network)
    place = "host"
    if namespaces.has_own("network"):
        place = "none"
    elif "network" in namespaces.joined:
        place = "direct"
    names = (config.get("hostname") or record.name, record.name)
    texts = format_files(record.network, asked, place, names, servers)
    return {name: texts[name] for name in wanted}


def rejoin_all() -> list[str]:
    """Give networks and the jails that run what they have lost; return what, in words."""
    from jailrun.net import member, networks

    done = networks.repair()
    for name in list_names():
        try:
            with Lock(name, wait=False) as record:
                if record.network is not None and is_alive(record.pid, record.start_time):
                    done += member.rejoin(record.network, name)
        except ConflictError:
            continue  # whoever starts or ends it does that, too
        except JailError as error:
            done.append(f"could not repair the network of jail {name}: {error}")
    return done


def hold_devices(record: Record) -> None:
    """Hold on to the interfaces of a jail that is about to be killed, for its release."""
    if record.network is not None and record.network["devices"]:
        from jailrun.net import devices

        if devices.held(record.name) < 0 and is_alive(record.pid, record.start_time):
            devices.hold(record.name, record.pid)


def find_publisher(protocol: str, address: str, port: int, *, but: str) -> str:
    """Return the name of the jail, ``but`` one, that has published a port, or nothing."""
    from jailrun.net.ports import is_published

    for name in list_names():
        if name == but:
            continue
        try:
            network = load(name).network
        except JailError:
            continue  # removed meanwhile
        if network and is_published(network["publish"], protocol, address, port):
            return name
    return ""
