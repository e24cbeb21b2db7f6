"""The types of a config: the OCI runtime specification 1.2 for Linux, whole.

Owns: the names of all fields, as ``TypedDict`` for mypy; a config at run time is a plain dict.
Lean modules import this under ``TYPE_CHECKING`` only.  Out of scope: our extensions
(`jailrun.spec.extensions`), what values are valid (`jailrun.spec.check`), what other platforms
have (their objects are ignored).

Source: config.md and config-linux.md of opencontainers/runtime-spec v1.2.1, and netDevices of 1.3.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from jailrun.spec.extensions import Extensions

# --- config.md: process ----------------------------------------------------------------------


class ConsoleSize(TypedDict):
    """The size of the terminal, in characters."""

    height: int
    width: int


class User(TypedDict):
    """Ids of the process, as seen inside."""

    uid: int
    gid: int
    umask: NotRequired[int]
    additionalGids: NotRequired[list[int]]
    username: NotRequired[str]  # Windows only: ignored


class Capabilities(TypedDict, total=False):
    """The five sets of capabilities(7)."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """One limit of getrlimit(2); RLIM_INFINITY is 2**64 - 1."""

    type: str
    soft: int
    hard: int


class Scheduler(TypedDict):
    """Attributes of sched_setattr(2)."""

    policy: str
    nice: NotRequired[int]
    priority: NotRequired[int]
    flags: NotRequired[list[str]]
    runtime: NotRequired[int]
    deadline: NotRequired[int]
    period: NotRequired[int]


# "class" is a word of Python's
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int})


class ExecCPUAffinity(TypedDict, total=False):
    """CPUs on which an exec'd process begins and stays; since 1.2.1."""

    initial: str
    final: str


class Process(TypedDict):
    """The payload: what runs, as whom, with which rights."""

    cwd: str
    args: NotRequired[list[str]]
    user: NotRequired[User]
    terminal: NotRequired[bool]
    consoleSize: NotRequired[ConsoleSize]
    env: NotRequired[list[str]]
    commandLine: NotRequired[str]  # Windows only: ignored
    capabilities: NotRequired[Capabilities]
    rlimits: NotRequired[list[Rlimit]]
    noNewPrivileges: NotRequired[bool]
    apparmorProfile: NotRequired[str]
    selinuxLabel: NotRequired[str]
    oomScoreAdj: NotRequired[int]
    scheduler: NotRequired[Scheduler]
    ioPriority: NotRequired[IOPriority]
    execCPUAffinity: NotRequired[ExecCPUAffinity]


# --- config.md: root, mounts, hooks ------------------------------------------------------------


class Root(TypedDict):
    """The root file system."""

    path: str
    readonly: NotRequired[bool]


class IDMapping(TypedDict):
    """A range of ids inside, and where it lies outside."""

    containerID: int
    hostID: int
    size: int


class Mount(TypedDict):
    """One mount, made in the order of the list."""

    destination: str
    type: NotRequired[str]
    source: NotRequired[str]
    options: NotRequired[list[str]]
    uidMappings: NotRequired[list[IDMapping]]
    gidMappings: NotRequired[list[IDMapping]]


class Hook(TypedDict):
    """A program to run at one moment of the life cycle; ``timeout`` in seconds."""

    path: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    timeout: NotRequired[int]


class Hooks(TypedDict, total=False):
    """The hooks by moment."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


# --- config-linux.md: resources ----------------------------------------------------------------


class DeviceRule(TypedDict):
    """A line of the device allow-list; what is left out means all."""

    allow: bool
    type: NotRequired[str]
    major: NotRequired[int]
    minor: NotRequired[int]
    access: NotRequired[str]


class Memory(TypedDict, total=False):
    """Memory limits in bytes, -1 for none; ``swap`` is memory and swap together."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPU(TypedDict, total=False):
    """CPU limits, times in microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict):
    """The largest number of tasks; 0 and less mean no limit."""

    limit: int


class WeightDevice(TypedDict):
    """The share of one block device."""

    major: int
    minor: int
    weight: NotRequired[int]
    leafWeight: NotRequired[int]


class ThrottleDevice(TypedDict):
    """The rate of one block device, in bytes or operations per second."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    """Limits on block devices."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """Bytes of huge pages of one size, as 2MB."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict):
    """The net_prio value of one interface."""

    name: str
    priority: int


class Network(TypedDict, total=False):
    """The v1 controllers net_cls and net_prio."""

    classID: int
    priorities: list[InterfacePriority]


class Rdma(TypedDict, total=False):
    """Limits of one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """What the control groups enforce."""

    devices: list[DeviceRule]
    memory: Memory
    cpu: CPU
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    rdma: dict[str, Rdma]
    unified: dict[str, str]


# --- config-linux.md: the rest -----------------------------------------------------------------

NamespaceType = Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


class Namespace(TypedDict):
    """A namespace of the jail's own, or with ``path`` one that exists."""

    type: NamespaceType
    path: NotRequired[str]


class TimeOffset(TypedDict, total=False):
    """How far a clock is ahead inside."""

    secs: int
    nanosecs: int


class Device(TypedDict):
    """A device node to make."""

    type: str
    path: str
    major: NotRequired[int]
    minor: NotRequired[int]
    fileMode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]


class NetDevice(TypedDict, total=False):
    """A network interface to move in; since 1.3."""

    name: str


class SeccompArg(TypedDict):
    """A condition on one argument of a system call."""

    index: int
    value: int
    op: str
    valueTwo: NotRequired[int]


class Syscall(TypedDict):
    """A rule for some system calls."""

    names: list[str]
    action: str
    errnoRet: NotRequired[int]
    args: NotRequired[list[SeccompArg]]


class Seccomp(TypedDict):
    """The filter of system calls."""

    defaultAction: str
    defaultErrnoRet: NotRequired[int]
    architectures: NotRequired[list[str]]
    flags: NotRequired[list[str]]
    listenerPath: NotRequired[str]
    listenerMetadata: NotRequired[str]
    syscalls: NotRequired[list[Syscall]]


class IntelRdt(TypedDict, total=False):
    """Cache and memory bandwidth through resctrl."""

    closID: str
    schemata: str
    l3CacheSchema: str
    memBwSchema: str
    enableCMT: bool
    enableMBM: bool


class Personality(TypedDict):
    """The execution domain of personality(2)."""

    domain: str
    flags: NotRequired[list[str]]


class Linux(TypedDict, total=False):
    """All that is Linux's alone."""

    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: dict[str, TimeOffset]
    devices: list[Device]
    netDevices: dict[str, NetDevice]
    cgroupsPath: str
    resources: Resources
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    seccomp: Seccomp
    sysctl: dict[str, str]
    personality: Personality
    intelRdt: IntelRdt


# --- the whole ---------------------------------------------------------------------------------


class Config(TypedDict):
    """config.json."""

    ociVersion: str
    root: NotRequired[Root]
    process: NotRequired[Process]
    mounts: NotRequired[list[Mount]]
    hostname: NotRequired[str]
    domainname: NotRequired[str]
    hooks: NotRequired[Hooks]
    annotations: NotRequired[dict[str, str]]
    linux: NotRequired[Linux]
    jailrun: NotRequired[Extensions]
