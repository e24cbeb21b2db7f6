"""SIGKILL at each step of what makes and removes networks and jails in them.

The next command puts things right: no lease, rule, link or resolver stays.  The operations of a
start are the same for both executors, and `test_kill` has them run by both.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names
from jailrun.errors import JailError
from jailrun.kernel.execute import reap
from jailrun.net import definition, networks
from tests.faults import steps
from tests.faults.test_kill import kill_at_each_step, start
from tests.integration.host import read_folders, read_links, read_processes, read_rules
from tests.integration.jails import Build, Config, Jails, eventually, new_name

MORE_CHANGES = (
    *("bind", "connect", "listen", "socket", "send", "sendto", "sendmsg", "recv", "recvfrom"),
    *("utime", "replace", "readlink", "kill", "posix_spawn", "waitpid", "ioctl", "link"),
)


@pytest.fixture(autouse=True)
def executor(own_folders: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take the native executor alone, and count what networks do besides."""
    monkeypatch.setenv("JAILRUN_EXECUTOR", "native")
    monkeypatch.setattr(steps, "CHANGES", steps.CHANGES | set(MORE_CHANGES))
    return "native"


@pytest.fixture
def networked(config: Build) -> Config:
    """Return the config of a jail with all that a network can have for it."""
    built = config("sh", "-c", "while :; do sleep 1000; done")
    built["jailrun"] = {
        **built["jailrun"],
        "networks": [
            {"network": "default", "name": "eth0", "rate_in": 10**6, "rate_out": 10**6},
        ],
        "publish": [
            {
                "protocol": "tcp",
                "host_address": "",
                "host_port": 8080,
                "jail_port": 80,
                "count": 1,
            }
        ],
        "firewall": [
            {
                "action": "deny",
                "direction": "in",
                "protocol": "tcp",
                "address": "",
                "port": 9,
                "last_port": 9,
            }
        ],
        "names": {},
    }
    return built


class Nothing:
    """What there was of networks before the first jail; after each kill it is the same again."""

    def __init__(self) -> None:
        self.before = self.read()

    def read(self) -> dict[str, set[str]]:
        """Return what a jail in a network has on the host."""
        files = {one for one in read_folders() if "/networks/" in one}
        ours = {one for one in read_processes() if one.endswith(" dnsmasq")}
        return {"file": files, "rule": read_rules(), "link": read_links(), "resolver": ours}

    def assert_again(self, last: int) -> None:
        """Fail where something stays."""
        assert list_names() == [], f"killed after {last} steps"
        eventually(lambda: self.read() == self.before, f"nothing is left after {last} steps")


def assert_port_is_free() -> None:
    """Take the published port, and give it back."""
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 8080))


@pytest.mark.parametrize("attached", [True, False])
def test_start(jails: Jails, networked: Config, attached: bool) -> None:
    """A start that dies anywhere; a jail of the background may live, and is removed."""
    name, nothing = new_name(), Nothing()

    def after(last: int) -> None:
        lifecycle.recover()
        for one in list_names():
            assert not attached, f"killed after {last} steps"
            lifecycle.delete(one, force=True)
        nothing.assert_again(last)
        assert_port_is_free()

    def work() -> None:
        pidfd = start(networked, name, attached=attached, remove=True)
        if not attached:
            os.close(pidfd)

    count = kill_at_each_step(work, after, stride=2)
    assert count > 40


@pytest.mark.parametrize("running", [True, False])
def test_delete(jails: Jails, networked: Config, running: bool) -> None:
    """A removal that was cut short is taken up by the next one."""
    name, nothing = new_name(), Nothing()
    if not running:
        networked["process"]["args"] = ["true"]

    def prepare() -> None:
        pidfd = start(networked, name)
        if not running:
            lifecycle.finish(name, reap(pidfd))

    def after(last: int) -> None:
        lifecycle.recover()
        for one in list_names():
            lifecycle.delete(one, force=True)
        nothing.assert_again(last)

    kill_at_each_step(lambda: lifecycle.delete(name, force=True), after, prepare=prepare, stride=2)


@pytest.fixture
def no_networks(
    leaves_host_as_it_was: None,
    own_folders: Path,
    session_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Be a new installation, with the images of the session."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(session_data / "images")
    monkeypatch.setenv("JAILRUN_DATA", str(data))
    monkeypatch.setenv("JAILRUN_RUN", str(own_folders / "fresh"))
    yield
    with contextlib.suppress(JailError):
        networks.remove("default")


def test_first_use(no_networks: None, jails: Jails) -> None:
    """The default network is half made: the next use makes it whole, and removes it whole."""
    links, rules = read_links(), read_rules()

    def after(last: int) -> None:
        networks.ensure("default")
        link = definition.load("default")["link"]
        assert link in read_links(), f"killed after {last} steps"
        networks.remove("default")
        assert read_links() == links, f"killed after {last} steps"
        assert read_rules() == rules, f"killed after {last} steps"

    networks.ensure("default")  # imports what takes long, once for all
    networks.remove("default")
    kill_at_each_step(lambda: networks.ensure("default"), after, stride=3)


def test_removal(no_networks: None, jails: Jails) -> None:
    """The network is half removed: it can be used again, and removed."""
    links, rules = read_links(), read_rules()

    def after(last: int) -> None:
        networks.ensure("default")
        networks.remove("default")
        assert read_links() == links, f"killed after {last} steps"
        assert read_rules() == rules, f"killed after {last} steps"

    kill_at_each_step(
        lambda: networks.remove("default"),
        after,
        prepare=lambda: networks.ensure("default"),
        stride=3,
    )
