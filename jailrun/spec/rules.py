"""What takes two values to be wrong: each rule is one function that yields the problems.

Owns: `RULES`, in the order in which they are asked.  They run only on a config whose fields are
each right (`jailrun.spec.tables`), so that a rule need not doubt a type; null is "not set".
"""

from __future__ import annotations

from jailrun.spec.fields import show_value
from jailrun.spec.mounts import is_bind, parse_options, unknown_data, valid_data
from jailrun.spec.names import dot_sysctl
from jailrun.spec.network import check_networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from jailrun.spec.fields import Problem

    Problems: TypeAlias = Iterator[Problem]

_MAPPINGS_MAX = 340  # user_namespaces(7), Linux 4.15
_QUOTA_MIN_USEC = 1000  # kernel/sched/core.c, min_cfs_quota_period


def _linux(config: Any) -> Any:
    return config.get("linux") or {}


def _namespaces(config: Any) -> dict[str, str]:
    """Return the path of each namespace by its type, "" for a new one."""
    listed = _linux(config).get("namespaces") or ()
    return {namespace["type"]: namespace.get("path") or "" for namespace in listed}


def check_root(config: Any) -> Problems:
    """A jail has a root, or layers to make one of."""
    if not config.get("root") and not (config.get("jailrun") or {}).get("layers"):
        yield "root", "is required and not there", 'write "root": {"path": "rootfs"}'


def check_namespaces(config: Any) -> Problems:
    """Each type of namespace is there once."""
    seen = set()
    for index, namespace in enumerate(_linux(config).get("namespaces") or ()):
        if namespace["type"] in seen:
            where = f"linux.namespaces[{index}].type"
            yield where, f"{show_value(namespace['type'])} is there twice", "remove one of them"
        seen.add(namespace["type"])


def check_user_namespace(config: Any) -> Problems:
    """A new user namespace has both mappings, and only a user namespace has them."""
    linux, namespaces = _linux(config), _namespaces(config)
    for field in ("uidMappings", "gidMappings"):
        mappings = linux.get(field)
        if mappings and "user" not in namespaces:
            hint = 'add {"type": "user"} to linux.namespaces'
            yield f"linux.{field}", "has no meaning without a user namespace", hint
        if not mappings and namespaces.get("user") == "":
            yield f"linux.{field}", "is required for a new user namespace and not there", None
        if mappings:
            yield from _check_mappings(f"linux.{field}", mappings)


def _check_mappings(where: str, mappings: Any) -> Problems:
    if len(mappings) > _MAPPINGS_MAX:
        yield where, f"the kernel takes {_MAPPINGS_MAX} ranges, not {len(mappings)}", None
    for side in ("containerID", "hostID"):
        end, last = -1, 0
        ranges = sorted((each[side], each["size"], index) for index, each in enumerate(mappings))
        for first, size, index in ranges:
            if first < end:
                message = f"overlaps with {where}[{last}]"
                yield f"{where}[{index}].{side}", message, "give each id once"
            if first + size > 2**32 - 1:
                message = f"{first} and {size} ids more go beyond the largest id, 4294967294"
                yield f"{where}[{index}].{side}", message, None
            end, last = first + size, index


def check_extensions(config: Any) -> Problems:
    """What the engine is to fill in is left open in the rest of the config."""
    ours, linux = config.get("jailrun") or {}, _linux(config)
    if ours.get("user_range"):
        if _namespaces(config).get("user") != "":
            yield "jailrun.user_range", "has no meaning without a new user namespace", None
        for field in ("uidMappings", "gidMappings"):
            mappings = linux.get(field) or ()
            if [each["containerID"] for each in mappings] != [0]:
                message = "must be one range from 0 on where jailrun.user_range is set"
                yield f"linux.{field}", message, "the range on the host is filled in at the start"
    if ours.get("seccomp") and linux.get("seccomp"):
        yield "jailrun.seccomp", "is not for a config that has linux.seccomp", "remove one of them"
    if ours.get("writable") == "none" and not (config.get("root") or {}).get("readonly"):
        yield "jailrun.writable", '"none" is for a read-only root', "set root.readonly to true"
    if ours.get("writable") == "direct" and ours.get("layers"):
        yield "jailrun.writable", '"direct" is for a root without layers', "remove jailrun.layers"


def check_names(config: Any) -> Problems:
    """Only a UTS namespace of the jail's own is renamed."""
    for field in ("hostname", "domainname"):
        if config.get(field) and "uts" not in _namespaces(config):
            hint = f'add {{"type": "uts"}} to linux.namespaces, or remove {field}'
            yield field, f"{show_value(config[field])} would rename the host", hint


def check_mount_namespace(config: Any) -> Problems:
    """Mounts are made inside, never on the host."""
    if "mount" in _namespaces(config):
        return
    linux = _linux(config)
    for where, value in (
        ("mounts", config.get("mounts")),
        ("linux.maskedPaths", linux.get("maskedPaths")),
        ("linux.readonlyPaths", linux.get("readonlyPaths")),
        ("root.readonly", (config.get("root") or {}).get("readonly")),
    ):
        if value:
            hint = 'add {"type": "mount"} to linux.namespaces'
            yield where, "needs a mount namespace, or it would change the host's mounts", hint


def check_mounts(config: Any) -> Problems:
    """Each mount has the options that its kind takes, and a source where one is needed."""
    has_user = "user" in _namespaces(config)
    for index, mount in enumerate(config.get("mounts") or ()):
        options = parse_options(mount.get("options") or ())
        where, kind = f"mounts[{index}]", mount.get("type") or ""
        bind = is_bind(mount, options)
        if bind and not mount.get("source"):
            yield f"{where}.source", "is required for a bind mount and not there", None
        if not bind and not kind and not options.remount:
            yield f"{where}.type", "is required and not there", "name a file system, or add rbind"
        if bind and options.data:
            message = f"{show_value(options.data[0])} is not an option of a bind mount"
            yield f"{where}.options", message, "valid: ro, nosuid, nodev, noexec, rslave, idmap …"
        elif (unknown := unknown_data(kind, options.data)) is not None:
            words = ", ".join(valid_data(kind))
            hint = f"besides the general ones (ro, nosuid …) valid: {words}" if words else None
            message = f"{show_value(unknown)} is not an option of {kind}"
            yield f"{where}.options", message, hint
        if options.tmpcopyup and kind != "tmpfs":
            yield f"{where}.options", '"tmpcopyup" is for tmpfs only', None
        yield from _check_mount_ids(where, mount, options.idmap, has_user)


def _check_mount_ids(where: str, mount: Any, idmap: bool, has_user: bool) -> Problems:
    uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
    if bool(uids) != bool(gids):
        field = "gidMappings" if uids else "uidMappings"
        yield f"{where}.{field}", "is required: ids of users and groups are mapped together", None
    if idmap and not uids and not has_user:
        message = '"idmap" needs uidMappings and gidMappings, or a user namespace'
        yield f"{where}.options", message, None
    for field, mappings in (("uidMappings", uids), ("gidMappings", gids)):
        if mappings:
            yield from _check_mappings(f"{where}.{field}", mappings)


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        *("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"),
        *("sem_next_id", "msg_next_id", "shm_next_id", "auto_msgmni"),
    )
)


def check_sysctl(config: Any) -> Problems:
    """A kernel parameter is set only in a namespace of the jail's own, never the host's."""
    namespaces = _namespaces(config)
    for written in _linux(config).get("sysctl") or ():
        name = dot_sysctl(written)
        where = f"linux.sysctl[{show_value(written)}]"
        if ".." in name or "//" in name or name[-1:] in ("", ".", "/"):
            yield where, "is not the name of a kernel parameter", "write it as net.core.somaxconn"
            continue
        if name == "kernel.hostname":
            yield where, "is set by hostname", 'write "hostname": …'
            continue
        if name.startswith("net."):
            needed = "network"
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name == "kernel.domainname":
            needed = "uts"
        elif name.startswith("user.max_"):
            needed = "user"
        else:
            message = "is the same for the whole host: no namespace separates it"
            yield where, message, "valid: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*"
            continue
        if needed not in namespaces:
            hint = f'add {{"type": "{needed}"}} to linux.namespaces'
            yield where, f"would be set on the host: the jail has no {needed} namespace", hint


def check_time(config: Any) -> Problems:
    """Clocks are moved only in a new time namespace: once it has a process they stay."""
    if _linux(config).get("timeOffsets") and _namespaces(config).get("time") != "":
        hint = 'add {"type": "time"} to linux.namespaces'
        yield "linux.timeOffsets", "needs a new time namespace", hint


def check_process(config: Any) -> Problems:
    """Limits are there once, soft ones below hard ones; the command has a name."""
    process = config.get("process") or {}
    if process.get("args") and not process["args"][0]:
        yield "process.args[0]", "is empty: it names the program", None
    if not process.get("args") and process:
        yield "process.args", "is required and not there", 'write "args": ["sh"]'
    seen = set()
    for index, rlimit in enumerate(process.get("rlimits") or ()):
        where = f"process.rlimits[{index}]"
        if rlimit["type"] in seen:
            yield f"{where}.type", f"{show_value(rlimit['type'])} is there twice", None
        seen.add(rlimit["type"])
        if rlimit["soft"] > rlimit["hard"]:
            message = f"{rlimit['soft']} is above the hard limit, {rlimit['hard']}"
            yield f"{where}.soft", message, None
    sets = process.get("capabilities") or {}
    more = set(sets.get("effective") or ()) - set(sets.get("permitted") or ())
    if more:
        message = f"{', '.join(sorted(more))} cannot be effective without being permitted"
        yield "process.capabilities.effective", message, "add it to permitted"


def check_scheduler(config: Any) -> Problems:
    """Each attribute has the policy that it is for, sched(7)."""
    scheduler = (config.get("process") or {}).get("scheduler")
    if not scheduler:
        return
    policy = scheduler["policy"]
    realtime = policy in ("SCHED_FIFO", "SCHED_RR")
    if bool(scheduler.get("priority")) != realtime:
        message = "is from 1 to 99 for SCHED_FIFO and SCHED_RR, and 0 for others"
        yield "process.scheduler.priority", message, None
    for field in ("runtime", "deadline", "period"):
        if scheduler.get(field) and policy != "SCHED_DEADLINE":
            yield f"process.scheduler.{field}", "is for SCHED_DEADLINE only", None


def check_devices(config: Any) -> Problems:
    """A node has its numbers, and no path is there twice."""
    seen = set()
    for index, device in enumerate(_linux(config).get("devices") or ()):
        where = f"linux.devices[{index}]"
        for field in ("major", "minor"):
            if device["type"] != "p" and device.get(field) is None:
                yield f"{where}.{field}", "is required for a device and not there", None
        if device["path"] in seen:
            yield f"{where}.path", f"{show_value(device['path'])} is there twice", None
        seen.add(device["path"])


def check_memory(config: Any) -> Problems:
    """``swap`` is memory and swap together."""
    memory = (_linux(config).get("resources") or {}).get("memory") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if swap > 0 and limit <= 0:
        message = f"{swap} needs a limit of memory: it is the sum of memory and swap"
        yield "linux.resources.memory.swap", message, "set linux.resources.memory.limit"
    elif 0 < swap < limit:
        message = f"{swap} is less than the limit of memory, {limit}: it is the sum of both"
        yield "linux.resources.memory.swap", message, f"write {limit} for no swap"


def check_cpu(config: Any) -> Problems:
    """Quota, burst and period fit each other as the kernel wants it."""
    cpu = (_linux(config).get("resources") or {}).get("cpu") or {}
    quota, period, burst = (cpu.get(field) or 0 for field in ("quota", "period", "burst"))
    where = "linux.resources.cpu"
    for field, value in (("quota", quota), ("period", period)):
        if 0 < value < _QUOTA_MIN_USEC:
            yield f"{where}.{field}", f"{value} is less than {_QUOTA_MIN_USEC} microseconds", None
    if burst > quota > 0:
        yield f"{where}.burst", f"{burst} is more than the quota, {quota}", None
    runtime, realtime_period = cpu.get("realtimeRuntime") or 0, cpu.get("realtimePeriod") or 0
    if runtime > realtime_period > 0:
        message = f"{runtime} is more than realtimePeriod, {realtime_period}"
        yield f"{where}.realtimeRuntime", message, None


def check_other_resources(config: Any) -> Problems:
    """Entries that say something, each once."""
    resources = _linux(config).get("resources") or {}
    weights = (resources.get("blockIO") or {}).get("weightDevice") or ()
    for index, device in enumerate(weights):
        if device.get("weight") is None and device.get("leafWeight") is None:
            where = f"linux.resources.blockIO.weightDevice[{index}]"
            yield where, "has neither weight nor leafWeight", None
    for name, limits in (resources.get("rdma") or {}).items():
        if limits.get("hcaHandles") is None and limits.get("hcaObjects") is None:
            where = f"linux.resources.rdma[{show_value(name)}]"
            yield where, "has neither hcaHandles nor hcaObjects", None
    seen = set()
    for index, limit in enumerate(resources.get("hugepageLimits") or ()):
        if limit["pageSize"] in seen:
            where = f"linux.resources.hugepageLimits[{index}].pageSize"
            yield where, f"{show_value(limit['pageSize'])} is there twice", None
        seen.add(limit["pageSize"])


def check_seccomp(config: Any) -> Problems:
    """Numbers and sockets only for the actions that use them."""
    seccomp = _linux(config).get("seccomp")
    if not seccomp:
        return
    with_errno = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    default = seccomp["defaultAction"]
    where = "linux.seccomp"
    notifies = False
    if seccomp.get("defaultErrnoRet") is not None and default not in with_errno:
        yield f"{where}.defaultErrnoRet", f"{default} takes no errno", None
    if default == "SCMP_ACT_NOTIFY":
        message = "SCMP_ACT_NOTIFY cannot be the default: the listener would wait for itself"
        yield f"{where}.defaultAction", message, None
    for index, rule in enumerate(seccomp.get("syscalls") or ()):
        action = rule["action"]
        notifies = notifies or action == "SCMP_ACT_NOTIFY"
        if rule.get("errnoRet") is not None and action not in with_errno:
            yield f"{where}.syscalls[{index}].errnoRet", f"{action} takes no errno", None
    if notifies and not seccomp.get("listenerPath"):
        yield f"{where}.listenerPath", "is required for SCMP_ACT_NOTIFY and not there", None
    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        yield f"{where}.listenerMetadata", "has no meaning without listenerPath", None


RULES: tuple[Callable[[Any], Problems], ...] = (
    check_root,
    check_namespaces,
    check_user_namespace,
    check_extensions,
    check_names,
    check_mount_namespace,
    check_mounts,
    check_sysctl,
    check_time,
    check_process,
    check_scheduler,
    check_devices,
    check_memory,
    check_cpu,
    check_other_resources,
    check_seccomp,
    check_networks,
)
