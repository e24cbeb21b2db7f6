"""The namespaces facility: which are made, joined by path or inherited, and what is set in them.

Owns: clone flags, joins, the user namespace's id maps, host and domain name, time offsets.
Out of scope: what is mounted (`jailrun.rootfs`) and the network's links (`jailrun.net`).

The order, and why:

1. namespaces of others are joined first, while we are still root of the host and may;
   the user namespace is the last of them, since joining it gives those rights up;
2. who joins a pid namespace, or sets the clocks of a new time namespace, is not in it: only his
   children are.  The rest of the program goes on in one (`Lane.split`);
3. our own namespaces are made by that same clone, so that our user namespace owns them;
4. the cgroup namespace is made after the cgroups were joined: its root is where we are then.
"""

from __future__ import annotations

import errno
import os

from jailrun.errors import NamespaceError
from jailrun.kernel import constants as c
from jailrun.kernel.program import Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.program import Program, Slot
    from jailrun.spec.model import Config, IDMapping

# OCI's names, in the order of joining.
FLAGS = {
    "network": c.CLONE_NEWNET,
    "ipc": c.CLONE_NEWIPC,
    "uts": c.CLONE_NEWUTS,
    "cgroup": c.CLONE_NEWCGROUP,
    "time": c.CLONE_NEWTIME,
    "pid": c.CLONE_NEWPID,
    "mount": c.CLONE_NEWNS,
    "user": c.CLONE_NEWUSER,
}
PROC_NAMES = {
    "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "time": "time",
    "pid": "pid", "mount": "mnt", "user": "user",
}  # fmt: skip


class Namespaces:
    """What a config says of namespaces: ``own`` by clone flags, ``joined`` by path."""

    __slots__ = ("joined", "own")

    def __init__(self, config: Config) -> None:
        self.own = 0
        self.joined: dict[str, str] = {}
        for namespace in config.get("linux", {}).get("namespaces", []):
            if namespace.get("path"):
                self.joined[namespace["type"]] = namespace["path"]
            else:
                self.own |= FLAGS[namespace["type"]]

    def has_own(self, kind: str) -> bool:
        """Return whether the jail gets a new namespace of this OCI type."""
        return bool(self.own & FLAGS[kind])

    @property
    def clone_flags(self) -> int:
        """The flags of the clone that makes the payload's process; see rule 4 for what is not."""
        return self.own & ~(c.CLONE_NEWCGROUP | c.CLONE_NEWTIME)

    @property
    def splits(self) -> bool:
        """Whether the first child is not the one that becomes the payload; see rule 2."""
        return bool(self.joined) or self.has_own("time")

    @property
    def spawn_flags(self) -> int:
        """The flags of the first clone."""
        return 0 if self.splits else self.clone_flags


def plan_joins(config: Config, program: Program, namespaces: Namespaces) -> None:
    """Add steps 1 and 2; the first clone has been made by the executor."""
    program.enter("namespaces")
    child = program.child
    for kind in FLAGS:
        path = namespaces.joined.get(kind)
        if path:
            fd = program.before.open(path, os.O_RDONLY, what=f"open the {kind} namespace")
            child.setns(
                fd,
                FLAGS[kind],
                what=f"join the {kind} namespace",
                object=path,
                hint=f"{path} must be of type {kind}, as /proc/PID/ns/{PROC_NAMES[kind]} is",
            )
    if namespaces.has_own("time"):
        child.unshare(c.CLONE_NEWTIME, what="make the time namespace")
        offsets = format_time_offsets(config)
        if offsets:
            child.write_file(
                "/proc/self/timens_offsets",
                offsets,
                what="set the clock offsets",
                hint="an offset must leave the clock above zero",
            )


def plan_split(program: Program, namespaces: Namespaces) -> None:
    """Add step 3 where the first clone could not do it; what is done before it is done as root."""
    if namespaces.splits:
        program.enter("namespaces")
        # A copy of the memory, not a share: a time namespace cannot be entered with a shared one.
        program.child.split(namespaces.clone_flags, what="make the namespaces")


def plan_cgroup_namespace(program: Program, namespaces: Namespaces) -> None:
    """Add step 4."""
    if namespaces.has_own("cgroup"):
        program.enter("namespaces")
        program.child.unshare(c.CLONE_NEWCGROUP, what="make the cgroup namespace")


def plan_user(config: Config, program: Program, namespaces: Namespaces) -> None:
    """Add the id maps, written by the caller while the child waits."""
    if not namespaces.has_own("user"):
        return
    program.enter("namespaces")
    linux = config["linux"]
    for name, mappings in (
        ("uid_map", linux.get("uidMappings", [])),
        ("gid_map", linux.get("gidMappings", [])),
    ):
        program.attach.write_file(
            Text(f"/proc/%/{name}", program.pid),
            format_id_map(mappings),
            what=f"write the {name} of the new process",
            hint="the ranges must not overlap, and nested jails can map only what they were given",
        )


def plan_root_ids(program: Program, namespaces: Namespaces) -> None:
    """Add becoming root of the user namespace, which the child must be to mount."""
    if namespaces.has_own("user") or "user" in namespaces.joined:
        plan_become_root(program)


def plan_become_root(program: Program) -> None:
    """Add becoming root of the user namespace that the child is in."""
    program.enter("namespaces")
    what = "become root of the user namespace"
    program.child.setresgid(0, 0, 0, what=what)
    # Without setgroups in the namespace (deny, as for an unprivileged caller) there are none.
    program.child.call("setgroups", 0, 0, what=what, allow=(errno.EPERM,))
    program.child.setresuid(0, 0, 0, what=what)


def plan_names(config: Config, program: Program) -> None:
    """Add the host name and the domain name."""
    program.enter("namespaces")
    if config.get("hostname"):
        program.child.sethostname(config["hostname"], what="set the host name")
    if config.get("domainname"):
        program.child.setdomainname(config["domainname"], what="set the domain name")


def plan_sysctls(config: Config, program: Program) -> None:
    """Add the kernel parameters of the new namespaces, before /proc/sys becomes read-only."""
    program.enter("namespaces")
    for key, value in config.get("linux", {}).get("sysctl", {}).items():
        program.child.write_file(
            "/proc/sys/" + key.replace(".", "/"),
            str(value).encode(),
            what=f"set the sysctl {key} to {value}:",
            hint="only sysctls that belong to a namespace of the jail can be set for it alone",
        )


def format_id_map(mappings: list[IDMapping]) -> bytes:
    """Return the text of a uid_map or gid_map (user_namespaces(7))."""
    lines = [f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings]
    return "".join(lines).encode()


def format_time_offsets(config: Config) -> bytes:
    """Return the text of timens_offsets (time_namespaces(7))."""
    offsets = config.get("linux", {}).get("timeOffsets", {})
    lines = [f"{clock} {o.get('secs', 0)} {o.get('nanosecs', 0)}\n" for clock, o in offsets.items()]
    return "".join(lines).encode()


def namespace_paths(pid: int) -> dict[str, str]:
    """Return where a process's namespaces can be joined, by OCI type."""
    return {kind: f"/proc/{pid}/ns/{name}" for kind, name in PROC_NAMES.items()}


def plan_enter(program: Program, pidfd: Slot | int, kinds: int) -> None:
    """Add joining the namespaces ``kinds`` of a running process, in one call (Linux 5.8)."""
    if kinds == 0:
        return
    program.enter("namespaces")
    program.child.setns(pidfd, kinds, what="join the jail's namespaces")
    program.child.split(0, what="go on in the jail")


def differing(pid: int) -> int:
    """Return the clone flags of the namespaces in which ``pid`` is and we are not."""
    flags = 0
    for kind, name in PROC_NAMES.items():
        try:
            theirs = os.readlink(f"/proc/{pid}/ns/{name}")
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}"):
                continue  # a kernel without this kind
            raise NamespaceError(f"process {pid} has ended") from None
        if theirs != os.readlink(f"/proc/self/ns/{name}"):
            flags |= FLAGS[kind]
    return flags
