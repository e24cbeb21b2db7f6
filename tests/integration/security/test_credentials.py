"""The last steps before exec, really made: what the payload then is and can do.

No namespaces here: what is refused is refused by this facility alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EPERM
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from jailrun.errors import UnsupportedError
from jailrun.kernel.execute import Execution, reap
from jailrun.kernel.operation import OperationError
from jailrun.kernel.program import Program
from jailrun.security import limits, plan, profile, seccomp
from jailrun.security.capabilities import NUMBERS, capability_mask, read_permitted
from jailrun.spec.default import CAPABILITIES
from tests.probes.probe import Report, build_probe, parse_probe

SECONDS = 30


@pytest.fixture(scope="session")
def probe() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    with TemporaryDirectory(prefix="jailrun-probe-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield build_probe(folder)


@pytest.fixture(params=["native", "ctypes"], autouse=True)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setenv("JAILRUN_EXECUTOR", request.param)


class Runner:
    """Runs the probe as the payload of a process with some configuration."""

    def __init__(self, probe: Path, folder: Path) -> None:
        self.probe = probe
        self.folder = folder

    def __call__(self, *names: str, filtered: bool = True, **process: Any) -> dict[str, Report]:
        allowed = list(process.pop("names", CAPABILITIES))
        keys = ("bounding", "effective", "permitted")
        process.setdefault("capabilities", {key: allowed for key in keys})
        process.setdefault("noNewPrivileges", True)
        allow = process.pop("allow", [])
        config = {
            "process": process,
            "jailrun": {"seccomp": "default" if filtered else "unconfined", "allow": allow},
        }
        filter_bytes = seccomp.load_config_filter(config, str(self.folder / "cache"))
        output = self.folder / "output"
        program = Program()
        out = program.before.open(str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        program.child.dup3(out, 1)
        program.child.wait_for_caller()
        facts = plan.read_facts(config)
        plan.plan_limits(config, program, facts)
        plan.plan_credentials(config, program, facts, filter_bytes=filter_bytes)
        # The descriptor that the executor reports on is close-on-exec, and so is the file's own.
        program.child.announce_exec()
        program.child.execve(str(self.probe), ["probe", *names], ["A=b"])
        execution = Execution(program)
        execution.run_before()
        try:
            execution.spawn()
            assert execution.wait(SECONDS) is False
            execution.run_attach()
            execution.go()
            assert execution.wait(SECONDS) is True
            assert reap(execution.pidfd) == 0
            execution.pidfd = -1
        except BaseException:
            execution.abandon()
            raise
        finally:
            execution.close_opened()
        return parse_probe(output.read_text())


@pytest.fixture
def run(probe: Path, tmp_path: Path) -> Runner:
    return Runner(probe, tmp_path)


def test_capabilities_are_exactly_those(run: Runner) -> None:
    status = run("status")["status"]
    wanted = capability_mask(CAPABILITIES)
    sets = [status.mask(key) for key in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")]
    assert sets == [wanted, wanted, wanted, 0, 0]
    assert status["NoNewPrivs"] == "1"
    assert (status["Seccomp"], status["Seccomp_filters"]) == ("2", "1")
    assert status["Umask"] == "0022"


def test_without_anything(run: Runner) -> None:
    status = run("status", filtered=False, names=[], noNewPrivileges=False)["status"]
    assert [status.mask(key) for key in ("CapBnd", "CapPrm", "CapEff")] == [0, 0, 0]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "0")


def test_other_user_has_no_capability_but_the_ambient_ones(run: Runner) -> None:
    user = {"uid": 1000, "gid": 100, "additionalGids": [5, 6], "umask": 0o77}
    seen = run("ids", "status", user=user)
    ids, status = seen["ids"], seen["status"]
    assert [ids[key] for key in ("uid", "euid", "suid")] == [1000] * 3
    assert [ids[key] for key in ("gid", "egid", "sgid", "groups")] == [100, 100, 100, [5, 6]]
    assert [status.mask(key) for key in ("CapPrm", "CapEff")] == [0, 0]
    assert status["Umask"] == "0077"
    held = {key: ["CAP_KILL"] for key in ("bounding", "effective", "permitted")}
    ambient = held | {"inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    status = run("status", user=user, capabilities=ambient)["status"]
    sets = [status.mask(key) for key in ("CapPrm", "CapEff", "CapInh", "CapAmb")]
    assert sets == [1 << NUMBERS["CAP_KILL"]] * 4


def test_filter_without_no_new_privs(run: Runner) -> None:
    status = run("status", noNewPrivileges=False, user={"uid": 1000, "gid": 1000})["status"]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


REFUSED = {
    **dict.fromkeys(
        [
            *("mount_tmpfs", "mount_proc", "umount_proc", "pivot_root", "unshare_user"),
            *("unshare_mount", "unshare_net", "clone_user", "setns_own_net", "sethostname"),
            *("setdomainname", "reboot", "kexec_load", "init_module", "finit_module", "swapon"),
            *("delete_module", "swapoff", "acct", "quotactl", "syslog", "settimeofday", "keyctl"),
            *("add_key", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "sched_fifo"),
            *("open_by_handle_at", "fanotify_init", "tiocsti", "tiocsti_upper", "socket_packet"),
            *("socket_raw", "raise_nofile", "mknod_null", "iopl", "ioperm", "int80_socketcall"),
            "int80_unshare_user",
        ],
        "EPERM",
    ),
    **dict.fromkeys(["clone3_user", "personality_exec", "unknown_call", "x32_getpid"], "ENOSYS"),
    **dict.fromkeys(["socket_vsock", "socket_alg"], "EAFNOSUPPORT"),
    "socket_audit": "EPROTONOSUPPORT",
    "nice_up": "EACCES",
}
WORKS = [
    *("socket_inet", "socket_netlink", "unshare_fs", "personality_linux32", "ptrace_self"),
    *("mknod_fifo", "int80_getpid", "chroot", "setgroups", "kill_all", "open_dev_null"),
]


def test_default_profile_in_the_kernel(run: Runner) -> None:
    seen = run(*REFUSED, *WORKS)
    assert {name: seen[name].error for name in REFUSED if name in seen} == {
        name: error for name, error in REFUSED.items() if name in seen
    }
    assert [name for name in WORKS if name in seen and not seen[name].works] == []


@pytest.mark.parametrize(
    ("name", "attempts"),
    [
        ("keyring", ["keyctl", "add_key"]),
        ("userfaultfd", ["userfaultfd"]),
        ("personality", ["personality_exec"]),
    ],
)
def test_allowed_by_name(run: Runner, name: str, attempts: list[str]) -> None:
    seen = run(*attempts, allow=[name])
    assert [seen[attempt].error for attempt in attempts] == [""] * len(attempts)
    assert name in profile.ALLOW_NAMES


def test_session_keyring_is_a_new_one(run: Runner) -> None:
    """A key in the keyring of the caller's session is not seen, or keyrings do not exist."""
    assert run("keyctl", filtered=False, allow=[])["keyctl"].error in ("", "ENOSYS")


def test_limits(run: Runner) -> None:
    host = limits.read_host_limits()
    rlimits = [
        {"type": "RLIMIT_NOFILE", "soft": 60, "hard": 70},
        {"type": "RLIMIT_NPROC", "soft": 500, "hard": host[6][1] if host[6][1] < 2**63 else -1},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    seen = run("rlimits", rlimits=rlimits)["rlimits"]
    assert seen["RLIMIT_NOFILE"] == [60, 70]
    assert seen["RLIMIT_NPROC"] == [500, host[6][1]]
    assert seen["RLIMIT_CORE"] == [0, 0]
    assert limits.read_host_limits() == host


def test_limit_above_the_hosts(run: Runner) -> None:
    ceiling = limits.read_host_limits()[7][1]
    rlimits = [{"type": "RLIMIT_NOFILE", "soft": ceiling, "hard": ceiling + 1}]
    if read_permitted() >> NUMBERS["CAP_SYS_RESOURCE"] & 1:
        assert run("rlimits", rlimits=rlimits)["rlimits"]["RLIMIT_NOFILE"][1] == ceiling + 1
        return
    with pytest.raises(UnsupportedError, match=f"hard limit is {ceiling}"):
        limits.check_rlimits(rlimits, limits.read_host_limits(), can_raise=False)
    with pytest.raises(OperationError, match="cannot raise limit RLIMIT_NOFILE") as caught:
        run("rlimits", rlimits=rlimits)
    assert caught.value.errno == EPERM


def test_priorities(run: Runner) -> None:
    seen = run(
        "system",
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
        ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 3},
    )["system"]
    assert (seen["scheduler"], seen["nice"]) == (3, 5)
    assert seen["io_priority"] == 3 << 13 | 3


def test_descriptors(run: Runner) -> None:
    fds = run("fds")["fds"]["open"]
    assert set(fds) <= {"0", "1", "2"}
