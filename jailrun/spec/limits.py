"""What the user asked for of the host's CPU, memory and disks, as ``linux.resources``.

Owns: the limits' options, their least and largest sensible values, and those beyond the host.

Memory and swap: OCI's ``memory.swap`` is the sum of both.  ``swap`` here is swap alone, as in
server.toml.  Where it is not said a jail gets none beyond its memory, so that its limit is what
it says; then ``jailrun.swap`` is "default", and a host that cannot limit swap (booted without
swap accounting) may leave ``memory.swap`` out.  Where it is said, such a host must refuse.
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.tables import is_absolute
from jailrun.units import (
    INT64_MAX,
    RLIM_INFINITY,
    format_cpuset,
    format_size,
    format_size_about,
    format_ulimit,
    parse_cpus,
    parse_cpuset,
    parse_integer,
    parse_size,
    parse_ulimit,
    show,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.spec.facts import HostFacts
    from jailrun.spec.model import CPU, BlockIO, Config, Memory, Process, ThrottleDevice
    from jailrun.spec.request import Request

PERIOD_USEC = 100_000  # the kernel's default
# The kernel takes a quota of 1 ms and up, kernel/sched/core.c.
CPUS_MIN = 0.01
# Measured: busybox sh with one child is killed at 1 MiB in 6 starts of 10 and never at 2 MiB, as
# the kernel charges page tables, stacks and batches of 64 pages for each CPU.  Twice that is asked
# for.  Docker asks for 6 MiB, which its helper inside the container needs; we have none.
MEMORY_MIN = 4 * 1024 * 1024
PIDS_MAX = 4_194_304  # PID_MAX_LIMIT, linux/threads.h

_DEVICE_RATES = (
    ("device_read_bps", "throttleReadBpsDevice"),
    ("device_write_bps", "throttleWriteBpsDevice"),
    ("device_read_iops", "throttleReadIOPSDevice"),
    ("device_write_iops", "throttleWriteIOPSDevice"),
)


def set_resources(config: Config, asked: Request) -> None:
    """Set ``linux.resources`` but for devices."""
    resources = config["linux"]["resources"]
    memory = _memory(asked)
    if memory:
        resources["memory"] = memory
        if asked.get("swap") is None and "swap" in memory:
            config["jailrun"]["swap"] = "default"
    cpu = _cpu(asked)
    if cpu:
        resources["cpu"] = cpu
    pids = asked.get("pids")
    if pids is not None:
        resources["pids"] = {"limit": parse_integer(pids, "pids", low=1, high=PIDS_MAX)}
    block_io = _block_io(asked)
    if block_io:
        resources["blockIO"] = block_io


def _memory(asked: Request) -> Memory:
    """Return the limits of memory; see the module on swap."""
    memory: Memory = {}
    host = asked.get("host")
    wanted, soft, swap = asked.get("memory"), asked.get("memory_reservation"), asked.get("swap")
    if wanted is not None:
        memory["limit"] = limit = _parse_memory(wanted, "memory", host)
        memory["swap"] = limit
    if soft is not None:
        memory["reservation"] = _parse_memory(soft, "memory-reservation", host)
        if memory["reservation"] > memory.get("limit", INT64_MAX):
            raise JailError(
                f"memory-reservation {show(soft)} is more than memory, {show(wanted)}",
                hint="the reservation is the softer limit, and the lower one",
            )
    if swap is not None:
        if wanted is None:
            raise JailError(f"swap {show(swap)} needs a limit of memory", hint="add --memory")
        unlimited = swap in ("unlimited", "-1", -1)
        total = -1 if unlimited else memory["limit"] + parse_size(swap, "swap")
        if total > INT64_MAX:
            raise JailError(f"swap {show(swap)} is too large")
        memory["swap"] = total
    return memory


def _parse_memory(value: str | int, what: str, host: HostFacts | None) -> int:
    size = parse_size(value, what)
    if size < MEMORY_MIN:
        raise JailError(
            f"{what} {show(value)} is too small to start a program in",
            hint=f"write at least {format_size(MEMORY_MIN)}",
        )
    if host is not None and size > host.memory_bytes:
        raise JailError(
            f"{what} {show(value)} is more than this host has",
            hint=f"write at most {format_size_about(host.memory_bytes)}",
        )
    return size


def _cpu(asked: Request) -> CPU:
    cpu: CPU = {}
    host = asked.get("host")
    cpus, shares = asked.get("cpus"), asked.get("cpu_shares")
    if cpus is not None:
        count = parse_cpus(cpus, "cpus")
        if count < CPUS_MIN:
            raise JailError(
                f"cpus {show(cpus)} is too small", hint=f"write at least {CPUS_MIN}, as 0.5"
            )
        if host is not None and count > host.cpus:
            raise JailError(
                f"cpus {show(cpus)} is more than this host has", hint=f"write at most {host.cpus}"
            )
        cpu["quota"] = round(count * PERIOD_USEC)
        cpu["period"] = PERIOD_USEC
    if shares is not None:
        # MIN_SHARES and MAX_SHARES, kernel/sched/sched.h: the kernel would change others silently
        cpu["shares"] = parse_integer(shares, "cpu-shares", low=2, high=262_144)
    cpuset, mems = asked.get("cpuset"), asked.get("cpuset_mems")
    if cpuset is not None:
        numbers = parse_cpuset(cpuset, "cpuset")
        if host is not None and not set(numbers) <= set(host.cpu_numbers):
            raise JailError(
                f"cpuset {show(cpuset)} names CPUs that are not there",
                hint=f"this host has {format_cpuset(host.cpu_numbers)}",
            )
        cpu["cpus"] = format_cpuset(numbers)
    if mems is not None:
        cpu["mems"] = format_cpuset(parse_cpuset(mems, "cpuset-mems", limit=1024))
    return cpu


def _block_io(asked: Request) -> BlockIO:
    block_io: BlockIO = {}
    weight = asked.get("io_weight")
    if weight is not None:
        block_io["weight"] = parse_integer(weight, "io-weight", low=10, high=1000)
    for option, field in _DEVICE_RATES:
        given: list[str] = asked.get(option) or []  # type: ignore[assignment]
        if given:
            block_io[field] = [_device_rate(each, option, asked) for each in given]  # type: ignore[literal-required]
    return block_io


def _device_rate(text: str, option: str, asked: Request) -> ThrottleDevice:
    """Return the limit that ``/dev/sda:10M`` describes."""
    what = option.replace("_", "-")
    path, colon, number = text.rpartition(":")
    if not colon or not is_absolute(path):
        raise JailError(
            f"{what} {show(text)} is not valid", hint="write DEVICE:RATE, as /dev/sda:10M"
        )
    stat_device = asked.get("stat_device")
    node = stat_device(path) if stat_device else None
    if node is None or node.kind != "b":
        raise JailError(f"{what} {show(text)}: {path} is not a block device")
    rate = parse_size(number, what) if option.endswith("bps") else parse_integer(number, what)
    if not rate:
        raise JailError(f"{what} {show(text)} would stop the device", hint="write a rate above 0")
    return {"major": node.major, "minor": node.minor, "rate": rate}


def set_process_limits(process: Process, asked: Request) -> None:
    """Set the rlimits and the score that the kernel's out-of-memory killer goes by."""
    host = asked.get("host")
    rlimits = {}
    for text in asked.get("ulimit") or ():
        kind, soft, hard = parse_ulimit(text, "ulimit")
        most = (host.rlimits or {}).get(kind, RLIM_INFINITY) if host is not None else RLIM_INFINITY
        if hard > most:
            raise JailError(
                f"ulimit {show(text)} is more than this host lets us set",
                hint=f"write at most {format_ulimit(kind, most, most)}",
            )
        rlimits[kind] = (soft, hard)
    if rlimits:
        process["rlimits"] = [
            {"type": kind, "soft": soft, "hard": hard} for kind, (soft, hard) in rlimits.items()
        ]
    score = asked.get("oom_score_adj")
    if score is not None:
        process["oomScoreAdj"] = parse_integer(score, "oom-score-adj", low=-1000, high=1000)
