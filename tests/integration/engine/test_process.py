"""What the payload is: ids, groups, capabilities, limits, filter; each as the config says."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from jailrun.errors import JailError, SecurityError, UnsupportedError
from jailrun.security.capabilities import SETS, capability_mask
from jailrun.spec.default import CAPABILITIES as DEFAULT_CAPABILITIES
from tests.integration.jails import Build, Jails, Probe


def test_default_rights(probe: Probe) -> None:
    """Root of the jail: eleven capabilities, no new privileges, a filter."""
    seen = probe("ids", "status")
    assert (seen["ids"]["uid"], seen["ids"]["gid"], seen["ids"]["groups"]) == (0, 0, [])
    expected = capability_mask(DEFAULT_CAPABILITIES)
    status = seen["status"]
    assert [status.mask(f"Cap{kind}") for kind in ("Bnd", "Eff", "Prm", "Inh", "Amb")] == [
        *(expected, expected, expected, 0, 0)
    ]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (seen["ids"]["pid"], seen["ids"]["ppid"], seen["ids"]["sid"]) == (1, 0, 1)


def test_exact_capabilities(probe: Probe) -> None:
    """Each set is what the config says, for a user who is not root, too."""
    sets = {
        "bounding": ["CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_CHOWN"],
        "permitted": ["CAP_NET_BIND_SERVICE", "CAP_KILL"],
        "effective": ["CAP_NET_BIND_SERVICE"],
        "inheritable": ["CAP_NET_BIND_SERVICE"],
        "ambient": ["CAP_NET_BIND_SERVICE"],
    }
    user = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}
    seen = probe("ids", "status", process={"user": user, "capabilities": sets})
    ids, status = seen["ids"], seen["status"]
    assert {ids[key] for key in ("uid", "euid", "suid")} == {1000}
    assert {ids[key] for key in ("gid", "egid", "sgid")} == {1001}
    assert ids["groups"] == [5, 6]
    assert status.mask("CapBnd") == capability_mask(sets["bounding"])
    # The exec of a program without file capabilities keeps the ambient ones.
    assert status.mask("CapPrm") == status.mask("CapEff") == capability_mask(sets["ambient"])
    assert status.mask("CapAmb") == status.mask("CapInh") == capability_mask(sets["ambient"])


def test_no_capabilities(probe: Probe) -> None:
    """None at all."""
    seen = probe("status", process={"capabilities": {kind: [] for kind in SETS}})["status"]
    assert [seen.mask(f"Cap{kind}") for kind in ("Bnd", "Eff", "Prm", "Inh", "Amb")] == [0] * 5


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o027])
def test_umask(probe: Probe, umask: int) -> None:
    """The payload's own."""
    user = {"uid": 0, "gid": 0, "umask": umask}
    assert int(probe("status", process={"user": user})["status"]["Umask"], 8) == umask


def test_privileges_allowed(probe: Probe) -> None:
    """Without no_new_privs, and without a filter, where the config says so."""
    seen = probe("status", process={"noNewPrivileges": False})["status"]
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("0", "2")
    seen = probe("status", process={"noNewPrivileges": False}, jailrun={"seccomp": None})["status"]
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("0", "0")


def test_seccomp_of_the_config(probe: Probe) -> None:
    """A call that the profile forbids gets the errno that it names."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}],
    }
    seen = probe("chroot", "status", linux={"seccomp": profile}, jailrun={"seccomp": None})
    assert seen["chroot"].error == "EPROTO"
    assert seen["status"]["Seccomp"] == "2"


def test_default_seccomp(probe: Probe) -> None:
    """What no jail needs is not there."""
    names = ("keyctl", "bpf", "kexec_load", "init_module", "clone_user", "mount_tmpfs")
    seen = probe(*names)
    assert len(seen) == len(names)
    assert all(not report.works for report in seen.values())


def test_rlimits(probe: Probe) -> None:
    """Soft and hard, set as asked for; the others stay as they are."""
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 20},
    ]
    seen = probe("rlimits", process={"rlimits": limits})["rlimits"]
    assert seen["RLIMIT_NOFILE"] == [100, 200]
    assert seen["RLIMIT_CORE"] == [0, 0]
    assert seen["RLIMIT_FSIZE"] == [1 << 20] * 2
    host = resource.getrlimit(resource.RLIMIT_STACK)
    assert seen["RLIMIT_STACK"] == [value % 2**64 for value in host]


def test_rlimit_above_the_hosts(jails: Jails, config: Build) -> None:
    """A hard limit that cannot be raised is an error that says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard + 1}]
    try:
        ended = jails.run(config("sh", "-c", "ulimit -Hn", process={"rlimits": limits}))
    except UnsupportedError as error:
        assert "RLIMIT_NOFILE" in str(error)
        assert error.hint
    else:
        assert ended.lines == [str(hard + 1)]  # this host lets us


@pytest.mark.requires("x86_64")
def test_personality(jails: Jails, config: Build) -> None:
    """A 32-bit machine, to who asks."""
    linux = {"personality": {"domain": "LINUX32"}}
    assert jails.run(config("uname", "-m", linux=linux)).stdout.strip() == "i686"


def test_oom_score(probe: Probe) -> None:
    """A score above the caller's can be given, one below is an error without the right."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    seen = probe("system", process={"oomScoreAdj": min(own + 200, 1000)})["system"]
    assert int(seen["oom_score_adj"]) == min(own + 200, 1000)
    assert int(Path("/proc/self/oom_score_adj").read_text()) == own
    try:
        seen = probe("system", process={"oomScoreAdj": own - 1})["system"]
    except UnsupportedError as error:
        assert "oomScoreAdj" in str(error)
    else:
        assert int(seen["oom_score_adj"]) == own - 1


def test_scheduler(probe: Probe) -> None:
    """Niceness and I/O priority."""
    process = {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
    }
    seen = probe("system", process=process)["system"]
    assert (seen["scheduler"], seen["nice"]) == (3, 5)
    assert seen["io_priority"] >> 13 == 3


def test_init(jails: Jails, config: Build) -> None:
    """With init the payload is PID 2, orphans are reaped, and its status is the jail's."""
    command = "echo $$; cat /proc/1/comm; (true &) ; exit 4"
    ended = jails.run(config("sh", "-c", command, jailrun={"init": True}))
    assert ended.status == 4
    assert ended.lines[0] == "2"
    assert "jailrun" in ended.lines[1]
    assert jails.run(config("no-such-program", jailrun={"init": True})).status == 127
    assert jails.run(config("/etc", jailrun={"init": True})).status == 126
    assert jails.run(config("sh", "-c", "kill -9 $$", jailrun={"init": True})).status == 137


def test_init_cannot_be_written(jails: Jails, config: Build) -> None:
    """Our program in memory is not the jail's to change."""
    command = "echo x >/proc/1/exe; (echo x >/proc/1/mem) 2>/dev/null; cat /proc/1/comm"
    ended = jails.run(config("sh", "-c", command, jailrun={"init": True}))
    assert ended.status == 0
    assert "/proc/1/exe" in ended.stderr


def test_caller_is_not_traceable(jails: Jails, config: Build) -> None:
    """While and after a jail runs, the caller can be looked into as before."""
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    assert os.access(f"/proc/{os.getpid()}/mem", os.R_OK)
    assert Path(f"/proc/{os.getpid()}/maps").read_text()
    running.wait()


def test_unknown_label(jails: Jails, config: Build) -> None:
    """An AppArmor profile on a kernel without it is refused."""
    if Path("/sys/kernel/security/apparmor").is_dir():
        with pytest.raises((SecurityError, JailError), match="AppArmor"):
            jails.run(config("true", process={"apparmorProfile": "jrt-no-such-profile"}))
    else:
        with pytest.raises(UnsupportedError, match="apparmorProfile"):
            jails.run(config("true", process={"apparmorProfile": "x"}))
