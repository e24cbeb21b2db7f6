"""Limits of a single process: rlimits, priorities, execution domain, and their checks.

What needs a capability of the host is done by the caller while the jail waits (a jail with a user
namespace has none of them); everything else by the new process itself, as late as possible, so
that a low limit does not hit its own set-up.  Out of scope: limits of the whole jail (cgroups).
"""

from __future__ import annotations

from _struct import pack

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.files import read_file
from jailrun.kernel.operation import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from jailrun.kernel.program import Program

# asm-generic/resource.h; arm64 and x86 have the same numbers.
RLIMITS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
UNLIMITED = 2**64 - 1

# linux/sched.h, linux/sched/types.h
POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4,
    "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20, "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}  # linux/ioprio.h
IOPRIO_CLASS_SHIFT = 13
IOPRIO_WHO_PROCESS = 1
PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}  # OCI domain → linux/personality.h

Limits = dict[int, tuple[int, int]]  # resource → soft and hard


# --- rlimits -------------------------------------------------------------------------------------
def parse_rlimits(rlimits: Iterable[Mapping[str, Any]], path: str = "process.rlimits") -> Limits:
    """Return resource → (soft, hard), checked; -1 in the configuration is no limit, too."""
    limits: Limits = {}
    for index, entry in enumerate(rlimits):
        here = f"{path}[{index}]"
        name = entry.get("type")
        if not isinstance(name, str) or name not in RLIMITS:
            raise SpecError(
                f"{here}.type", f"{name!r} is not a limit", hint=f"one of: {', '.join(RLIMITS)}"
            )
        if RLIMITS[name] in limits:
            raise SpecError(f"{here}.type", f"{name} is given twice")
        soft, hard = (_limit(entry.get(key), f"{here}.{key}") for key in ("soft", "hard"))
        if soft > hard:
            raise SpecError(f"{here}.soft", f"{soft} is above the hard limit {hard}")
        limits[RLIMITS[name]] = (soft, hard)
    return limits


def _limit(value: object, path: str) -> int:
    if type(value) is not int or not -1 <= value <= UNLIMITED:
        raise SpecError(path, f"{value!r} is not a limit", hint="a number, or -1 for none")
    return UNLIMITED if value == -1 else value


def read_host_limits() -> Limits:
    """Return this process's own limits, which a jail can go below without a privilege."""
    from resource import getrlimit

    limits = {}
    for number in RLIMITS.values():
        soft, hard = getrlimit(number)
        limits[number] = (soft % 2**64, hard % 2**64)  # RLIM_INFINITY is -1 in Python
    return limits


def check_rlimits(
    rlimits: Iterable[Mapping[str, Any]], host_limits: Limits, can_raise: bool
) -> None:
    """Refuse, before anything is made, a hard limit above the host's that cannot be raised.

    ``can_raise`` says whether the caller has CAP_SYS_RESOURCE.
    """
    names = {number: name for name, number in RLIMITS.items()}
    for number, (_, hard) in parse_rlimits(rlimits).items():
        ceiling = host_limits.get(number, (UNLIMITED, UNLIMITED))[1]
        if hard > ceiling and not can_raise:
            raise UnsupportedError(
                f"cannot set {names[number]} to {show_limit(hard)}: "
                f"this host's hard limit is {show_limit(ceiling)}",
                hint=f"ask for at most {ceiling}, or run jailrun with CAP_SYS_RESOURCE",
            )


def show_limit(value: int) -> str:
    """Return a limit in words."""
    return "unlimited" if value == UNLIMITED else str(value)


def plan_rlimits(
    program: Program, rlimits: Iterable[Mapping[str, Any]], host_limits: Limits
) -> None:
    """Plan the rlimits: the caller raises what is above its own, the child sets them."""
    names = {number: name for name, number in RLIMITS.items()}
    for number, (soft, hard) in parse_rlimits(rlimits).items():
        host_soft, host_hard = host_limits.get(number, (UNLIMITED, UNLIMITED))
        if hard > host_hard:
            program.attach.call(
                "prlimit64",
                program.pid,
                number,
                Struct(pack("<QQ", host_soft, hard), label=f"{{{host_soft}, {hard}}}"),
                0,
                what="raise limit",
                object=names[number],
                hint="raising a hard limit needs CAP_SYS_RESOURCE",
            )
        program.child.prlimit(number, soft, hard, what="set limit", object=names[number])


# --- priorities ----------------------------------------------------------------------------------
def check_oom_score(score: int | None, host_score: int, can_raise: bool) -> None:
    """Refuse a protection against the out-of-memory killer that this caller cannot give."""
    if score is None:
        return
    if type(score) is not int or not -1000 <= score <= 1000:
        raise SpecError("process.oomScoreAdj", f"{score!r} is not a score", hint="-1000 to 1000")
    if score < host_score and not can_raise:
        raise UnsupportedError(
            f"cannot set process.oomScoreAdj to {score}: jailrun itself runs with {host_score}",
            hint=f"ask for {host_score} or more, or run jailrun with CAP_SYS_RESOURCE",
        )


def read_oom_score() -> int:
    """Return this process's own oom_score_adj."""
    return int(read_file("/proc/self/oom_score_adj"))


def plan_priorities(program: Program, process: Mapping[str, Any]) -> None:
    """Plan ``process.scheduler`` and ``process.ioPriority``: the caller sets them for the child."""
    scheduler = process.get("scheduler")
    if scheduler is not None:
        attributes = scheduler_attributes(scheduler)
        program.attach.call(
            "sched_setattr",
            program.pid,
            Struct(attributes, label=f"{{{scheduler.get('policy')}}}"),
            0,
            what="set scheduling policy",
            object=str(scheduler.get("policy")),
            hint="real-time policies and negative nice values need CAP_SYS_NICE on the host",
        )
    priority = process.get("ioPriority")
    if priority is not None:
        program.attach.call(
            "ioprio_set",
            IOPRIO_WHO_PROCESS,
            program.pid,
            io_priority(priority),
            what="set I/O priority",
            object=str(priority.get("class")),
            hint="the real-time class needs CAP_SYS_ADMIN or CAP_SYS_NICE on the host",
        )


def scheduler_attributes(scheduler: Mapping[str, Any]) -> bytes:
    """Return struct sched_attr (sched_setattr(2), 48 bytes) of ``process.scheduler``."""
    path = "process.scheduler"
    policy = scheduler.get("policy")
    if not isinstance(policy, str) or policy not in POLICIES:
        raise SpecError(
            f"{path}.policy", f"{policy!r} is not a policy", hint=f"one of: {', '.join(POLICIES)}"
        )
    flags = 0
    for index, name in enumerate(scheduler.get("flags") or ()):
        if name not in SCHEDULER_FLAGS:
            raise SpecError(f"{path}.flags[{index}]", f"{name!r} is not a flag")
        flags |= SCHEDULER_FLAGS[name]
    nice = _number(scheduler, "nice", path, -20, 19)
    priority = _number(scheduler, "priority", path, 0, 99)
    real_time = policy in ("SCHED_FIFO", "SCHED_RR")
    if real_time and priority == 0:
        raise SpecError(f"{path}.priority", f"{policy} needs a priority", hint="1 to 99")
    if priority and not real_time:
        raise SpecError(f"{path}.priority", f"{policy} has no priority", hint="use nice")
    keys = ("runtime", "deadline", "period")
    times = [_number(scheduler, key, path, 0, 2**63 - 1) for key in keys]
    if any(times) and policy != "SCHED_DEADLINE":
        raise SpecError(f"{path}.runtime", f"{policy} has no runtime, deadline and period")
    return pack("<IIQiIQQQ", 48, POLICIES[policy], flags, nice, priority, *times)


def io_priority(priority: Mapping[str, Any]) -> int:
    """Return class and level of ``process.ioPriority`` as ioprio_set(2) takes them."""
    name = priority.get("class")
    if not isinstance(name, str) or name not in IO_CLASSES:
        valid = ", ".join(IO_CLASSES)
        raise SpecError(
            "process.ioPriority.class", f"{name!r} is not a class", hint=f"one of: {valid}"
        )
    level = _number(priority, "priority", "process.ioPriority", 0, 7)
    return IO_CLASSES[name] << IOPRIO_CLASS_SHIFT | level


def _number(entry: Mapping[str, Any], key: str, path: str, minimum: int, maximum: int) -> int:
    value = entry.get(key, 0)
    if type(value) is not int or not minimum <= value <= maximum:
        raise SpecError(f"{path}.{key}", f"{value!r} is not valid", hint=f"{minimum} to {maximum}")
    return value


# --- the rest ------------------------------------------------------------------------------------
def personality_number(personality: Mapping[str, Any]) -> int:
    """Return ``linux.personality`` as personality(2) takes it."""
    domain = personality.get("domain")
    if not isinstance(domain, str) or domain not in PERSONALITIES:
        valid = " or ".join(PERSONALITIES)
        raise SpecError("linux.personality.domain", f"{domain!r} is not a domain", hint=valid)
    if personality.get("flags"):
        # The specification has the key, and no value for it yet.
        raise SpecError("linux.personality.flags", "no flags are defined")
    return PERSONALITIES[domain]


def umask_number(user: Mapping[str, Any]) -> int | None:
    """Return ``process.user.umask``, None where it is not given."""
    mask = user.get("umask")
    if mask is None:
        return None
    if type(mask) is not int or not 0 <= mask <= 0o777:
        raise SpecError("process.user.umask", f"{mask!r} is not a mask", hint="0 to 511 (0o777)")
    return mask
