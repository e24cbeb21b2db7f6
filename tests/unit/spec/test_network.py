"""`jailrun.spec.network` and `names`: what is said of networks becomes a config."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import JailError
from jailrun.spec.addresses import mask_address, pack_address, parse_address, parse_subnet
from jailrun.spec.check import find_problems
from jailrun.spec.compile import compile_config
from jailrun.spec.network import parse_networks
from tests.unit.spec.compiling import compiled

DEFAULT = {"network": "default", "name": "eth0"}


def ours(**asked: Any) -> Any:
    return compiled(**asked)["jailrun"]


def namespace(config: Any) -> Any:
    found = [each for each in config["linux"]["namespaces"] if each["type"] == "network"]
    return found[0] if found else None


# --- networks -----------------------------------------------------------------------------------
def test_without_a_network_there_is_loopback_alone() -> None:
    for nothing in (None, [], "none", "private", ["none"]):
        config = compiled(network=nothing)
        assert config == compiled()
        assert namespace(config) == {"type": "network"}
    assert "networks" not in config["jailrun"]


def test_one_word_or_a_list() -> None:
    assert ours(network="default")["networks"] == [DEFAULT]
    assert ours(network=["default"]) == ours(network="default")
    assert namespace(compiled(network="default")) == {"type": "network"}


def test_interfaces_are_named_by_their_place() -> None:
    found = ours(network=["a", "device:enp3s0", "b,name=lan0", "c"])
    assert [nic["name"] for nic in found["networks"]] == ["eth0", "lan0", "eth3"]
    assert found["devices_in"] == [{"device": "enp3s0", "name": "eth1"}]


def test_settings_of_an_interface() -> None:
    text = "lan,ip=10.87.0.10,ip6=FD00:0::A,mac=02-42-0A-57-00-0A,rate=100mbit,name=lan0"
    assert ours(network=text)["networks"] == [
        {
            "network": "lan",
            "name": "lan0",
            "address": "10.87.0.10",
            "address6": "fd00::a",
            "mac": "02:42:0a:57:00:0a",
            "rate_in": 12_500_000,
            "rate_out": 12_500_000,
        }
    ]


@pytest.mark.parametrize(
    ("rate", "both"),
    [
        ("8kbit", {"rate_in": 1000, "rate_out": 1000}),
        ("in:1gbit", {"rate_in": 125_000_000}),
        ("out:10mbps", {"rate_out": 10_000_000}),
        ("out:8kbit/in:16kbit", {"rate_in": 2000, "rate_out": 1000}),
    ],
)
def test_rates_are_bytes_by_direction(rate: str, both: dict[str, int]) -> None:
    assert ours(network=f"default,rate={rate}")["networks"] == [DEFAULT | both]


def test_the_hosts_network() -> None:
    assert namespace(compiled(network="host")) is None
    config = compiled(network="shared:192.0.2.5,[2001:DB8::5]")
    assert namespace(config) is None
    assert config["jailrun"]["shared_addresses"] == ["192.0.2.5", "2001:db8::5"]


def test_another_namespace() -> None:
    for text in ("/run/netns/x", "ns:/run/netns/x"):
        assert namespace(compiled(network=text))["path"] == "/run/netns/x"
    asked = parse_networks("jail:db")
    assert (asked.mode, asked.other) == ("jail", "db")
    config = compiled(network=["jail:db"], network_path="/proc/7/ns/net")
    assert namespace(config)["path"] == "/proc/7/ns/net"


def test_a_moved_interface() -> None:
    text = "device:enp3s0,name=wan0,ip=192.0.2.7/24,gateway=192.0.2.1"
    assert ours(network=text)["devices_in"] == [
        {"device": "enp3s0", "name": "wan0", "address": "192.0.2.7/24", "gateway": "192.0.2.1"}
    ]
    text = "device:enp3s0,ip=2001:db8::7/64,gateway=fe80::1"
    assert ours(network=text)["devices_in"][0]["gateway"] == "fe80::1"


BAD_NETWORKS: list[tuple[str | list[str], str]] = [
    ("", "network '' is not valid"),
    ("../x", "network '../x' is not valid"),
    ("a" * 16, "is not valid: it has 16 characters"),
    ("-a", "network '-a' is not valid"),
    ("Lan", "network 'Lan' is not valid"),
    ("a:b", "network 'a:b' is not valid"),
    ("container:web", "network 'container:web' is not valid"),
    ("host,ip=10.0.0.1", "host takes no settings"),
    ("none,name=x", "none takes no settings"),
    (["none", "default"], "network 'none' cannot be combined"),
    (["default", "host"], "network 'host' cannot be combined"),
    (["default", "jail:db"], "network 'jail:db' cannot be combined"),
    (["shared:192.0.2.5", "default"], "cannot be combined"),
    (["/x", "/y"], "network '/x' cannot be combined"),
    ("jail:", "the jail '' is not valid"),
    ("jail:a/b", "the jail 'a/b' is not valid"),
    ("jail:db", "the jail was not looked up"),
    ("ns:x", "the path is not absolute"),
    ("/x\0", "the path is not absolute"),
    ("shared:", "the address '' is not an address"),
    ("shared:0.0.0.0", "is an unspecified address"),
    ("shared:224.0.0.1", "is a multicast address"),
    ("shared:192.0.2.5,192.0.2.5", "192.0.2.5 is there twice"),
    ("shared:fe80::1", "is a link-local address"),
    ("lan,", "'' is not a setting of it"),
    ("lan,ip", "'ip' is not a setting of it"),
    ("lan,color=red", "'color=red' is not a setting of it"),
    ("lan,ip=1.2.3.4,ip=1.2.3.5", "ip is there twice"),
    ("lan,ip=", "ip '' is not an IPv4 address"),
    ("lan,ip=10.0.0.300", "ip '10.0.0.300' is not an IPv4 address"),
    ("lan,ip=10.0.0.1/16", "ip '10.0.0.1/16' is not an IPv4 address"),
    ("lan,ip=fd00::1", "ip 'fd00::1' is not an IPv4 address"),
    ("lan,ip=010.0.0.1", "is not an IPv4 address"),
    ("lan,ip=10.1", "is not an IPv4 address"),
    ("lan,ip=127.0.0.1", "is a loopback address"),
    ("lan,ip=255.255.255.255", "is a reserved address"),
    ("lan,ip6=10.0.0.1", "ip6 '10.0.0.1' is not an IPv6 address"),
    ("lan,ip6=::ffff:10.0.0.1", "is an IPv4-mapped address"),
    ("lan,ip6=ff02::1", "is a multicast address"),
    ("lan,ip6=fe80::1%eth0", "is not an IPv6 address"),
    ("lan,mac=00:00:00:00:00:00", "is not the MAC address of an interface"),
    ("lan,mac=02:00:00:00:00", "is not the MAC address of an interface"),
    ("lan,mac=02:00:00:00:00:0g", "is not the MAC address of an interface"),
    ("lan,mac=01:00:5e:00:00:01", "is a multicast address"),
    ("lan,mac=ff:ff:ff:ff:ff:ff", "is a multicast address"),
    ("lan,rate=0", "a rate of 0 lets nothing pass"),
    ("lan,rate=in:0mbit", "a rate of 0 lets nothing pass"),
    ("lan,rate=100", "rate '100' is not a rate"),
    ("lan,rate=1bit", "rate '1bit' is too low"),
    ("lan,rate=up:1mbit", "rate 'up:1mbit' is not valid"),
    ("lan,rate=in:1mbit/in:2mbit", "is not valid"),
    ("lan,rate=in:1mbit/2mbit", "is not valid"),
    ("lan,name=", "name '' is not valid"),
    ("lan,name=lo", "name 'lo' is not valid"),
    ("lan,name=a/b", "name 'a/b' is not valid"),
    ("lan,name=eth%d", "name 'eth%d' is not valid"),
    (f"lan,name={'e' * 16}", "is not valid: it has 16 characters"),
    (["a,name=eth1", "b"], "the name eth1 is there twice"),
    (["a,ip=10.0.0.9", "a,ip=10.0.0.9"], "the network a is there twice"),
    (["device:en0", "device:en0"], "the interface en0 is there twice"),
    ("device:", "interface '' is not valid"),
    ("device:lo", "interface 'lo' is not valid"),
    ("device:en0,rate=1mbit", "'rate=1mbit' is not a setting of it"),
    ("device:en0,ip=192.0.2.7", "ip '192.0.2.7' is not an address with a prefix"),
    ("device:en0,ip=192.0.2.7/33", "is not an address with a prefix"),
    ("device:en0,ip=192.0.2.7/0", "is not an address with a prefix"),
    ("device:en0,gateway=192.0.2.1", "needs an address to reach it from"),
    ("device:en0,ip=192.0.2.7/24,gateway=192.0.3.1", "is not in the subnet of 192.0.2.7/24"),
    ("device:en0,ip=192.0.2.7/24,gateway=fe80::1", "is not in the subnet of"),
]


@pytest.mark.parametrize(("network", "message"), BAD_NETWORKS)
def test_bad_networks_are_named(network: str | list[str], message: str) -> None:
    with pytest.raises(JailError) as caught:
        compiled(network=network)
    assert message in caught.value.message
    assert caught.value.message.startswith("network")
    assert caught.value.hint or "looked up" in message


@given(st.ip_addresses(), st.integers(0, 128))
def test_subnets_are_those_of_ipaddress(address: Any, prefix: int) -> None:
    prefix = min(prefix, address.max_prefixlen)
    network = ipaddress.ip_network((address, prefix), strict=False)
    assert mask_address(address.packed, prefix) == network.network_address.packed
    assert ipaddress.ip_network(parse_subnet(str(network), "x")) == network
    if address != network.network_address:
        with pytest.raises(JailError):
            parse_subnet(f"{address}/{prefix}", "x")


@given(st.ip_addresses())
def test_addresses_are_those_of_ipaddress(address: Any) -> None:
    assert pack_address(str(address)) == address.packed
    assert ipaddress.ip_address(parse_address(str(address), "x")) == address
    assert parse_address(address.exploded, "x") == parse_address(str(address), "x")


# --- names --------------------------------------------------------------------------------------
def test_every_jail_knows_names() -> None:
    for network in (None, "none", "host", "default", "/run/netns/x", "shared:192.0.2.5"):
        assert ours(network=network)["names"] == {}
    assert "names" not in ours(names=False)
    assert ours(names=True) == ours()


def test_names() -> None:
    found = ours(
        dns=["192.0.2.53", "[FD00::53]"],
        dns_search=["example.org", "_msdcs.example.org."],
        dns_option=["ndots:2", "use-vc"],
        add_host=[
            "db:192.0.2.10",
            "web=fd00::10",
            "v6.example:fd00::11",
            "b:[fd00::12]",
            "h:host-gateway",
        ],
    )["names"]
    assert found == {
        "dns": ["192.0.2.53", "fd00::53"],
        "search": ["example.org", "_msdcs.example.org."],
        "options": ["ndots:2", "use-vc"],
        "hosts": [
            ["db", "192.0.2.10"],
            ["web", "fd00::10"],
            ["v6.example", "fd00::11"],
            ["b", "fd00::12"],
            ["h", "host-gateway"],
        ],
    }
    assert ours(dns_search=["."])["names"] == {"search": ["."]}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dns": ["resolver"]}, "dns 'resolver' is not an address"),
        ({"dns": ["0.0.0.0"]}, "is an unspecified address"),
        ({"dns": [f"192.0.2.{n}" for n in range(1, 5)]}, "the 4 name servers are more than the 3"),
        ({"dns_search": ["a b"]}, "dns-search 'a b' is not a domain"),
        ({"dns_search": ["a..b"]}, "is not a domain"),
        ({"dns_search": ["x" * 64]}, "is not a domain"),
        ({"dns_search": ["a\nnameserver 1.2.3.4"]}, "is not a domain"),
        ({"dns_search": [".", "a"]}, "'.' is for none"),
        ({"dns_option": ["ndots: 2"]}, "dns-option 'ndots: 2' is not an option"),
        ({"dns_option": [""]}, "is not an option"),
        ({"dns_option": ["a\nb"]}, "is not an option"),
        ({"add_host": ["db"]}, "add-host 'db' is not valid"),
        ({"add_host": [":1.2.3.4"]}, "'' is not the name of a host"),
        ({"add_host": ["a b:1.2.3.4"]}, "'a b' is not the name of a host"),
        ({"add_host": ["db:gateway"]}, "the address 'gateway' is not an address"),
        ({"add_host": ["db:"]}, "the address '' is not an address"),
        ({"names": False, "dns": ["192.0.2.53"]}, "are for files that names=False leaves"),
    ],
)
def test_bad_names_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(JailError) as caught:
        ours(**asked)
    assert message in caught.value.message
    assert caught.value.hint


# --- any config ---------------------------------------------------------------------------------
PORT = {"protocol": "tcp", "host_address": "", "host_port": 80, "jail_port": 80, "count": 1}
RULE = {
    "action": "allow",
    "direction": "in",
    "protocol": "tcp",
    "address": "",
    "port": 80,
    "last_port": 80,
}


@pytest.mark.parametrize(
    ("extensions", "problem"),
    [
        ({"networks": [{"network": "lan"}]}, "jailrun.networks[0].name is required"),
        ({"networks": [{**DEFAULT, "color": "red"}]}, "networks[0].color there is no such field"),
        ({"networks": [{**DEFAULT, "network": "Lan"}]}, 'networks[0].network "Lan" is not'),
        ({"networks": [{**DEFAULT, "address": "fd00::1"}]}, "is not an IPv4 address"),
        ({"networks": [{**DEFAULT, "rate_in": 0}]}, "0 is not a number of bytes per second"),
        ({"networks": [DEFAULT, DEFAULT]}, 'jailrun.networks[1].name "eth0" is there twice'),
        ({"devices_in": [{"device": "eth0"}], "networks": [DEFAULT]}, "devices_in[0].name"),
        ({"devices_in": [{"device": "e", "gateway": "192.0.2.1"}]}, "needs an address to reach"),
        ({"publish": [PORT]}, "jailrun.publish is for jails in a network"),
        ({"firewall": [RULE]}, "jailrun.firewall is for jails in a network"),
        ({"publish": [{**PORT, "count": 65500}]}, "65500 ports from 80 on go beyond 65535"),
        ({"publish": [PORT, PORT]}, "80 is published by jailrun.publish[0], too"),
        ({"publish": [{**PORT, "protocol": "sctp"}]}, "is not one of tcp, udp"),
        ({"firewall": [{**RULE, "last_port": 79}]}, "79 ends no range from port on"),
        ({"firewall": [{**RULE, "port": 0}]}, "80 ends no range from port on"),
        ({"firewall": [{**RULE, "protocol": "icmp"}]}, "icmp has no ports"),
        ({"firewall": [{**RULE, "address": "10.0.0.7/8"}]}, "is not a subnet"),
        ({"shared_addresses": ["192.0.2.5"]}, "is for jails in the host's network"),
        ({"names": {"hosts": [["db"]]}}, "is not a list of a host's name and its address"),
        ({"names": {"options": ["a b"]}}, "is not an option of resolv.conf(5)"),
    ],
)
def test_any_config_is_checked(extensions: dict[str, Any], problem: str) -> None:
    config: Any = compiled()
    config["jailrun"] |= extensions
    found = [f"{path} {message}" for path, message, _ in find_problems(config)]
    assert any(problem in one for one in found), found


@pytest.mark.parametrize(
    ("kind", "extensions", "problem"),
    [
        ("network", {"networks": [DEFAULT]}, "networks needs a network namespace"),
        ("network", {"devices_in": [{"device": "en0"}]}, "devices_in needs a network namespace"),
        ("mount", {"names": {}}, "names needs a mount namespace"),
    ],
)
def test_namespaces_that_are_needed(kind: str, extensions: dict[str, Any], problem: str) -> None:
    config: Any = {"ociVersion": "1.2.1", "root": {"path": "/x"}, "jailrun": extensions}
    found = [f"{path} {message}" for path, message, _ in find_problems(config)]
    assert [one for one in found if problem in one] == found
    assert len(found) == 1
    config["linux"] = {"namespaces": [{"type": kind}]}
    assert not find_problems(config)


# --- anything -----------------------------------------------------------------------------------
WORDS = """
in out tcp udp icmp any : :: [ ] / - , = . 0 80 65535 65536 8000-8010 10.0.0.0 /8 fd00::1
default lan host jail: ns:/x shared: device: ip= ip6= mac= rate= name= gateway= 100mbit 0bit
02:00:00:00:00:01 eth0 192.0.2.7/24 ndots:2 example.org
"""
pieces = st.text(max_size=6) | st.sampled_from(WORDS.split())
texts = st.lists(pieces, max_size=6).map("".join)
options = st.sampled_from(
    ["network", "publish", "allow", "deny", "dns", "dns_search", "dns_option", "add_host"]
)


@given(st.dictionaries(options, st.lists(texts, max_size=3)))
def test_any_text_is_a_config_or_a_jail_error(asked: dict[str, Any]) -> None:
    try:
        compiled(network_path="/proc/7/ns/net", **asked)
    except JailError as error:
        assert error.message
        assert "\n" not in error.message


@given(options, st.lists(texts, min_size=1, max_size=1))
def test_a_network_and_any_text(option: str, words: list[str]) -> None:
    asked: dict[str, Any] = {"network": ["default"], "command": ["sh"], option: words}
    try:
        compile_config(**asked)
    except JailError as error:
        assert error.message
