"""docs/reference/default-jail.md says what a default jail can see and do: it is made from here.

JAILRUN_UPDATE_DOCS=1 writes the page anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailrun.security.capabilities import mask_names
from tests.integration.jails import Probe, Reports
from tests.probes.probe import probe_names

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "default-jail.md"
HEAD = """\
# What a default jail can see and do

Root of a jail that was started without options but `--net none`, as the probe program
(`tests/probes/probe.c`) reports it from inside; in a network it has `eth0`, too. A test compares
this page with what it sees; it is written anew by
`JAILRUN_UPDATE_DOCS=1 bin/test tests/integration/engine/test_default_jail.py`.

"""
# What depends on the kernel of the machine, not on us.
KERNELS_OWN = {"x32_getpid", "ioperm", "iopl", "int80_getpid", "int80_socketcall"}
SEEN = """\
## What it sees

| | |
|---|---|
"""
ATTEMPTS = """
## What it can do

`yes` is an attempt that succeeds; otherwise the error is named.

| attempt | result |
|---|---|
"""


def format_page(seen: Reports, attempts: list[str]) -> str:
    """Return the page."""
    ids, status, system = seen["ids"], seen["status"], seen["system"]
    mounts = sorted({f"`{one['target']}` ({one['type']})" for one in seen["mounts"]["mounts"]})
    bounding = status.mask("CapBnd")
    rows = {
        "user and group": f"{ids['uid']}:{ids['gid']}, no additional groups",
        "processes": f"only its own, it is {ids['pid']}",
        "ids": f"{ids['uid_map'].split()[2]} of its own, unprivileged on the host",
        "capabilities": ", ".join(f"`{name}`" for name in mask_names(bounding)),
        "new privileges": "none" if status["NoNewPrivs"] == "1" else "possible",
        "seccomp": "filtered" if status["Seccomp"] == "2" else "not filtered",
        "network interfaces": ", ".join(f"`{name}`" for name in sorted(system["interfaces"])),
        "devices": ", ".join(f"`{name}`" for name in sorted(system["devices"])),
        "open descriptors": ", ".join(sorted(seen["fds"]["open"])),
        "mounts": ", ".join(mount for mount in mounts if "/probe" not in mount),
    }
    text = HEAD + SEEN + "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    text += ATTEMPTS
    for name in attempts:
        if name not in KERNELS_OWN:
            text += f"| {name} | {seen[name].error or 'yes'} |\n"
    return text


@pytest.mark.requires("x86_64")
def test_page(probe: Probe, probe_program: Path) -> None:
    """The page says what the probe sees."""
    page = format_page(probe(), probe_names(probe_program, attempts=True))
    # Which hierarchies, and which of the masked paths, there are is the host's affair.
    if os.environ.get("JAILRUN_UPDATE_DOCS") == "1":
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page)
    assert drop_mounts(PAGE.read_text()) == drop_mounts(page)


def drop_mounts(page: str) -> list[str]:
    """Return the lines of a page but for the row of the mounts."""
    return [line for line in page.splitlines() if not line.startswith("| mounts |")]


def test_promises(probe: Probe, probe_program: Path) -> None:
    """What must never be possible, whatever the page says."""
    seen = probe("attempts")
    forbidden = {
        *("mknod_open_mem", "mknod_open_kmsg", "mknod_open_sda", "mknod_open_loop"),
        *("open_dev_mem", "open_dev_kmsg", "open_sysrq", "open_core_pattern"),
        *("open_sys_hugepage", "open_sys_uevent", "open_irq", "open_overcommit"),
        *("mount_tmpfs", "mount_proc", "mount_sysfs", "mount_cgroup2", "remount_proc_sys"),
        *("umount_proc", "chroot_escape", "unshare_user", "unshare_mount", "unshare_net"),
        *("clone_user", "clone3_user", "socket_raw", "socket_packet", "socket_vsock"),
        *("reboot", "kexec_load", "init_module", "finit_module", "delete_module", "swapon"),
        *("settimeofday", "keyctl", "add_key", "bpf", "perf_event_open", "userfaultfd"),
        *("io_uring_setup", "open_by_handle_at", "tiocsti", "tiocsti_upper", "raise_nofile"),
        *("sched_fifo", "nice_up", "syslog", "acct", "quotactl"),
    }
    possible = {name for name in forbidden & set(seen) if seen[name].works}
    assert possible == set()
    assert len(forbidden & set(seen)) > 40
