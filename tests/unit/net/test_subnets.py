"""Which subnet a new network gets, and which wishes are refused."""

from __future__ import annotations

from typing import Any

import pytest

from jailrun.errors import NetworkError
from jailrun.net import subnets
from jailrun.net.addresses import parse_subnet
from jailrun.net.choice import Wish
from jailrun.net.definition import make_empty
from jailrun.net.subnets import Use


def use(*texts: str) -> list[Use]:
    """Return routes to subnets."""
    return [Use(parse_subnet(text), f"the route {text} on eth0", "eth0") for text in texts]


@pytest.mark.parametrize(
    ("name", "used", "chosen"),
    [
        ("default", [], "10.87.0.0/16"),
        ("default", ["10.87.3.0/24"], "10.88.0.0/16"),
        ("default", ["10.80.0.0/12", "10.96.0.1/32"], "10.97.0.0/16"),
        ("default", ["10.0.0.0/8"], "172.24.0.0/16"),
        ("default", ["10.0.0.0/8", "172.16.0.0/12"], "192.168.128.0/24"),
        ("default", ["10.64.0.0/10", "fd00::/8"], "172.24.0.0/16"),
        ("web", [], "10.128.0.0/24"),
        ("web", ["10.128.0.0/23", "10.128.2.77/32", "10.87.0.0/16"], "10.128.3.0/24"),
        ("web", ["10.0.0.0/8"], "172.20.0.0/24"),
    ],
)
def test_first_free(name: str, used: list[str], chosen: str) -> None:
    assert str(subnets.choose_v4(name, use(*used))) == chosen


@pytest.mark.parametrize("name", ["default", "web"])
def test_nothing_free(name: str) -> None:
    used = use("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    with pytest.raises(NetworkError, match="all overlap a route of this host") as caught:
        subnets.choose_v4(name, used)
    assert "--subnet" in str(caught.value.hint)


def test_ipv6_is_unique_and_local() -> None:
    found = {str(subnets.choose_v6([])) for _ in range(50)}
    assert len(found) == 50
    for text in found:
        subnet = parse_subnet(text)
        assert subnet.prefix == 64
        assert parse_subnet("fd00::/8").overlaps(subnet)


def test_ipv6_that_is_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = iter(["00", "0000", "0001", "00", "0000", "0002"])
    monkeypatch.setattr(subnets, "_random", lambda _count: next(parts))
    assert str(subnets.choose_v6(use("fd00:0:1::/48"))) == "fd00:0:2::/64"


def test_overlap_names_what_is_there() -> None:
    used = use("10.9.0.0/16")
    with pytest.raises(NetworkError, match=r"overlaps the route 10\.9\.0\.0/16 on eth0"):
        subnets.check_free("web", parse_subnet("10.0.0.0/8"), used)
    subnets.check_free("web", parse_subnet("10.8.0.0/16"), used)
    subnets.check_free("web", parse_subnet("10.9.0.0/24"), used, "eth0")


def test_other_networks_are_in_use() -> None:
    other = make_empty("db")
    other["subnet"], other["subnet6"] = "10.9.0.0/24", "fd00:9::/64"
    used = subnets.definition_uses([other, make_empty("empty")])
    assert [str(one.subnet) for one in used] == ["10.9.0.0/24", "fd00:9::/64"]
    with pytest.raises(NetworkError, match=r"overlaps the network db \(10\.9\.0\.0/24\)"):
        subnets.check_free("web", parse_subnet("10.9.0.128/25"), used)


@pytest.mark.parametrize(
    "text", ["10.9.0.0/31", "10.9.0.1/32", "fd00::/127", "0.0.0.0/0", "2000::/3"]
)
def test_sizes(text: str) -> None:
    with pytest.raises(NetworkError, match=r"no room for a gateway|a large part of the internet"):
        subnets.check_size("web", parse_subnet(text))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"driver": "vlan"}, "there is no driver 'vlan'"),
        ({"driver": "macvlan", "subnet": "192.0.2.0/24"}, "needs --parent"),
        ({"driver": "ipvlan", "parent": "eth0"}, "needs --subnet"),
        ({"driver": "macvlan", "parent": "eth0", "subnet": "none"}, "needs --subnet"),
        ({"driver": "host-bridge", "subnet": "192.0.2.0/24"}, "needs --parent"),
        ({"parent": "eth0"}, "--parent is for macvlan, ipvlan and host-bridge"),
        (
            {"driver": "macvlan", "parent": "eth0", "subnet": "192.0.2.0/24", "internal": True},
            "--internal cannot be kept with the driver macvlan",
        ),
        (
            {"driver": "macvlan", "parent": "eth0", "subnet": "192.0.2.0/24", "isolate": True},
            "--isolate cannot be kept",
        ),
        ({"subnet": "none", "ipv6": "none"}, "it has no addresses"),
        ({"mtu": 67}, "the MTU 67 is not one from 68 to 65535"),
        ({"mtu": 65536}, "not one from 68"),
        ({"mtu": -5}, "not one from 68"),
    ],
)
def test_wishes_that_do_not_go_together(words: dict[str, Any], why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        Wish("web", **words).check()


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"internal": True, "isolate": True, "mtu": 9000},
        {"ipv6": "none"},
        {"subnet": "none"},
        {"driver": "macvlan", "parent": "eth0", "ipv6": "2001:db8::/64"},
        {"driver": "host-bridge", "parent": "br0", "subnet": "192.0.2.0/24", "isolate": True},
    ],
)
def test_wishes(words: dict[str, Any]) -> None:
    Wish("web", **words).check()
