"""Whether this host can run jails, and what to type where it cannot.

Owns: `check_host`, the findings but for those about cgroups (`jailrun.cgroups.check`)
and networks (`jailrun.server.check_networks`).  Out of
scope: printing them; the probes themselves (`jailrun.server.trial`).

A finding is ``ok``, ``warning`` (jails run, and something cannot be had) or ``missing`` (none can).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from jailrun import paths
from jailrun.cgroups import check as cgroup_check
from jailrun.cgroups.hierarchy import read_hierarchies
from jailrun.engine.monitor import MONITOR
from jailrun.errors import JailError
from jailrun.kernel import constants as c
from jailrun.kernel.constants import MACHINE
from jailrun.server import trial
from jailrun.server.check_networks import check_networks
from jailrun.server.finding import Finding, State, install

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_KERNEL = (5, 19)  # overlayfs on id-mapped layers
MACHINES = ("x86_64", "aarch64")
BUILD = "bin/setup"
# Kind, clone flag, sysctl that limits them, kernel option, whether every jail needs it.
NAMESPACES = (
    ("user", c.CLONE_NEWUSER, "user", "USER_NS", True),
    ("pid", c.CLONE_NEWPID, "pid", "PID_NS", True),
    ("network", c.CLONE_NEWNET, "net", "NET_NS", True),
    ("ipc", c.CLONE_NEWIPC, "ipc", "IPC_NS", True),
    ("uts", c.CLONE_NEWUTS, "uts", "UTS_NS", True),
    ("mount", c.CLONE_NEWNS, "mnt", "NAMESPACES", True),
    ("cgroup", c.CLONE_NEWCGROUP, "cgroup", "CGROUPS", True),
    ("time", c.CLONE_NEWTIME, "time", "TIME_NS", False),
)
# Without these no jail can be made; python-prctl's names.
NEEDED_CAPABILITIES = ("sys_admin", "setuid", "setgid", "chown", "dac_override", "kill")
# With what goes missing.
USEFUL_CAPABILITIES = {
    "sys_resource": "a jail cannot have rlimits above ours, nor a better OOM score",
    "sys_ptrace": "processes of a jail cannot be inspected",
    "net_admin": "no network can be set up on the host",
    "mknod": "devices cannot be made for jails without a user namespace",
    "setpcap": "the capabilities of a jail without a user namespace cannot be bounded",
}
TOOLS = (
    ("apt-get", "apt", "images cannot be built from packages; image import still works"),
    ("dpkg-deb", "dpkg", "images cannot be built from packages; image import still works"),
    ("debootstrap", "debootstrap", "images of whole distributions, as debian, cannot be built"),
)


def check_host() -> list[Finding]:
    """Return all findings; those that need root are left out for others."""
    findings = [*check_machine(), *check_programs()]
    if os.geteuid():
        return [Finding("root", "missing", "jailrun runs as root", "sudo jailrun check"), *findings]
    findings += check_capabilities()
    findings += check_namespaces()
    findings += check_cgroups()
    findings += check_networks()
    findings += check_files()
    return findings


def can_run(findings: list[Finding]) -> bool:
    """Return whether jails can run on a host with these findings."""
    return all(finding.state != "missing" for finding in findings)


# --- kernel and programs --------------------------------------------------------------------------
def check_machine() -> Iterator[Finding]:
    """Yield what is found of the processor and the kernel."""
    release = platform.release()
    wanted = ".".join(map(str, OLDEST_KERNEL))
    if parse_release(release) >= OLDEST_KERNEL:
        yield Finding("kernel", "ok", f"Linux {release}")
    else:
        detail = f"Linux {release} is older than {wanted}: no overlays on id-mapped layers"
        yield Finding("kernel", "missing", detail, f"boot Linux {wanted} or later")
    if MACHINE in MACHINES:
        yield Finding("machine", "ok", MACHINE)
    else:
        hint = f"jailrun runs on {' and '.join(MACHINES)}"
        yield Finding("machine", "missing", f"{MACHINE} is not supported", hint)
    if Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        yield Finding("seccomp", "ok", "system call filters")
    else:
        hint = "boot a kernel with CONFIG_SECCOMP_FILTER"
        yield Finding("seccomp", "missing", "the kernel has no system call filters", hint)


def parse_release(release: str) -> tuple[int, int]:
    """Return major and minor version of a kernel: ``6.1.0-13-amd64`` is (6, 1)."""
    numbers = release.split("-")[0].split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return 0, 0


def check_programs() -> Iterator[Finding]:
    """Yield what is found of our own native part, libraries and tools."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        detail = "libseccomp.so.2 is not there: system call filters cannot be compiled"
        yield Finding("libseccomp", "missing", detail, install("libseccomp2"))
    else:
        yield Finding("libseccomp", "ok", "compiles system call filters")
    if find_spec("jailrun.kernel._execute"):
        yield Finding("native executor", "ok", "starts jails without copying our memory")
    else:
        detail = "not built: starts are slower, and slower still from large programs"
        yield Finding("native executor", "warning", detail, BUILD)
    if os.access(MONITOR, os.X_OK):
        yield Finding("init and monitor", "ok", "--init and --detach")
    else:
        detail = "not built: neither --init nor --detach, and no trial jail"
        yield Finding("init and monitor", "warning", detail, BUILD)
    for command, package, loss in TOOLS:
        path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if path:
            yield Finding(command, "ok", path)
        else:
            yield Finding(command, "warning", f"not there: {loss}", install(package))


def check_capabilities() -> Iterator[Finding]:
    """Yield what is found of our own rights, which a container's root may lack."""
    import prctl  # not where the help of all verbs is shown, which it need not be able to stop

    hint = "run it outside of this container, or give the container the capability"
    lacking = [one for one in NEEDED_CAPABILITIES if not getattr(prctl.cap_effective, one)]
    for name in lacking:
        yield Finding(f"CAP_{name.upper()}", "missing", "root does not have it here", hint)
    for name, loss in USEFUL_CAPABILITIES.items():
        if not getattr(prctl.cap_effective, name):
            yield Finding(f"CAP_{name.upper()}", "warning", f"not here: {loss}", hint)
    if prctl.securebits.noroot:
        detail = "SECBIT_NOROOT is set: root has no rights by being root"
        yield Finding("securebits", "missing", detail, "start a new login session")
    if not lacking:
        yield Finding("capabilities", "ok", "all that every jail needs")


# --- what is found out by doing -------------------------------------------------------------------
def check_namespaces() -> Iterator[Finding]:
    """Yield what comes of making a child in each kind of namespace."""
    for kind, flag, sysctl, option, needed in NAMESPACES:
        try:
            trial.try_namespace(flag)
        except OSError as error:
            detail, hint = explain_namespace(kind, error, sysctl, option)
            yield Finding(f"{kind} namespace", "missing" if needed else "warning", detail, hint)
        else:
            yield Finding(f"{kind} namespace", "ok", "can be made")


def explain_namespace(kind: str, error: OSError, sysctl: str, option: str) -> tuple[str, str]:
    """Return why a kind of namespace cannot be made, and what to type."""
    detail = f"cannot be made: {trial.explain_failure(error)}"
    if error.errno == errno.ENOSPC:
        limit = f"user.max_{sysctl}_namespaces"
        present = read_sysctl(limit)
        return f"{detail} ({limit} is {present or 'unknown'})", f"sysctl -w {limit}=65536"
    if error.errno == errno.EINVAL:
        return detail, f"boot a kernel with CONFIG_{option}"
    if kind == "user":
        for name, bad, good in (
            ("kernel.unprivileged_userns_clone", "0", "1"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ):
            if read_sysctl(name) == bad:
                return f"{detail} ({name} is {bad})", f"sysctl -w {name}={good}"
    return detail, "run it outside of this container, or loosen the container's seccomp filter"


def read_sysctl(name: str) -> str:
    """Return the value of a sysctl, empty where there is none."""
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""


def check_cgroups() -> Iterator[Finding]:
    """Yield what is found of cgroups, in our own words."""
    states: dict[str, State] = {"ok": "ok", "missing": "warning", "broken": "missing"}
    for one in cgroup_check.check_host():
        subject = one["subject"]
        name = (
            subject
            if subject in ("cgroups", "devices") or subject[0] == "/"
            else f"cgroup {subject}"
        )
        yield Finding(name, states[one["state"]], one["detail"], one["hint"])
    memory = read_hierarchies().of("memory")
    if memory and memory.version == 1:
        if Path(memory.mount, "memory.memsw.limit_in_bytes").exists():
            yield Finding("cgroup swap", "ok", "swap limits")
        else:
            hint = "boot with swapaccount=1 on the kernel command line"
            yield Finding("cgroup swap", "warning", "swap cannot be limited", hint)


def check_files() -> Iterator[Finding]:
    """Yield what comes of id-mapping the data folder, and of a whole jail in it."""
    data = paths.data_dir()
    with ExitStack() as undo:
        try:
            folder = trial.make_data_folder(undo)
        except OSError as error:
            hint = "set JAILRUN_DATA to a folder that can be written"
            yield Finding("data folder", "missing", f"{data}: {error.strerror}", hint)
            return
        kind = read_file_system(folder)
        space = shutil.disk_usage(folder)
        try:
            trial.try_idmap(str(folder))
        except OSError as error:
            detail = f"{data} ({kind}): {trial.explain_failure(error)}"
            hint = "set JAILRUN_DATA to a folder on ext4, xfs or btrfs"
            yield Finding("data folder", "missing", detail, hint)
        else:
            free = space.free / space.total
            state: State = "ok" if free > 0.05 else "warning"
            detail = f"{data} ({kind}): ids can be mapped, {free:.0%} are free"
            hint = "" if state == "ok" else "jailrun image prune"
            yield Finding("data folder", state, detail, hint)
        if os.access(MONITOR, os.X_OK):
            yield _check_jail(folder)


def _check_jail(folder: Path) -> Finding:
    layer = folder / "layer"
    try:
        layer.mkdir()
        trial.try_jail(layer)
    except JailError as error:
        hint = error.hint or "JAILRUN_DEBUG=1 jailrun run --rm busybox true shows more"
        return Finding("trial jail", "missing", error.message, hint)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "set JAILRUN_DATA to a folder that files can be written to"
        return Finding("trial jail", "missing", f"{where}{error.strerror}", hint)
    return Finding("trial jail", "ok", "a jail with everything was started, ended and removed")


def read_file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return "unknown file system"
