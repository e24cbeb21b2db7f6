"""Which jails need a view, whose it is, and what the kernel is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from jailrun.net import definition as definitions
from jailrun.net import leases, resolver, views
from jailrun.net.definition import make_folder, run_folder
from tests.unit.net.test_resolver import make_definition

if TYPE_CHECKING:
    from collections.abc import Callable


def network(*nics: tuple[str, str, bool], devices: int = 0) -> Any:
    """Return what a record says: network, driver, internal."""
    keys = ("network", "driver", "internal")
    return {
        "nics": [dict(zip(keys, nic, strict=True)) for nic in nics],
        "devices": [{}] * devices,
        "firewall": [],
    }


A, B = ("a", "bridge", False), ("b", "bridge", False)
INNER, DEEPER = ("inner", "bridge", True), ("deeper", "bridge", True)
STREET = ("street", "macvlan", False)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (network(), ""),
        (network(A), ""),
        (network(INNER), ""),
        (network(A, A), ""),
        (network(STREET), ""),
        (network(STREET, A), ""),
        (network(A, devices=1), ""),
        (network(A, B), "a/b+-open"),
        (network(B, STREET, A), "b/a+-open"),
        (network(A, INNER), "a/inner+-open"),
        (network(INNER, DEEPER), "inner/deeper+-internal"),
        (network(INNER, STREET), "inner/-open"),
        (network(INNER, devices=1), "inner/-open"),
    ],
)
def test_who_needs_one(found: Any, name: str) -> None:
    """Who is in several networks of ours, or may ask outside where the only one may not."""
    view = views.find(found)
    assert (f"{view.first}/{view.name}" if view else "") == name


def test_many_networks() -> None:
    """The name of a folder has an end."""
    many = [(f"network-{number:03}", "bridge", False) for number in range(100)]
    first, second = views.find(network(*many)), views.find(network(*many[:-1]))
    assert first and second
    assert len(first.name) == len(second.name) == 16
    assert first.name != second.name


@pytest.mark.parametrize("kind", ["RTM_NEWADDR", "RTM_DELADDR"])
@pytest.mark.parametrize("address", ["10.87.0.9", "fd87::9"])
def test_message(kind: str, address: str) -> None:
    """As pyroute2 reads it: one address, which works at once, and is nobody's first choice."""
    number = {"RTM_NEWADDR": 20, "RTM_DELADDR": 21}[kind]
    message = ifaddrmsg(views.format_message(number, 7, address))
    message.decode()
    assert message["header"]["type"] == number
    assert (message["index"], message["prefixlen"]) == (7, 128 if ":" in address else 32)
    assert message.get_attr("IFA_LOCAL") == message.get_attr("IFA_ADDRESS") == address
    times = message.get_attr("IFA_CACHEINFO")
    assert (times["ifa_preferred"], times["ifa_valid"]) == (0, views.FOREVER)


class TestUsers:
    """Who has the address, without a process or a bridge."""

    @pytest.fixture
    def changed(
        self, no_real_system_calls: None, own_folders: None, monkeypatch: pytest.MonkeyPatch
    ) -> list[tuple[int, str]]:
        """Return what was done with addresses; there are the networks a and b."""
        done: list[tuple[int, str]] = []

        def change(kind: int, _link: str, address: str) -> None:
            done.append((kind, address))

        monkeypatch.setattr(views, "_change_address", change)
        monkeypatch.setattr(resolver, "stop", lambda _definition: None)
        for name in "ab":
            definitions.save(make_definition(name=name))
            make_folder(run_folder(name), 0o711)
            leases.open_book(name)
        return done

    @pytest.fixture
    def view(self, changed: object) -> views.View:
        """Return the view of a and b."""
        return views.View(["a", "b"], internal=False)

    @pytest.fixture
    def join(self, view: views.View) -> Callable[[str], str]:
        """Return what makes a jail a member, and a user."""

        def add(jail: str) -> str:
            leases.take_free(make_definition(name="a"), jail, "eth0")
            view.join(jail)
            return view.read_address()

        return add

    def test_shared(self, view: views.View, join: Callable[[str], str]) -> None:
        """The address stays from the first to the last, whoever leaves first."""
        address = join("one")
        assert join("two") == join("three") == address
        assert leases.holder_of("a", address) == "one"
        view.leave("one")
        assert leases.holder_of("a", address) == "three"
        view.leave("three")
        view.leave("three")
        assert leases.holder_of("a", address) == "two"
        view.leave("two")
        assert leases.holder_of("a", address) is None
        assert not Path(run_folder("a"), "views").exists()
        view.leave("two")

    def test_joined_again(self, view: views.View, join: Callable[[str], str]) -> None:
        """`jailrun repair` changes nothing of what is there."""
        address = join("one")
        view.join("one")
        assert view.read_address() == address

    def test_users_that_are_gone(
        self, view: views.View, join: Callable[[str], str], changed: list[tuple[int, str]]
    ) -> None:
        """Who has no lease is none; the address of a dead view is taken from the bridge."""
        address = join("killed")
        leases.release("a", "killed")
        leases.take("a", address, "other")  # by somebody who knows nothing of it
        assert join("one") != address
        assert (views.RTM_DELADDR, address) in changed
        assert leases.holder_of("a", address) == "other"
        view.leave("one")
        assert not Path(view.folder).exists()

    def test_lease_that_was_freed(self, view: views.View, join: Callable[[str], str]) -> None:
        """The next who comes holds the address that the others know."""
        address = join("killed")
        join("one")
        leases.release("a", "killed")
        assert join("two") == address
        assert leases.holder_of("a", address) == "two"

    def test_killed_before_it_was_written_down(
        self, view: views.View, join: Callable[[str], str]
    ) -> None:
        """The record knows the names of the networks alone."""
        join("one")
        found = views.find(network(("a", "", False), ("b", "", False)))
        assert found
        found.leave("one")
        assert not Path(view.folder).exists()

    def test_definition_removed_by_hand(self, view: views.View, join: Callable[[str], str]) -> None:
        address = join("one")
        definitions.remove("a")
        view.leave("one")
        assert not Path(view.folder).exists()
        assert leases.holder_of("a", address) is None

    def test_nothing_left(self, view: views.View, join: Callable[[str], str]) -> None:
        join("one")
        leases.release("a", "one")
        views.end_all(make_definition(name="a"))
        assert not Path(run_folder("a"), "views").exists()

    def test_rules(self, view: views.View, join: Callable[[str], str]) -> None:
        """Questions are allowed where something is not."""
        found = network(A, B)
        join("one")
        assert view.allow_questions(found) is found
        rule: Any = {"action": "deny", "direction": "out"}
        found["firewall"] = [rule]
        denied, question = view.allow_questions(found)["firewall"]
        assert denied == rule
        assert (question["action"], question["address"]) == ("allow", view.read_address())
        assert (question["port"], question["last_port"]) == (53, 53)
