"""Networks, without a kernel: how one is found made, what of it is shown, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jailrun.errors import ConflictError, NetworkError, NotFoundError
from jailrun.net import definition, leases, making, networks
from jailrun.net.definition import make_empty

if TYPE_CHECKING:
    from jailrun.net.definition import Definition

LINKS = {"jailrun0": 7, "eth0": 2}


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return the host's links, by name; nothing is made in a unit test."""
    found = dict(LINKS)

    def number(name: str) -> int:
        if name not in found:
            raise OSError(19, "No such device")
        return found[name]

    def refuse(found: Definition) -> list[str]:
        raise AssertionError(f"made {found['name']}")

    monkeypatch.setattr(making, "if_nametoindex", number)
    monkeypatch.setattr(networks, "make", refuse)
    monkeypatch.setattr(networks, "has_rules", lambda _network: True)
    monkeypatch.setattr(networks, "unmake", refuse)
    return found


def make_network(name: str = "default") -> Definition:
    """Return a network that was made on jailrun0."""
    new = make_empty(name)
    new["link"] = "jailrun0"
    new["subnet"], new["gateway"] = "10.9.0.0/24", "10.9.0.1"
    definition.save(new)
    with definition.lock(name):
        leases.open_book(name)
        making.set_ready(name, LINKS["jailrun0"])
    return new


def test_network_that_is_made_is_found_without_more() -> None:
    network = make_network()
    assert networks.ensure("default") == network
    assert networks.list_all() == [{**network, "state": "up", "members": {}}]


def test_bridge_that_is_another_by_now_is_made_again(links: dict[str, int]) -> None:
    network = make_network()
    for gone in (8, None):
        if gone is None:
            links.pop("jailrun0")
        else:
            links["jailrun0"] = gone
        assert not making.is_ready(network)
        assert networks.read_state(network) == "damaged"
        with pytest.raises(AssertionError, match="made default"):
            networks.ensure("default")


def test_network_that_was_not_made_since_the_start_of_the_host(links: dict[str, int]) -> None:
    network = make_empty("web")
    network["link"] = "jailrun5"
    definition.save(network)
    assert networks.read_state(network) == "down"
    assert not making.was_made(network)
    assert links
    with pytest.raises(AssertionError, match="made web"):
        networks.ensure("web")


def test_network_on_a_parent() -> None:
    network = make_empty("lan")
    network["driver"], network["parent"] = "macvlan", "eth0"
    definition.save(network)
    assert not making.is_ready(network)
    assert making.make(network) == []
    assert networks.ensure("lan") == network
    leases.take("lan", "192.0.2.9", "web")


def test_parent_that_is_gone() -> None:
    network = make_empty("lan")
    network["driver"], network["parent"] = "macvlan", "eth9"
    with pytest.raises(NetworkError, match="its interface eth9 does not exist") as caught:
        making.make(network)
    assert "jailrun net rm lan" in str(caught.value.hint)


def test_unknown_network() -> None:
    with pytest.raises(NotFoundError, match="there is no network 'web'"):
        networks.ensure("web")
    with pytest.raises(NotFoundError, match="there is no network 'web'"):
        networks.remove("web")


def test_network_in_use_is_not_removed() -> None:
    network = make_network()
    leases.take_free(network, "web", "eth0", address="10.9.0.5")
    leases.take("default", "10.9.0.6", "db")
    with pytest.raises(ConflictError, match="in use by db, web"):
        networks.remove("default")
    assert networks.ensure("default") == network
    members = {"web": ["10.9.0.5"], "db": ["10.9.0.6"]}
    assert networks.list_all() == [{**network, "state": "up", "members": members}]


def test_removal_of_one_that_nobody_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network()
    unmade: list[Definition] = []
    monkeypatch.setattr(networks, "unmake", unmade.append)
    networks.remove("default")
    assert unmade == [network]
    assert definition.list_names() == []
    assert making.read_ready("default") == ""


def test_name_that_is_taken() -> None:
    make_network("web")
    with pytest.raises(ConflictError, match="there is a network web already"):
        networks.create("web")
    with pytest.raises(NetworkError, match="cannot be the name of a network"):
        networks.create("../x")


def test_new_network_that_cannot_be_made_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(found: Definition) -> list[str]:
        assert definition.exists(found["name"])  # written before anything is made
        definition.make_folder(definition.run_folder("web"), 0o711)
        raise NetworkError("no")

    monkeypatch.setattr(networks, "make", fail)
    monkeypatch.setattr(networks, "unmake", fail)
    with definition.lock_all(), pytest.raises(NetworkError, match="no"):
        networks._create(make_empty("web"))
    assert definition.list_names() == []
    assert not Path(definition.run_folder("web")).exists()


def test_repair_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    make_network("a")
    make_network("b")
    made = []

    def make(found: Definition) -> list[str]:
        made.append(found["name"])
        if found["name"] == "a":
            raise NetworkError("no")
        return ["made the bridge"]

    monkeypatch.setattr(networks, "make", make)
    with pytest.raises(NetworkError, match="no"):
        networks.repair(["a", "b"])
    assert made == ["a", "b"]
    assert networks.repair(["b"]) == ["network b: made the bridge"]


def test_network_whose_rules_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has flushed the tables: nothing keeps its jails apart."""
    network = make_network()
    monkeypatch.setattr(networks, "has_rules", lambda _network: False)
    assert networks.read_state(network) == "damaged"
