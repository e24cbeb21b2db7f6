"""Leases: one holder each, the same address for the same jail, nothing that must not be given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import ConflictError, NetworkError, NotFoundError
from jailrun.net import leases
from jailrun.net.addresses import parse_subnet
from jailrun.net.definition import lock, make_empty

if TYPE_CHECKING:
    from jailrun.net.definition import Definition

ROOT = Path(__file__).resolve().parents[3]


def make_network(subnet: str = "10.9.0.0/24", subnet6: str = "fd00:9::/64") -> Definition:
    """Return a network whose addresses can be taken."""
    new = make_empty("web")
    new["subnet"], new["subnet6"] = subnet, subnet6
    new["gateway"] = parse_subnet(subnet).nth(1) if subnet else ""
    new["gateway6"] = parse_subnet(subnet6).nth(1) if subnet6 else ""
    with lock("web"):
        leases.open_book("web")
    return new


def test_same_jail_gets_the_same_addresses() -> None:
    network = make_network()
    first = leases.take_free(network, "a", "eth0")
    assert leases.holders("web") == dict.fromkeys(first, "a")
    leases.release("web", "a")
    leases.release("web", "a")
    assert leases.holders("web") == {}
    other = leases.take_free(network, "b", "eth0")
    second = leases.take_free(network, "a", "eth1")
    assert len({*first, *other, *second}) == 6
    assert leases.take_free(network, "a", "eth0") == first


def test_families_have_the_same_number() -> None:
    network = make_network("10.9.0.0/16")
    address, address6 = leases.take_free(network, "a", "eth0", address="10.9.1.10")
    assert (address, address6) == ("10.9.1.10", "fd00:9::10a")
    # The number of another's IPv6 address: the next one.
    leases.take("web", "fd00:9::10b", "b")
    assert leases.take_free(network, "c", "eth0", address="10.9.1.11")[1] == "fd00:9::10c"
    # The number of the gateway of IPv6
    network["gateway"] = "10.9.0.254"
    assert leases.take_free(network, "d", "eth0", address="10.9.0.1")[1] == "fd00:9::2"


def test_networks_of_one_family() -> None:
    address, address6 = leases.take_free(make_network(subnet6=""), "a", "eth0")
    assert address.startswith("10.9.0.")
    assert address6 == ""
    leases.release("web", "a")
    address, address6 = leases.take_free(make_network(subnet=""), "a", "eth0")
    assert address == ""
    assert address6.startswith("fd00:9::") or address6.startswith("fd00:9:0:0:")
    assert leases.take_free(make_network("", ""), "a", "eth0") == ("", "")


def test_smallest_network() -> None:
    network = make_network("10.9.0.4/30", "fd00:9::/126")
    assert leases.take_free(network, "a", "eth0") == ("10.9.0.6", "fd00:9::2")
    with pytest.raises(NetworkError, match=r"all of 10\.9\.0\.4/30 are taken") as caught:
        leases.take_free(network, "b", "eth0")
    assert "jailrun net create" in str(caught.value.hint)
    assert set(leases.holders("web").values()) == {"a"}


def test_exhausted_ipv6_gives_the_ipv4_address_back() -> None:
    network = make_network(subnet6="fd00:9::/126")
    leases.take_free(network, "a", "eth0")
    leases.take_free(network, "b", "eth0")
    with pytest.raises(NetworkError, match="IPv6 address of the network web"):
        leases.take_free(network, "c", "eth0")
    assert set(leases.holders("web").values()) == {"a", "b"}


@given(st.integers(24, 30), st.integers(0, 2**64 - 1))
def test_candidates_are_all_hosts_and_each_once(prefix: int, start: int) -> None:
    subnet = parse_subnet(f"10.9.0.0/{prefix}")
    found = list(leases._candidates(subnet, start))
    assert sorted(found) == sorted(subnet.nth(number) for number in range(1, subnet.size - 1))


def test_whole_network_is_given_out() -> None:
    network = make_network("10.9.0.0/28", "")
    network["reserved"] = ["10.9.0.7"]
    found = {leases.take_free(network, f"jail{n}", "eth0")[0] for n in range(12)}
    everything = {f"10.9.0.{number}" for number in range(1, 15)}
    assert found == everything - {"10.9.0.1", "10.9.0.7"}
    with pytest.raises(NetworkError, match="are taken"):
        leases.take_free(network, "late", "eth0")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.9.1.1", "it is not in 10.9.0.0/24"),
        ("10.9.0.1", "it is the gateway"),
        ("10.9.0.0", "it is the subnet itself"),
        ("10.9.0.255", "it is the subnet's broadcast address"),
        ("10.9.0.9", "the host has it"),
        ("fd00:9::5", "is an IPv6 address, asked for is an IPv4 one"),
        ("10.9.0.2/24", "is not an IP address"),
        ("../../x", "is not an IP address"),
    ],
)
def test_fixed_address_that_no_jail_can_have(address: str, why: str) -> None:
    network = make_network()
    network["reserved"] = ["10.9.0.9"]
    with pytest.raises(NetworkError, match=why):
        leases.take_free(network, "a", "eth0", address=address)
    assert leases.holders("web") == {}


def test_fixed_address_of_a_family_that_is_not_there() -> None:
    with pytest.raises(NetworkError, match="has no IPv6 subnet"):
        leases.take_free(make_network(subnet6=""), "a", "eth0", address6="fd00:9::5")


def test_fixed_address_of_another() -> None:
    network = make_network()
    leases.take_free(network, "a", "eth0", address="10.9.0.5", address6="fd00:9::BB")
    assert leases.holders("web") == {"10.9.0.5": "a", "fd00:9::bb": "a"}
    with pytest.raises(ConflictError, match=r"10\.9\.0\.5 of the network web: a has it"):
        leases.take_free(network, "b", "eth0", address="10.9.0.5")
    with pytest.raises(ConflictError, match="fd00:9::bb of the network web: a has it"):
        leases.take_free(network, "b", "eth0", address6="fd00:9:0::bb")
    assert set(leases.holders("web").values()) == {"a"}


def test_mac_is_a_key_like_any() -> None:
    make_network()
    leases.take("web", "02:00:00:00:00:01", "a")
    with pytest.raises(ConflictError, match="a has it"):
        leases.take("web", "02:00:00:00:00:01", "b")


def test_lease_of_another_is_not_released() -> None:
    make_network()
    leases.take("web", "10.9.0.5", "a")
    leases.take("web", "10.9.0.6", "a")
    leases.release("web", "b")
    leases.release("web", "b", ["10.9.0.5"])
    leases.release("web", "a", ["10.9.0.5", "10.9.0.7", ""])
    assert leases.holders("web") == {"10.9.0.6": "a"}


def test_address_that_is_given_back_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    make_network()
    leases.take("web", "10.9.0.5", "a")
    real = leases.holder_of

    def give_back_first(network: str, key: str) -> str | None:
        monkeypatch.setattr(leases, "holder_of", real)
        leases.release("web", "a")
        return real(network, key)

    monkeypatch.setattr(leases, "holder_of", give_back_first)
    leases.take("web", "10.9.0.5", "b")
    assert leases.holders("web") == {"10.9.0.5": "b"}


def test_stale_leases() -> None:
    make_network()
    for key, jail in (("10.9.0.5", "gone"), ("10.9.0.6", "here"), ("fd00:9::5", "gone")):
        leases.take("web", key, jail)
    assert leases.stale("web", {"here"}) == [("10.9.0.5", "gone"), ("fd00:9::5", "gone")]
    assert leases.stale("other", set()) == []


def test_removal_and_start_exclude_each_other() -> None:
    network = make_network()
    leases.take_free(network, "a", "eth0")
    with pytest.raises(ConflictError, match="the network web is in use by a") as caught:
        leases.close_book("web")
    assert "jailrun rm --force" in str(caught.value.hint)
    leases.release("web", "a")
    leases.close_book("web")
    leases.close_book("web")
    with pytest.raises(NotFoundError, match="was just removed"):
        leases.take_free(network, "a", "eth0")
    leases.release("web", "a")
    assert leases.holders("web") == {}


def test_many_users_are_not_all_named() -> None:
    make_network()
    for number in range(12):
        leases.take("web", f"10.9.0.{number + 2}", f"jail{number:02}")
    with pytest.raises(ConflictError, match=r"jail00, .*jail09 and 2 more"):
        leases.close_book("web")


def test_removal_waits_for_who_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    make_network()
    leases.take("web", "10.9.0.5", "a")
    real = leases.holders

    def give_back_first(network: str) -> dict[str, str]:
        leases.release("web", "a")
        return real(network)

    monkeypatch.setattr(leases, "holders", give_back_first)
    leases.close_book("web")
    assert not Path(leases.leases_folder("web")).exists()


def test_removal_with_a_foreign_file() -> None:
    make_network()
    Path(leases.leases_folder("web"), "notes").touch()
    with pytest.raises(NetworkError, match="that is no lease"):
        leases.close_book("web")


@pytest.mark.runs_programs
def test_processes_at_once_never_share() -> None:
    make_network("10.9.0.0/25", "")
    program = (
        "import sys\n"
        "from jailrun.net import leases\n"
        "from jailrun.net.definition import make_empty\n"
        "network = make_empty('web')\n"
        "network['subnet'], network['gateway'] = '10.9.0.0/25', '10.9.0.1'\n"
        "for number in range(40):\n"
        "    print(leases.take_free(network, f'{sys.argv[1]}-{number}', 'eth0')[0])\n"
    )
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for name in ("a", "b", "c")
    ]
    found = [line for process in running for line in process.communicate()[0].split()]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(found) == len(set(found)) == 120
