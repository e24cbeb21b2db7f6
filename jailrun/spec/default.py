"""What a jail is when nothing else is said: safe.

Owns: `default_config` and the lists it is made of.  Each loosening has a name, which
`jailrun.spec.compile` knows.  Out of scope: the seccomp profile (`jailrun.security`), which the
engine fills in where ``jailrun.seccomp`` is "default".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.spec.model import Config, DeviceRule, Mount, Namespace

OCI_VERSION = "1.2.1"
USER_RANGE = 65536  # ids of one jail
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Docker's fourteen less three.  NET_RAW: forged packets and sniffing ("allow raw-sockets"); ping
# works without it where net.ipv4.ping_group_range lets it.  MKNOD: in a user namespace it makes no
# device, without one it makes any ("allow mknod").  AUDIT_WRITE: lines in the host's audit log,
# which has no namespace ("allow audit").
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

# All but time: a jail has the host's clocks unless it is asked for others.
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")

# What moby masks today: kernel secrets, hardware counters (side channels: PLATYPUS and its
# followers), and what configures hardware.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

# Documentation/admin-guide/devices.txt; None is every minor number
_DEVICES: tuple[tuple[int, int | None], ...] = (
    (1, 3),  # null
    (1, 5),  # zero
    (1, 7),  # full
    (1, 8),  # random
    (1, 9),  # urandom
    (5, 0),  # tty
    (5, 1),  # console
    (5, 2),  # ptmx
    (136, None),  # pts
)

_MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)


def default_mounts() -> list[Mount]:
    """Return the mounts of every jail, in order."""
    return [
        {"destination": destination, "type": kind, "source": source, "options": list(options)}
        for destination, kind, source, options in _MOUNTS
    ]


def default_device_rules() -> list[DeviceRule]:
    """Return the allow-list of devices: none, and then those that every program expects."""
    rules: list[DeviceRule] = [{"allow": False, "access": "rwm"}]
    for major, minor in _DEVICES:
        rule: DeviceRule = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def default_namespaces() -> list[Namespace]:
    """Return the namespaces of every jail."""
    return [{"type": kind} for kind in NAMESPACES]  # type: ignore[typeddict-item]


def default_config() -> Config:
    """Return a new config of a safe jail that runs ``sh`` in the folder ``rootfs``."""
    return {
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0, "umask": 0o022},
            "args": ["sh"],
            "env": [PATH],
            "cwd": "/",
            "capabilities": {
                "bounding": list(CAPABILITIES),
                "effective": list(CAPABILITIES),
                "permitted": list(CAPABILITIES),
            },
            "noNewPrivileges": True,
        },
        "mounts": default_mounts(),
        "linux": {
            "namespaces": default_namespaces(),
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": USER_RANGE}],
            "gidMappings": [{"containerID": 0, "hostID": 0, "size": USER_RANGE}],
            "resources": {"devices": default_device_rules()},
            "rootfsPropagation": "private",
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
        "jailrun": {"user_range": "auto", "id_shift": "idmap", "seccomp": "default"},
    }
