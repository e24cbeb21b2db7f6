"""Sysctls of the host: what is written down before it is changed, and put back after."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailrun import paths
from jailrun.errors import NetworkError
from jailrun.net import forwarding

KEYS = {"ipv4": ("forwarding", "accept_redirects"), "ipv6": ("forwarding", "accept_ra")}


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder like /proc/sys/net, of a host that forwards nothing."""
    root = tmp_path / "sys"
    for version, keys in KEYS.items():
        for link in ("all", "default", "lo", "eth0"):
            folder = root / version / "conf" / link
            folder.mkdir(parents=True)
            for key in keys:
                (folder / key).write_text("1\n" if key.startswith("accept") else "0\n")
    (root / "ipv4" / "ip_forward").write_text("0\n")
    monkeypatch.setattr(forwarding, "ROOT", str(root))
    return root


def read(root: Path) -> dict[str, str]:
    """Return all values."""
    return {
        str(path.relative_to(root)): path.read_text().strip()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_switched_on_and_put_back(sysctls: Path) -> None:
    before = read(sysctls)
    assert not forwarding.is_changed()
    assert forwarding.switch_on()
    assert not forwarding.switch_on()
    assert forwarding.is_changed()
    now = read(sysctls)
    assert now["ipv4/ip_forward"] == now["ipv6/conf/all/forwarding"] == "1"
    assert now["ipv6/conf/eth0/accept_ra"] == "2"
    # What the kernel does by itself.
    (sysctls / "ipv4/conf/all/accept_redirects").write_text("0")
    (sysctls / "ipv4/conf/eth0/forwarding").write_text("1")
    assert forwarding.put_back([])
    assert read(sysctls) == before
    assert not forwarding.is_changed()
    assert not forwarding.put_back([])
    assert list(Path(paths.network_runs_dir()).iterdir()) == []


def test_host_that_forwards_is_left_alone(sysctls: Path) -> None:
    for name in forwarding.SWITCHES:
        (sysctls / name).write_text("1\n")
    before = read(sysctls)
    assert not forwarding.switch_on()
    assert not forwarding.is_changed()
    assert read(sysctls) == before


def test_only_the_family_that_is_changed_is_put_back(sysctls: Path) -> None:
    (sysctls / "ipv4/ip_forward").write_text("1\n")
    assert forwarding.switch_on()
    (sysctls / "ipv4/conf/eth0/forwarding").write_text("1")
    assert forwarding.put_back([])
    assert read(sysctls)["ipv4/conf/eth0/forwarding"] == "1"
    assert read(sysctls)["ipv6/conf/all/forwarding"] == "0"


def test_what_was_first_is_what_is_put_back(sysctls: Path) -> None:
    before = read(sysctls)
    forwarding.switch_on()
    (sysctls / "ipv4/ip_forward").write_text("0\n")  # by the admin
    assert forwarding.switch_on()
    assert forwarding.put_back([])
    assert read(sysctls) == before


def test_choice_of_the_admin_stays(sysctls: Path) -> None:
    forwarding.switch_on()
    (sysctls / "ipv6/conf/eth0/accept_ra").write_text("0\n")
    assert forwarding.put_back([])
    assert read(sysctls)["ipv6/conf/eth0/accept_ra"] == "0"
    assert read(sysctls)["ipv6/conf/lo/accept_ra"] == "1"


def test_bridge_of_another_program_keeps_forwarding_on(sysctls: Path) -> None:
    forwarding.switch_on()
    assert not forwarding.put_back(["docker0"])
    assert read(sysctls)["ipv4/ip_forward"] == "1"
    assert forwarding.put_back(["eth0"])  # it was there before
    assert read(sysctls)["ipv4/ip_forward"] == "0"


def test_interface_that_went_away_is_passed_over(sysctls: Path) -> None:
    forwarding.switch_on()
    for path in (sysctls / "ipv6/conf/eth0").iterdir():
        path.unlink()
    assert forwarding.put_back([])


def test_kernel_without_ipv6(sysctls: Path) -> None:
    (sysctls / "ipv6").rename(sysctls / "gone")
    assert not forwarding.has_ipv6()
    assert forwarding.switch_on()
    assert forwarding.put_back([])
    assert read(sysctls)["ipv4/ip_forward"] == "0"


def test_damaged_memory_changes_nothing(sysctls: Path) -> None:
    forwarding.switch_on()
    Path(paths.network_runs_dir(), "forwarding.json").write_text("{")
    assert not forwarding.put_back([])
    assert read(sysctls)["ipv4/ip_forward"] == "1"


def test_sysctls_that_cannot_be_written(sysctls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sysctls / "ipv4/ip_forward").unlink()
    (sysctls / "ipv4/ip_forward").mkdir()
    monkeypatch.setattr(forwarding, "_read", lambda _name: "0")
    with pytest.raises(NetworkError, match=r"cannot set net\.ipv4\.ip_forward to 1") as caught:
        forwarding.switch_on()
    assert "--net none" in str(caught.value.hint)
    assert not forwarding.is_changed()


def test_bridge_of_ours(sysctls: Path) -> None:
    for version, keys in {
        "ipv4": ("forwarding", "route_localnet", "send_redirects"),
        "ipv6": ("disable_ipv6", "forwarding", "accept_ra"),
    }.items():
        folder = sysctls / version / "conf" / "jailrun0"
        folder.mkdir()
        for key in keys:
            (folder / key).write_text("7\n")
    forwarding.configure_bridge("jailrun0", internal=False, ipv6=True)
    now = {key: value for key, value in read(sysctls).items() if "jailrun0" in key}
    assert now == {
        "ipv4/conf/jailrun0/forwarding": "1",
        "ipv4/conf/jailrun0/route_localnet": "1",
        "ipv4/conf/jailrun0/send_redirects": "0",
        "ipv6/conf/jailrun0/disable_ipv6": "0",
        "ipv6/conf/jailrun0/forwarding": "1",
        "ipv6/conf/jailrun0/accept_ra": "0",
    }
    forwarding.configure_bridge("jailrun0", internal=True, ipv6=False)
    now = read(sysctls)
    assert now["ipv4/conf/jailrun0/forwarding"] == "0"
    assert now["ipv6/conf/jailrun0/disable_ipv6"] == "1"
