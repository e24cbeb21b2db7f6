"""The fields of a config, object by object: name, kind, whether it is required.

Owns: everything that can be said of one value alone.  What needs two values to be wrong is a rule
(`jailrun.spec.rules`).  Out of scope: our extensions (`jailrun.spec.extension_tables`), what the
engine does not do (`jailrun.spec.unsupported`).

Source: config.md and config-linux.md of the OCI runtime specification 1.2.1; a Go program leaves
a field away, writes null or writes its empty value alike, so that "" and 0 pass where they have
no meaning of their own.
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.extension_tables import EXTENSIONS
from jailrun.spec.fields import array, boolean, integer, mapping, one_of, record, text
from jailrun.spec.known import (
    CAPABILITIES,
    NAMESPACES,
    PROPAGATIONS,
    SCHEDULER_FLAGS,
    SCHEDULER_POLICIES,
    SECCOMP_ACTIONS,
    SECCOMP_ARCHES,
    SECCOMP_FLAGS,
    SECCOMP_OPERATORS,
)
from jailrun.units import CPU_MAX, RLIMITS, is_digits, parse_cpuset

INT64 = 2**63
UINT32 = integer(0, 2**32 - 1)
UINT64 = integer(0, 2**64 - 1)
ID = integer(0, 2**32 - 2)  # the last one is "no id", setresuid(2)
LIMIT = integer(-1, INT64 - 1, "a number of bytes, or -1 for no limit")
DEVICE_NUMBER = integer(0, 2**32 - 1)  # makedev(3)
RULE_NUMBER = integer(-1, 2**32 - 1, "a device number, or -1 for all")
PERIOD_USEC = integer(0, 1_000_000, "a period from 1000 to 1000000 microseconds")
WEIGHT = integer(0, 1000, "a weight from 10 to 1000")


def is_version(value: str) -> bool:
    """Tell whether ``value`` is a semantic version whose major number is 1."""
    core = value.partition("+")[0].partition("-")[0].split(".")
    return len(core) == 3 and core[0] == "1" and all(is_digits(part) for part in core)


def is_absolute(value: str) -> bool:
    """Tell whether ``value`` is an absolute path."""
    return value.startswith("/")


def is_absolute_or_empty(value: str) -> bool:
    """Tell whether ``value`` is an absolute path or not set."""
    return not value or value.startswith("/")


def is_hostname(value: str) -> bool:
    """Tell whether the kernel takes ``value`` as a name: 64 bytes, sethostname(2)."""
    return len(value.encode("utf-8", "surrogateescape")) <= 64 and value.isprintable()


def is_variable(value: str) -> bool:
    """Tell whether ``value`` is NAME=value."""
    return value.find("=") > 0


def is_cpu_list(value: str) -> bool:
    """Tell whether ``value`` is a list of numbers, or not set."""
    try:
        return not value or bool(parse_cpuset(value, limit=CPU_MAX))
    except JailError:
        return False


def is_access(value: str) -> bool:
    """Tell whether ``value`` is made of r, w and m, each once."""
    return len(value) <= 3 and len(set(value)) == len(value) and not value.strip("rwm")


def is_page_size(value: str) -> bool:
    """Tell whether ``value`` is the size of a huge page as the kernel's file names have it."""
    return value[-2:] in ("KB", "MB", "GB") and is_digits(value[:-2]) and int(value[:-2]) > 0


def is_cgroup_file(value: str) -> bool:
    """Tell whether ``value`` is the name of a cgroup v2 control file."""
    return "." in value.strip(".") and "/" not in value and "\n" not in value


def has_no_parent(value: str) -> bool:
    """Tell whether ``value`` is a path without a ``..`` in it."""
    return ".." not in value.split("/")


TEXT = text()
NAME = text("a name", bool)
ABSOLUTE = text("an absolute path", is_absolute)
ABSOLUTE_OR_EMPTY = text("an absolute path", is_absolute_or_empty)
TEXTS = array(TEXT)
ENVIRONMENT = array(text("a variable as NAME=value", is_variable))
CPU_LIST = text("a list of numbers, as 0-1,3", is_cpu_list)
ID_MAPPINGS = array(
    record(
        {"containerID": UINT32, "hostID": UINT32, "size": integer(1, 2**32 - 1)},
        *("containerID", "hostID", "size"),
    )
)

_CAPABILITY_SET = array(
    one_of(*CAPABILITIES, valid="a capability of Linux, as CAP_NET_RAW, see capabilities(7)")
)
PROCESS = record(
    {
        "cwd": ABSOLUTE,
        "args": array(TEXT, least=1),
        "user": record(
            {
                "uid": ID,
                "gid": ID,
                "umask": integer(0, 0o777, "a mask from 0 to 511 (octal 777)"),
                "additionalGids": array(ID),
            }
        ),
        "terminal": boolean,
        "consoleSize": record(
            {"height": integer(0, 65535), "width": integer(0, 65535)}, "height", "width"
        ),
        "env": ENVIRONMENT,
        "capabilities": record(
            dict.fromkeys(
                ("bounding", "effective", "inheritable", "permitted", "ambient"), _CAPABILITY_SET
            )
        ),
        "rlimits": array(
            record(
                {
                    "type": one_of(*(f"RLIMIT_{name.upper()}" for name in RLIMITS)),
                    "soft": UINT64,
                    "hard": UINT64,
                },
                *("type", "soft", "hard"),
            )
        ),
        "noNewPrivileges": boolean,
        "apparmorProfile": TEXT,
        "selinuxLabel": TEXT,
        "oomScoreAdj": integer(-1000, 1000),
        "scheduler": record(
            {
                "policy": one_of(*SCHEDULER_POLICIES),
                "nice": integer(-20, 19),
                "priority": integer(0, 99),
                "flags": array(one_of(*SCHEDULER_FLAGS)),
                "runtime": UINT64,
                "deadline": UINT64,
                "period": UINT64,
            },
            "policy",
        ),
        "ioPriority": record(
            {
                "class": one_of("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
                "priority": integer(0, 7),
            },
            *("class", "priority"),
        ),
        "execCPUAffinity": record({"initial": CPU_LIST, "final": CPU_LIST}),
    },
    "cwd",
)

_MOUNT = record(
    {
        "destination": text("a path", bool),
        "type": TEXT,
        "source": TEXT,
        "options": TEXTS,
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
    },
    "destination",
)
_HOOKS = array(
    record(
        {
            "path": ABSOLUTE,
            "args": TEXTS,
            "env": ENVIRONMENT,
            "timeout": integer(1, 2**31 - 1, "a number of seconds above 0"),
        },
        "path",
    )
)

_THROTTLE = array(
    record(
        {"major": DEVICE_NUMBER, "minor": DEVICE_NUMBER, "rate": UINT64},
        *("major", "minor", "rate"),
    )
)
RESOURCES = record(
    {
        "devices": array(
            record(
                {
                    "allow": boolean,
                    "type": one_of("a", "c", "b", "u", empty=True),
                    "major": RULE_NUMBER,
                    "minor": RULE_NUMBER,
                    "access": text("made of r, w and m", is_access),
                },
                "allow",
            )
        ),
        "memory": record(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), LIMIT),
                "swappiness": integer(0, 100),
                "disableOOMKiller": boolean,
                "useHierarchy": boolean,
                "checkBeforeUpdate": boolean,
            }
        ),
        "cpu": record(
            {
                "shares": UINT64,
                "quota": integer(-1, INT64 - 1, "a number of microseconds, or -1 for no limit"),
                "burst": UINT64,
                "period": PERIOD_USEC,
                "realtimeRuntime": integer(-1, INT64 - 1),
                "realtimePeriod": UINT64,
                "cpus": CPU_LIST,
                "mems": CPU_LIST,
                "idle": integer(0, 1),
            }
        ),
        "pids": record({"limit": integer(-1, INT64 - 1, "a number, or -1 for no limit")}, "limit"),
        "blockIO": record(
            {
                "weight": WEIGHT,
                "leafWeight": WEIGHT,
                "weightDevice": array(
                    record(
                        {
                            "major": DEVICE_NUMBER,
                            "minor": DEVICE_NUMBER,
                            "weight": WEIGHT,
                            "leafWeight": WEIGHT,
                        },
                        *("major", "minor"),
                    )
                ),
                "throttleReadBpsDevice": _THROTTLE,
                "throttleWriteBpsDevice": _THROTTLE,
                "throttleReadIOPSDevice": _THROTTLE,
                "throttleWriteIOPSDevice": _THROTTLE,
            }
        ),
        "hugepageLimits": array(
            record(
                {
                    "pageSize": text("the size of a huge page, as 2MB or 1GB", is_page_size),
                    "limit": UINT64,
                },
                *("pageSize", "limit"),
            )
        ),
        "network": record(
            {
                "classID": UINT32,
                "priorities": array(record({"name": NAME, "priority": UINT32}, "name", "priority")),
            }
        ),
        "rdma": mapping(record({"hcaHandles": UINT32, "hcaObjects": UINT32}), "a device"),
        "unified": mapping(TEXT, "the name of a cgroup file, as memory.high", is_cgroup_file),
    }
)
SECCOMP = record(
    {
        "defaultAction": one_of(*SECCOMP_ACTIONS),
        "defaultErrnoRet": integer(0, 4095),
        "architectures": array(one_of(*SECCOMP_ARCHES)),
        "flags": array(one_of(*SECCOMP_FLAGS)),
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "syscalls": array(
            record(
                {
                    "names": array(text("the name of a system call", bool), least=1),
                    "action": one_of(*SECCOMP_ACTIONS),
                    "errnoRet": integer(0, 4095),
                    "args": array(
                        record(
                            {
                                "index": integer(0, 5),
                                "value": UINT64,
                                "valueTwo": UINT64,
                                "op": one_of(*SECCOMP_OPERATORS),
                            },
                            *("index", "value", "op"),
                        )
                    ),
                },
                *("names", "action"),
            )
        ),
    },
    "defaultAction",
)
_LINUX = record(
    {
        "namespaces": array(
            record({"type": one_of(*NAMESPACES), "path": ABSOLUTE_OR_EMPTY}, "type")
        ),
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "timeOffsets": mapping(
            record({"secs": integer(-INT64, INT64 - 1), "nanosecs": integer(0, 999_999_999)}),
            "monotonic or boottime",
            ("monotonic", "boottime").__contains__,
        ),
        "devices": array(
            record(
                {
                    "type": one_of("c", "b", "u", "p"),
                    "path": ABSOLUTE,
                    "major": DEVICE_NUMBER,
                    "minor": DEVICE_NUMBER,
                    "fileMode": UINT32,
                    "uid": ID,
                    "gid": ID,
                },
                *("type", "path"),
            )
        ),
        "netDevices": mapping(record({"name": TEXT}), "an interface"),
        "cgroupsPath": text("a path without ..", has_no_parent),
        "resources": RESOURCES,
        "rootfsPropagation": one_of(*PROPAGATIONS, empty=True),
        "maskedPaths": array(ABSOLUTE),
        "readonlyPaths": array(ABSOLUTE),
        "mountLabel": TEXT,
        "seccomp": SECCOMP,
        "sysctl": mapping(TEXT, "the name of a kernel parameter"),
        "personality": record({"domain": one_of("LINUX", "LINUX32"), "flags": TEXTS}, "domain"),
        "intelRdt": record(
            {
                **dict.fromkeys(("closID", "schemata", "l3CacheSchema", "memBwSchema"), TEXT),
                "enableCMT": boolean,
                "enableMBM": boolean,
            }
        ),
    }
)
CONFIG = record(
    {
        "ociVersion": text("a version of the specification that begins with 1.", is_version),
        "root": record({"path": text("a path", bool), "readonly": boolean}, "path"),
        "process": PROCESS,
        "mounts": array(_MOUNT),
        "hostname": text("a host name of at most 64 bytes", is_hostname),
        "domainname": text("a domain name of at most 64 bytes", is_hostname),
        "hooks": record(
            dict.fromkeys(
                (
                    *("prestart", "createRuntime", "createContainer", "startContainer"),
                    *("poststart", "poststop"),
                ),
                _HOOKS,
            )
        ),
        "annotations": mapping(TEXT),
        "linux": _LINUX,
        "jailrun": EXTENSIONS,
    },
    "ociVersion",
)
