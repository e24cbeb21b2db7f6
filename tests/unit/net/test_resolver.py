"""What dnsmasq is told, the files that it reads, and which process it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jailrun.errors import UnsupportedError
from jailrun.net import daemon, resolver
from jailrun.net.definition import make_folder, run_folder

if TYPE_CHECKING:
    from jailrun.net.definition import Definition


def make_definition(**values: object) -> Definition:
    """Return the definition of a network."""
    definition: Definition = {
        "name": "default", "driver": "bridge", "link": "jailrun0", "parent": "",
        "subnet": "10.87.0.0/16", "gateway": "10.87.0.1", "subnet6": "fd87::/64",
        "gateway6": "fd87::1", "reserved": [], "mtu": 0, "internal": False, "isolate": False,
        "created": 0.0,
    }  # fmt: skip
    definition.update(values)  # type: ignore[typeddict-item]
    return definition


def test_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the gateways only, asking whom the host asks; names without a dot stay here."""
    path = tmp_path / "resolv.conf"
    path.touch()
    monkeypatch.setattr(resolver, "RESOLV_CONF", str(path))
    folder = run_folder("default")
    assert resolver.format_arguments(make_definition()) == [
        "--conf-file=/dev/null",
        f"--pid-file={folder}/resolver.pid",
        "--bind-interfaces",
        "--listen-address=10.87.0.1",
        "--listen-address=fd87::1",
        "--no-hosts",
        f"--hostsdir={folder}/hosts",
        "--domain-needed",
        "--rev-server=10.87.0.0/16",
        "--rev-server=fd87::/64",
        "--cache-size=1000",
        f"--resolv-file={path}",
    ]


def test_arguments_of_an_internal_network() -> None:
    """Nobody is asked, and every name that is not known does not exist."""
    arguments = resolver.format_arguments(make_definition(internal=True, subnet6="", gateway6=""))
    assert arguments[-2:] == ["--no-resolv", "--local=/#/"]
    assert not any("fd87" in argument for argument in arguments)


@pytest.mark.parametrize("target", ["missing/resolv.conf", "loop"])
def test_arguments_where_the_host_has_no_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str
) -> None:
    """dnsmasq would refuse to start with a link to a folder that is not there."""
    path = tmp_path / "loop"
    path.symlink_to(target)
    monkeypatch.setattr(resolver, "RESOLV_CONF", str(path))
    assert resolver.format_arguments(make_definition())[-1] == "--no-resolv"


def test_tops() -> None:
    """The hierarchies by which an init system knows its units, where we are below their tops."""
    mounts = (
        "30 20 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "31 20 0:27 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd\n"
        "32 20 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "33 20 0:29 / /proc rw - proc proc rw\n"
    )
    unit = "/system.slice/web.service"
    assert daemon.find_tops(f"1:name=systemd:{unit}\n4:memory:{unit}\n0::{unit}\n", mounts) == [
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/systemd",
    ]
    assert daemon.find_tops(f"1:name=systemd:/\n4:memory:{unit}\n0::/\n", mounts) == []
    assert daemon.find_tops(f"0::{unit}\n", "") == []


class TestNames:
    """The files that dnsmasq reads."""

    @pytest.fixture(autouse=True)
    def hosts(self, no_real_system_calls: None, own_folders: None) -> Path:
        """Return their folder, which the start of dnsmasq makes."""
        folder = Path(run_folder("default"), "hosts")
        make_folder(str(folder), 0o755)
        return folder

    def add(self, jail: str, *names: str, addresses: tuple[str, ...] = ("10.87.0.2",)) -> None:
        """Add a jail."""
        resolver.add_names(make_definition(), jail, names, addresses)

    def test_one_line_for_each_address(self, hosts: Path) -> None:
        """Each name once, whatever its letters."""
        self.add("web", "web", "Web.Example", "WEB", addresses=("10.87.0.2", "", "fd87::2"))
        text = "10.87.0.2 web web.example\nfd87::2 web web.example\n"
        assert (hosts / "web").read_text() == text
        assert (hosts / "web").stat().st_mode & 0o777 == 0o644
        assert [file.name for file in hosts.iterdir()] == ["web"]

    def test_names_that_nobody_can_ask_for(self, hosts: Path) -> None:
        """They are left out; a jail with no other is not in."""
        self.add("web", "x" * 64, "localhost", "a..b", "web")
        assert (hosts / "web").read_text() == "10.87.0.2 web\n"
        self.add("x" * 64, "x" * 64)
        assert [file.name for file in hosts.iterdir()] == ["web"]

    def test_the_name_of_another(self, hosts: Path) -> None:
        """A host name does not take what is asked of the jail of that name."""
        self.add("db", "db")
        self.add("web", "web", "db")
        assert (hosts / "web").read_text() == "10.87.0.2 web\n"
        self.add("db", "db", addresses=("10.87.0.3",))
        assert (hosts / "db").read_text() == "10.87.0.3 db\n"

    def test_removed(self, hosts: Path) -> None:
        """As often as asked."""
        self.add("web", "web")
        (hosts / ".web").touch()  # of a start that was killed
        resolver.remove_names(make_definition(), "web")
        resolver.remove_names(make_definition(), "web")
        assert list(hosts.iterdir()) == []


class TestProcess:
    """Which process is the resolver."""

    @pytest.fixture
    def folder(self, own_folders: None) -> Path:
        """Return the network's folder."""
        folder = Path(run_folder("default"))
        make_folder(str(folder), 0o711)
        return folder

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "start_time": 0}'])
    def test_damaged_notes(self, folder: Path, text: str) -> None:
        """They name nobody."""
        (folder / "resolver.json").write_text(text)
        (folder / "resolver.pid").write_text("x")
        assert resolver.find_process(make_definition()) == 0

    @pytest.mark.parametrize("pid", ["1", "0", "-1", "999999999999", str(os.getpid())])
    def test_pid_of_another(self, folder: Path, pid: str) -> None:
        """The file is the resolver's own to write: what it says is not believed."""
        (folder / "resolver.pid").write_text(f"{pid}\n")
        (folder / "resolver.json").write_text(f'{{"pid": {pid}, "start_time": 0}}')
        assert resolver.find_process(make_definition()) == 0
        resolver.stop(make_definition())
        assert list(folder.iterdir()) == []

    def test_dnsmasq_is_missing(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """The package, and what works without it."""
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setattr(resolver, "FOLDERS", ())
        with pytest.raises(UnsupportedError) as raised:
            resolver.ensure_running(make_definition())
        assert "dnsmasq-base" in str(raised.value.hint)
        assert "--net none" in str(raised.value.hint)

    def test_unused(self, folder: Path) -> None:
        """Whoever has an address is a member; without members nothing is left."""
        (folder / "leases").mkdir()
        (folder / "leases" / "10.87.0.2").symlink_to("web")
        (folder / "resolver.json").touch()
        resolver.stop_if_unused(make_definition())
        assert (folder / "resolver.json").exists()
        (folder / "leases" / "10.87.0.2").unlink()
        resolver.stop_if_unused(make_definition())
        assert not (folder / "resolver.json").exists()
