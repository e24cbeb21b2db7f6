"""Capabilities: names, numbers, masks, and the steps that leave a process with the sets asked for.

Out of scope: which capabilities a jail has by default (the configuration says it), and when these
steps run among the others (`jailrun.security.plan`).
"""

from __future__ import annotations

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.constants import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
)
from jailrun.kernel.files import read_file, read_own_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from jailrun.kernel.lane import Lane

# linux/capability.h; a name's place is its number.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
    "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}
LAST_KNOWN = len(NAMES) - 1

CAP_SYS_ADMIN = NUMBERS["CAP_SYS_ADMIN"]
CAP_SYS_RESOURCE = NUMBERS["CAP_SYS_RESOURCE"]
CAP_SYS_NICE = NUMBERS["CAP_SYS_NICE"]

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def capability_number(name: str, path: str = "") -> int:
    """Return the number of a capability; ``path`` is where the name stands, for the error."""
    number = NUMBERS.get(name)
    if number is None:
        hint = None
        canonical = f"CAP_{name.upper().removeprefix('CAP_')}"
        if canonical in NUMBERS:
            hint = f"write {canonical}"
        raise SpecError(path, f"{name!r} is not a capability", hint=hint)
    return number


def capability_mask(names: Iterable[str], path: str = "") -> int:
    """Return the set of these capabilities, bit n for the capability of number n."""
    mask = 0
    for index, name in enumerate(names):
        mask |= 1 << capability_number(name, f"{path}[{index}]" if path else "")
    return mask


def mask_names(mask: int) -> list[str]:
    """Return the names in a set, by number; a bit without a name reads ``CAP_<number>``."""
    names = []
    number = 0
    while mask >> number:
        if mask >> number & 1:
            names.append(NAMES[number] if number <= LAST_KNOWN else f"CAP_{number}")
        number += 1
    return names


_last_cap: list[int] = []


def read_last_cap() -> int:
    """Return the number of the last capability that this kernel knows; read once a process."""
    if not _last_cap:
        try:
            _last_cap.append(int(read_file("/proc/sys/kernel/cap_last_cap")))
        except (OSError, ValueError):
            return LAST_KNOWN
    return _last_cap[0]


def read_permitted() -> int:
    """Return the permitted set of this process."""
    return int(read_own_status("CapPrm"), 16)


def check_held(masks: Mapping[str, int], permitted: int) -> None:
    """Refuse capabilities that the caller does not have itself.

    For a jail without a user namespace of its own only: in a new one every capability exists.
    """
    missing = (masks["permitted"] | masks["inheritable"]) & ~permitted
    if missing:
        raise UnsupportedError(
            f"cannot give the jail {mask_names(missing)[0]}: jailrun runs without it",
            hint="leave it out, or give the jail a user namespace",
        )


def capability_sets(process: Mapping[str, Any], last_cap: int) -> dict[str, int]:
    """Return the five sets of ``process.capabilities``, checked; a missing one is empty."""
    wanted: Mapping[str, Any] = process.get("capabilities") or {}
    path = "process.capabilities"
    masks = {name: capability_mask(wanted.get(name) or (), f"{path}.{name}") for name in SETS}
    for name, mask in masks.items():
        beyond = mask >> (last_cap + 1)
        if beyond:
            missing = mask_names(beyond << (last_cap + 1))[0]
            raise UnsupportedError(
                f"{path}.{name}: this kernel does not have {missing}",
                hint=f"its last capability is {mask_names(1 << last_cap)[0]}",
            )
    extra = masks["effective"] & ~masks["permitted"]
    if extra:
        name = mask_names(extra)[0]
        raise SpecError(
            f"{path}.effective",
            f"{name} is not in permitted",
            hint=f"add {name} to {path}.permitted",
        )
    # Only what is permitted and inheritable can be ambient: capabilities(7).  Bundles made for
    # other runtimes often name more, which those leave out too.
    masks["ambient"] &= masks["permitted"] & masks["inheritable"]
    return masks


def plan_bounding(lane: Lane, bounding: int, last_cap: int) -> None:
    """Drop every capability of the host that is not in ``bounding``; needs CAP_SETPCAP."""
    mask = ~bounding & (2 << last_cap) - 1
    if mask:
        lane.drop_capabilities(mask, what="drop capabilities", object=" ".join(mask_names(mask)))


def plan_sets(lane: Lane, masks: Mapping[str, int]) -> None:
    """Set the thread's sets, then the ambient one; after the switch of ids, which changes them.

    Inheritable is what the configuration asks for and else empty: a non-empty one lets a
    program whose file carries inheritable capabilities gain them (CVE-2022-29162).
    """
    lane.capset(
        masks["effective"],
        masks["permitted"],
        masks["inheritable"],
        what="set capabilities",
        object=describe_mask(masks["permitted"]),
    )
    lane.prctl(
        PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, what="clear the ambient capabilities", object=""
    )
    for name in mask_names(masks["ambient"]):
        lane.prctl(
            PR_CAP_AMBIENT,
            PR_CAP_AMBIENT_RAISE,
            NUMBERS[name],
            what="raise ambient capability",
            object=name,
        )


def describe_mask(mask: int) -> str:
    """Return a set in a few words for messages."""
    count = bin(mask).count("1")
    return "(none)" if not count else f"({count} of them)"
