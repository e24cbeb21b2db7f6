"""Findings about the host, from what the probes say."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest

from jailrun.kernel import constants as c
from jailrun.server import check, trial
from jailrun.server.finding import Finding, install


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-13-amd64", (6, 1)), ("5.19", (5, 19)), ("6.18.44-fc-v657", (6, 18)), ("odd", (0, 0))],
)
def test_release(release: str, version: tuple[int, int]) -> None:
    assert check.parse_release(release) == version


def test_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.release", lambda: "5.10.0-8-amd64")
    found = {one.subject: one for one in check.check_machine()}
    assert found["kernel"].state == "missing"
    assert "5.19" in found["kernel"].hint


def test_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MACHINE", "mips64")
    found = {one.subject: one for one in check.check_machine()}
    assert found["machine"].state == "missing"


def refuse(monkeypatch: pytest.MonkeyPatch, flag: int, number: int) -> dict[str, Finding]:
    """Return the findings on a host that refuses one kind of namespace."""

    def try_namespace(asked: int) -> None:
        if asked == flag:
            raise OSError(number, "it does not work")

    monkeypatch.setattr(trial, "try_namespace", try_namespace)
    return {one.subject: one for one in check.check_namespaces()}


def test_namespaces_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found = refuse(monkeypatch, -1, 0)
    assert len(found) == 8
    assert {one.state for one in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("flag", "number", "sysctls", "hint"),
    [
        (c.CLONE_NEWUSER, errno.ENOSPC, {}, "sysctl -w user.max_user_namespaces=65536"),
        (c.CLONE_NEWNS, errno.ENOSPC, {}, "sysctl -w user.max_mnt_namespaces=65536"),
        (c.CLONE_NEWPID, errno.EINVAL, {}, "boot a kernel with CONFIG_PID_NS"),
        (c.CLONE_NEWNET, errno.EPERM, {}, "run it outside of this container"),
        (c.CLONE_NEWUSER, errno.EPERM, {}, "run it outside of this container"),
        (
            c.CLONE_NEWUSER,
            errno.EPERM,
            {"kernel.unprivileged_userns_clone": "0"},
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            c.CLONE_NEWUSER,
            errno.EACCES,
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_namespace_that_is_refused(
    monkeypatch: pytest.MonkeyPatch, flag: int, number: int, sysctls: dict[str, str], hint: str
) -> None:
    monkeypatch.setattr(check, "read_sysctl", lambda name: sysctls.get(name, ""))
    bad = [one for one in refuse(monkeypatch, flag, number).values() if one.state != "ok"]
    assert [one.state for one in bad] == ["missing"]
    assert bad[0].hint.startswith(hint)
    assert "it does not work" in bad[0].detail


def test_time_namespace_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = refuse(monkeypatch, c.CLONE_NEWTIME, errno.EINVAL)
    assert found["time namespace"].state == "warning"


class Capabilities:
    """A set of capabilities that lacks some."""

    def __init__(self, *lacking: str) -> None:
        self.lacking = lacking

    def __getattr__(self, name: str) -> bool:
        return name not in self.lacking


class Prctl:
    """What python-prctl says of a process."""

    def __init__(self, *lacking: str, noroot: bool = False) -> None:
        self.cap_effective = Capabilities(*lacking)
        self.securebits: Any = Capabilities(*([] if noroot else ["noroot"]))


@pytest.mark.parametrize(
    ("host", "states"),
    [
        (Prctl(), {"capabilities": "ok"}),
        (Prctl("sys_admin"), {"CAP_SYS_ADMIN": "missing"}),
        (Prctl("sys_resource"), {"CAP_SYS_RESOURCE": "warning", "capabilities": "ok"}),
        (Prctl(noroot=True), {"securebits": "missing", "capabilities": "ok"}),
    ],
)
def test_capabilities(monkeypatch: pytest.MonkeyPatch, host: Prctl, states: dict[str, str]) -> None:
    monkeypatch.setitem(sys.modules, "prctl", host)
    assert {one.subject: one.state for one in check.check_capabilities()} == states


def test_cgroups_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        {"subject": "cgroups", "state": "ok", "detail": "v1", "hint": ""},
        {"subject": "memory", "state": "missing", "detail": "no", "hint": "boot"},
        {"subject": "/sys/fs/cgroup/x", "state": "broken", "detail": "no", "hint": "mount"},
    ]
    monkeypatch.setattr("jailrun.cgroups.check.check_host", lambda: said)
    found = [(one.subject, one.state) for one in check.check_cgroups()][:3]
    assert found == [
        ("cgroups", "ok"),
        ("cgroup memory", "warning"),
        ("/sys/fs/cgroup/x", "missing"),
    ]


def test_others_than_root_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    findings = check.check_host()
    assert findings[0] == Finding("root", "missing", "jailrun runs as root", "sudo jailrun check")
    assert not check.can_run(findings)
    assert not any("namespace" in one.subject for one in findings)


def test_what_is_missing_decides() -> None:
    assert check.can_run([Finding("a", "ok", ""), Finding("b", "warning", "")])
    assert not check.can_run([Finding("a", "ok", ""), Finding("b", "missing", "")])


@pytest.mark.parametrize("present", [True, False])
def test_install(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: "/x" if present else None)
    assert install("debootstrap").startswith("apt-get install" if present else "install what")
