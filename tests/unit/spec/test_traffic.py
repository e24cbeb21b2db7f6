"""`jailrun.spec.traffic`: published ports and rules."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import JailError
from jailrun.spec.traffic import PORT_MAX, format_publish, parse_publish, parse_rule
from tests.unit.spec.compiling import compiled


def ours(**asked: Any) -> Any:
    return compiled(**asked)["jailrun"]


# --- published ports ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("80", ("tcp", "", 80, 80, 1)),
        ("8080:80", ("tcp", "", 8080, 80, 1)),
        ("8080:80/tcp", ("tcp", "", 8080, 80, 1)),
        ("53:53/UDP", ("udp", "", 53, 53, 1)),
        ("192.0.2.1:8080:80", ("tcp", "192.0.2.1", 8080, 80, 1)),
        ("127.0.0.1::80", ("tcp", "127.0.0.1", 80, 80, 1)),
        ("127.0.0.1:80", ("tcp", "127.0.0.1", 80, 80, 1)),
        ("[2001:DB8::1]:8080:80/udp", ("udp", "2001:db8::1", 8080, 80, 1)),
        ("[2001:db8::1]:80", ("tcp", "2001:db8::1", 80, 80, 1)),
        ("0.0.0.0:8080:80", ("tcp", "0.0.0.0", 8080, 80, 1)),
        ("[::]:8080:80", ("tcp", "::", 8080, 80, 1)),
        ("8000-8010:9000-9010", ("tcp", "", 8000, 9000, 11)),
        ("8000-8010", ("tcp", "", 8000, 8000, 11)),
        ("65535:1", ("tcp", "", 65535, 1, 1)),
    ],
)
def test_published_ports(text: str, values: tuple[object, ...]) -> None:
    fields = ("protocol", "host_address", "host_port", "jail_port", "count")
    expected = [dict(zip(fields, values, strict=True))]
    assert ours(network="default", publish=[text])["publish"] == expected


def test_one_port_of_several_addresses() -> None:
    texts = ["192.0.2.1:80:80", "192.0.2.2:80:80", "[fd00::1]:80:80", "80:80/udp", "81:80"]
    assert len(ours(network="default", publish=texts)["publish"]) == 5
    for texts in (["0.0.0.0:80:80", "[::]:80:80"], ["0.0.0.0:80:80", "[fd00::1]:80:80"]):
        assert len(ours(network="default", publish=texts)["publish"]) == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "'' is not a port"),
        (["0:80"], "publish '0:80': '0' is not a port"),
        (["65536:80"], "'65536' is not a port"),
        (["80:0"], "'0' is not a port"),
        (["x:80"], "'x' is not a port"),
        (["-1:80"], "'' is not a port"),
        (["80:"], "'' is not a port"),
        ([":80"], "publish ':80' is not valid"),
        (["90-80:90-80"], "the range '90-80' goes down"),
        (["80-90:80"], "11 ports of the host cannot lead to 1 of the jail"),
        (["80:80-90"], "1 port of the host cannot lead to 11 of the jail"),
        (["80:80/sctp"], "'sctp' cannot be published"),
        (["80:80/"], "'' cannot be published"),
        (["1:2:3:4"], "is not valid"),
        (["::1:80:80"], "is not valid"),
        (["[::1:80:80"], "is not valid"),
        (["[fd00::1]80"], "is not valid"),
        (["localhost:80:80"], "the host's address 'localhost' is not an address"),
        (["0.0.0.0:80:80", "80:81"], "want the same port of the host, tcp 80"),
        (["192.0.2.1:80:80", "0.0.0.0:80:81"], "want the same port of the host, tcp 80"),
        (["[::]:80:80", "[2001:db8::1]:80:81"], "want the same port of the host, tcp 80"),
        (["[::1]:80:80"], "the kernel forwards nothing that comes for ::1"),
        (["224.0.0.1:80:80"], "is a multicast address"),
        (["80:80", "80:80"], "want the same port of the host, tcp 80"),
        (["80:80", "192.0.2.1:80:81"], "want the same port of the host, tcp 80"),
        (["8000-8010", "8010:1"], "want the same port of the host, tcp 8010"),
    ],
)
def test_bad_ports_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(JailError) as caught:
        ours(network="default", publish=texts)
    assert message in caught.value.message
    assert caught.value.message.startswith("publish ")
    assert caught.value.hint


ports = st.integers(1, PORT_MAX)


@given(
    ports, ports, st.integers(1, PORT_MAX), st.sampled_from(["", "/tcp", "/udp"]), st.ip_addresses()
)
def test_what_is_published_is_what_was_written(
    host: int, jail: int, count: int, protocol: str, address: Any
) -> None:
    count = min(count, PORT_MAX + 1 - max(host, jail))
    ranges = f"{host}-{host + count - 1}:{jail}-{jail + count - 1}{protocol}"
    expected = {
        "protocol": protocol[1:] or "tcp",
        "host_address": "",
        "host_port": host,
        "jail_port": jail,
        "count": count,
    }
    assert parse_publish(ranges) == expected
    assert parse_publish(format_publish(parse_publish(ranges))) == expected
    text = f"[{address}]" if address.version == 6 else str(address)
    try:
        found = parse_publish(f"{text}:{ranges}")
    except JailError as error:
        assert "address" in error.message or "forwards nothing" in error.message
    else:
        assert ipaddress.ip_address(found["host_address"]) == address
        assert found == {**expected, "host_address": found["host_address"]}
        assert parse_publish(format_publish(found)) == found


# --- rules --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("in", ("in", "any", "", 0, 0)),
        ("in:any", ("in", "any", "", 0, 0)),
        ("out:icmp", ("out", "icmp", "", 0, 0)),
        ("in:tcp:80", ("in", "tcp", "", 80, 80)),
        ("in:80", ("in", "any", "", 80, 80)),
        ("in:tcp:80-90", ("in", "tcp", "", 80, 90)),
        ("out:10.0.0.0/8", ("out", "any", "10.0.0.0/8", 0, 0)),
        ("out:tcp:192.0.2.7:443", ("out", "tcp", "192.0.2.7/32", 443, 443)),
        ("out:[FD00::]/8", ("out", "any", "fd00::/8", 0, 0)),
        ("out:[fd00::/8]:53", ("out", "any", "fd00::/8", 53, 53)),
        ("out:udp:[fd00::1]:53", ("out", "udp", "fd00::1/128", 53, 53)),
        ("in:0.0.0.0/0", ("in", "any", "0.0.0.0/0", 0, 0)),
    ],
)
def test_rules(text: str, values: tuple[object, ...]) -> None:
    fields = ("direction", "protocol", "address", "port", "last_port")
    rule = dict(zip(fields, values, strict=True))
    for action in ("allow", "deny"):
        found = ours(network="default", **{action: [text, text]})["firewall"]
        assert found == [{"action": action, **rule}]


def test_rights_and_rules_are_told_apart() -> None:
    config = compiled(
        network="default", allow=["net-admin", "in:tcp:80", "io-uring"], deny=["out:10.0.0.0/8"]
    )
    assert config["jailrun"]["allow"] == ["io_uring"]
    assert "CAP_NET_ADMIN" in config["process"]["capabilities"]["bounding"]
    assert [rule["action"] for rule in config["jailrun"]["firewall"]] == ["allow", "deny"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("both:tcp:80", "says not whether it is for in or out"),
        ("", "says not whether it is for in or out"),
        ("in:", "the address '' is not an address"),
        ("in:sctp:80", "'sctp' is not a protocol"),
        ("in:tcp:0", "'0' is not a port"),
        ("in:tcp:65536", "'65536' is not a port"),
        ("in:tcp:90-80", "the range '90-80' goes down"),
        ("in:icmp:80", "icmp has no ports"),
        ("in:tcp:80:90", "is not valid"),
        ("in:tcp:80:10.0.0.0/8", "is not valid"),
        ("in:10.0.0.0/33", "the address '10.0.0.0/33' is not an address"),
        ("in:10.0.0.7/8", "is an address within a subnet"),
        ("in:fd00::1", "the address 'fd00' is not an address"),
        ("in:[fd00::1", "is not an address"),
        ("in:[fd00::/8]/8", "is not an address"),
    ],
)
@pytest.mark.parametrize("action", ["allow", "deny"])
def test_bad_rules_are_named(action: str, text: str, message: str) -> None:
    with pytest.raises(JailError) as caught:
        parse_rule(action, text)
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{action} {text!r}")
    assert caught.value.hint


def test_allowed_and_denied() -> None:
    with pytest.raises(JailError, match="is both allowed and denied"):
        ours(network="default", allow=["in:tcp:80"], deny=["in:tcp:80-80"])


@pytest.mark.parametrize("network", [None, "none", "host", "/run/netns/x", "device:en0"])
@pytest.mark.parametrize("asked", [{"publish": ["80"]}, {"deny": ["out"]}, {"allow": ["in:80"]}])
def test_ports_and_rules_need_a_network(network: str | None, asked: dict[str, Any]) -> None:
    with pytest.raises(JailError, match="the jail is in none of the networks"):
        ours(network=network, **asked)
