"""What a start does for a jail's interfaces, as data."""

from __future__ import annotations

import pytest

from jailrun.kernel.operation import PSEUDO, Operation
from jailrun.kernel.program import Program
from jailrun.net.links import host_mac, plan_loopback, plan_nics, plan_nics_inside
from jailrun.net.model import Network, NetworkNic


def make_nic(name: str = "eth0", **changes: object) -> NetworkNic:
    """Return an interface in a bridge network."""
    nic: NetworkNic = {
        "network": "default",
        "driver": "bridge",
        "bridge": "jailrun0",
        "parent": "",
        "link": "jr00112233ff",
        "shaper": "",
        "name": name,
        "address": "10.87.0.2",
        "prefix": 16,
        "gateway": "10.87.0.1",
        "address6": "fd00::2",
        "prefix6": 64,
        "gateway6": "fd00::1",
        "mac": "02:00:00:00:00:02",
        "mtu": 0,
        "rate_in": 0,
        "rate_out": 0,
        "internal": False,
        "isolate": False,
    }
    nic.update(changes)  # type: ignore[typeddict-item]
    return nic


def make_network(*nics: NetworkNic, **changes: object) -> Network:
    """Return a jail's network."""
    network: Network = {
        "nics": list(nics),
        "publish": [],
        "firewall": [],
        "shared": [],
        "devices": [],
        "names": [],
    }
    network.update(changes)  # type: ignore[typeddict-item]
    return network


def plan(network: Network) -> Program:
    """Plan all of it."""
    program = Program()
    program.child.wait_for_caller()
    plan_nics_inside(program, network, plan_nics(program, network))
    return program


def messages(operations: list[Operation]) -> list[str]:
    """Return the messages among some operations."""
    return [str(one.args[1]) for one in operations if one.name in PSEUDO.values()]


def test_nothing_to_do() -> None:
    """A jail without a network costs nothing."""
    assert len(plan(make_network()).operations()) == 2


def test_loopback() -> None:
    """One request, on a socket of its own."""
    program = Program()
    plan_loopback(program)
    assert [one.name for one in program.child.operations] == ["socket", "ioctl", "close"]


def test_one_interface() -> None:
    """Each thing once, in the order that its neighbours need."""
    program = plan(make_network(make_nic()))
    assert messages(program.before.operations) == ["RTM_GETLINK {jailrun0}"]
    assert messages(program.attach.operations) == ["RTM_NEWLINK {veth jr00112233ff ⇄ eth0}"]
    assert messages(program.child.operations) == [
        "RTM_GETLINK {eth0}",
        "RTM_NEWADDR {10.87.0.2/16}",
        "RTM_NEWADDR {fd00::2/64}",
        "RTM_NEWLINK {eth0, up}",
        "RTM_GETLINK {jr00112233ff}",
        "RTM_NEWLINK {02:00:00:00:00:02}",
        "RTM_NEWROUTE {default via 10.87.0.1}",
        "RTM_NEWROUTE {default via fd00::1}",
    ]
    assert {one.facility for one in program.attach.operations} == {"net"}


def test_host_end_is_looked_at_through_the_callers_socket() -> None:
    """It is in the caller's namespace; the child closes that socket when it has done so."""
    program = plan(make_network(make_nic()))
    caller = program.before.operations[0].result
    uses = [one for one in program.child.operations if caller in one.args]
    assert [one.name for one in uses] == ["netlink", "close"]
    assert str(uses[0].args[1]) == "RTM_GETLINK {jr00112233ff}"


def test_ipv4_alone() -> None:
    """No word of IPv6, but that no neighbour may bring it."""
    program = plan(make_network(make_nic(address6="", gateway6="")))
    assert not [text for text in messages(program.child.operations) if "fd00" in text]
    written = [one.object for one in program.child.operations if one.name == "write"]
    assert [path for path in written if "ipv6" in path] == [
        "/proc/sys/net/ipv6/conf/eth0/accept_ra"
    ]


def test_first_gateway_is_it() -> None:
    """One default route for each family, none through an internal network."""
    nics = [
        make_nic("eth0", internal=True),
        make_nic("eth1", gateway="10.88.0.1", gateway6=""),
        make_nic("eth2", gateway="10.89.0.1", gateway6="fd02::1"),
    ]
    program = plan(make_network(*nics))
    routes = [text for text in messages(program.child.operations) if "ROUTE" in text]
    assert routes == [
        "RTM_NEWROUTE {default via 10.88.0.1}",
        "RTM_NEWROUTE {default via fd02::1}",
    ]


def test_bridge_is_asked_for_once() -> None:
    """However many interfaces are in its network."""
    program = plan(make_network(make_nic("eth0"), make_nic("eth1")))
    assert len(messages(program.before.operations)) == 1


@pytest.mark.parametrize(
    ("publish", "driver", "words"),
    [
        ([{}], "bridge", "hairpin"),
        ([], "host-bridge", "guard"),
        ([{}], "host-bridge", "hairpin guard"),
    ],
)
def test_port(publish: list[object], driver: str, words: str) -> None:
    """A port is told what it must be beyond the ordinary."""
    program = plan(make_network(make_nic(driver=driver), publish=publish))
    assert messages(program.attach.operations)[1] == f"RTM_NEWLINK {{jr00112233ff, port: {words}}}"


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_on_a_parent(driver: str) -> None:
    """No end on the host, nothing to be waited for."""
    nic = make_nic(driver=driver, bridge="", parent="enp3s0")
    program = plan(make_network(nic))
    assert messages(program.before.operations) == ["RTM_GETLINK {enp3s0}"]
    assert messages(program.attach.operations) == [f"RTM_NEWLINK {{{driver} eth0}}"]
    assert "RTM_GETLINK {jr00112233ff}" not in messages(program.child.operations)
    assert (
        program.before.operations[1]
        .describe()
        .endswith("# find the parent interface of the network default: enp3s0")
    )


def test_device_moved_in() -> None:
    """By its index, since the message's name is the new one."""
    device = {
        "device": "enp3s0",
        "name": "eth1",
        "address": "192.0.2.7/24",
        "gateway": "192.0.2.1",
    }
    program = plan(make_network(devices=[device]))
    assert messages(program.before.operations) == ["RTM_GETLINK {enp3s0}"]
    assert messages(program.attach.operations) == ["RTM_SETLINK {→ eth1}"]
    assert messages(program.child.operations) == [
        "RTM_GETLINK {eth1}",
        "RTM_NEWADDR {192.0.2.7/24}",
        "RTM_NEWLINK {eth1, up}",
        "RTM_NEWROUTE {default via 192.0.2.1}",
    ]


def test_bare_device() -> None:
    """Without an address it is only brought up, under its own name."""
    program = plan(make_network(devices=[{"device": "enp3s0"}]))
    assert messages(program.child.operations) == [
        "RTM_GETLINK {enp3s0}",
        "RTM_NEWLINK {enp3s0, up}",
    ]


def test_network_comes_before_device() -> None:
    """A network's gateway is the default route where both have one."""
    device = {"device": "enp3s0", "address": "2001:db8::7", "gateway": "2001:db8::1"}
    program = plan(make_network(make_nic(gateway6=""), devices=[device]))
    said = messages(program.child.operations)
    assert "RTM_NEWADDR {2001:db8::7/128}" in said
    assert said[-2:] == [
        "RTM_NEWROUTE {default via 10.87.0.1}",
        "RTM_NEWROUTE {default via 2001:db8::1}",
    ]


def test_host_mac() -> None:
    """Locally administered, of one station, and higher than a bridge would take for its own."""
    assert host_mac("jr00112233ff") == "fe:00:11:22:33:ff"
    first = int(host_mac("jrffffffffff")[:2], 16)
    assert first & 0b11 == 0b10
