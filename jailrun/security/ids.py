"""Host ids for jails: one range of 65,536 for each, never the same for two.

A lease is the symbolic link ``<run_dir>/ids/<n>`` whose target is the jail's name: symlink(2)
takes the place and says for whom in one step, so that two jails never get one range, and no crash
leaves a lease without a holder.  Out of scope: writing the maps into a user namespace, and which
jails still exist (the caller knows the records).
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_UN, flock

from jailrun.errors import SecurityError, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from typing import Any

FIRST_ID = 0x70000000  # above the ranges of systemd-nspawn, below 2**31
RANGE_SIZE = 65536
RANGES = 4096
MAX_ID = 2**32 - 2  # 2**32 - 1 is "no id": user_namespaces(7)
MAX_MAPPINGS = 340  # Linux 4.15


# --- leases --------------------------------------------------------------------------------------
def allocate_range(run_dir: str, name: str) -> int:
    """Return the first host id of a range for the jail ``name``, leased until it is released.

    The search starts at a place that the name decides: a jail mostly gets the same range again,
    and two starts at once mostly try different ones.
    """
    folder = _folder(run_dir)
    start = name_hash(name)
    for step in range(RANGES):
        number = (start + step) % RANGES
        try:
            os.symlink(name, f"{folder}/{number}")
        except FileExistsError:
            continue
        except FileNotFoundError:
            os.makedirs(folder, 0o700, exist_ok=True)
            return allocate_range(run_dir, name)
        return FIRST_ID + number * RANGE_SIZE
    raise SecurityError(
        f"cannot give {name} a range of user ids: all {RANGES} are in use",
        hint="remove jails that are not needed: jailrun ls --all, jailrun rm NAME",
    )


def release_range(run_dir: str, first: int, name: str) -> None:
    """Give a range back; nothing happens where ``name`` does not hold it (any more)."""
    path = f"{_folder(run_dir)}/{range_number(first)}"
    try:
        lock = os.open(_folder(run_dir), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # One release at a time: else a second one could see the old holder and remove the lease
        # of the next.  Who takes a range needs no lock.
        flock(lock, LOCK_EX)
        if _holder(path) == name:
            os.unlink(path)
    finally:
        flock(lock, LOCK_UN)  # a process forked meanwhile has the descriptor, too
        os.close(lock)


def read_leases(run_dir: str) -> dict[int, str]:
    """Return first host id → name of the jail that holds the range."""
    try:
        entries = os.listdir(_folder(run_dir))
    except FileNotFoundError:
        return {}
    leases = {}
    for entry in entries:
        holder = _holder(f"{_folder(run_dir)}/{entry}")
        if holder is not None and entry.isascii() and entry.isdigit() and int(entry) < RANGES:
            leases[FIRST_ID + int(entry) * RANGE_SIZE] = holder
    return leases


def stale_ranges(run_dir: str, existing_names: Container[str]) -> list[tuple[int, str]]:
    """Return the leases, as (first host id, name), of jails that do not exist any more.

    Where a lease is made before its jail's record, ask under the lock that starts take.
    """
    leases = read_leases(run_dir)
    return sorted((first, name) for first, name in leases.items() if name not in existing_names)


def range_number(first: int) -> int:
    """Return the number of the range that starts at a host id."""
    number, rest = divmod(first - FIRST_ID, RANGE_SIZE)
    if rest or not 0 <= number < RANGES:
        raise SecurityError(f"{first} is not the first id of one of our ranges")
    return number


def name_hash(name: str) -> int:
    """Return where the search for a range starts (FNV-1a: the same in every process)."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (value ^ value >> 16) % RANGES


def _folder(run_dir: str) -> str:
    return f"{run_dir}/ids"


def _holder(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


# --- maps ----------------------------------------------------------------------------------------
def map_text(mappings: Sequence[Mapping[str, Any]], path: str) -> bytes:
    """Return OCI id mappings as uid_map and gid_map take them, checked as the kernel checks."""
    if not mappings:
        raise SpecError(path, "a user namespace needs at least one mapping")
    if len(mappings) > MAX_MAPPINGS:
        raise SpecError(path, f"{len(mappings)} mappings, the kernel takes {MAX_MAPPINGS}")
    lines = []
    for index, mapping in enumerate(mappings):
        here = f"{path}[{index}]"
        inside, outside, size = (
            _id(mapping, key, here) for key in ("containerID", "hostID", "size")
        )
        if size == 0:
            raise SpecError(f"{here}.size", "a mapping of no ids")
        for key, first in (("containerID", inside), ("hostID", outside)):
            if first + size - 1 > MAX_ID:
                raise SpecError(f"{here}.{key}", f"{size} ids from {first} end above {MAX_ID}")
        lines.append(f"{inside} {outside} {size}\n")
    for key in ("containerID", "hostID"):
        _check_disjoint(mappings, key, path)
    return "".join(lines).encode()


def user_maps(linux: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the texts of uid_map and gid_map for ``linux.uidMappings`` and ``gidMappings``."""
    return (
        map_text(linux.get("uidMappings") or [], "linux.uidMappings"),
        map_text(linux.get("gidMappings") or [], "linux.gidMappings"),
    )


def _id(mapping: Mapping[str, Any], key: str, path: str) -> int:
    value = mapping.get(key)
    if type(value) is not int or not 0 <= value <= MAX_ID + 1:
        raise SpecError(f"{path}.{key}", f"{value!r} is not an id", hint=f"0 to {MAX_ID}")
    return value


def _check_disjoint(mappings: Iterable[Mapping[str, Any]], key: str, path: str) -> None:
    spans = sorted((mapping[key], mapping["size"]) for mapping in mappings)
    end = 0
    for first, size in spans:
        if first < end:
            raise SpecError(path, f"two mappings hold {key} {first}")
        end = first + size


def host_id(mappings: Iterable[Mapping[str, Any]], inside: int) -> int | None:
    """Return the host's id for an id of the jail, None where it has none."""
    for mapping in mappings:
        offset: int = inside - mapping["containerID"]
        if 0 <= offset < mapping["size"]:
            outside: int = mapping["hostID"]
            return outside + offset
    return None


def check_mapped(process: Mapping[str, Any], linux: Mapping[str, Any]) -> None:
    """Refuse a user or group of the payload that does not exist in the user namespace."""
    user = process.get("user") or {}
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    wanted = [("uid", user.get("uid", 0), uids), ("gid", user.get("gid", 0), gids)]
    wanted += [
        (f"additionalGids[{index}]", gid, gids)
        for index, gid in enumerate(user.get("additionalGids") or ())
    ]
    for key, number, mappings in wanted:
        if mappings and host_id(mappings, number) is None:
            raise SpecError(
                f"process.user.{key}",
                f"{number} is not mapped in the jail's user namespace",
                hint="choose an id within the mappings",
            )
