"""Addresses: text to numbers and back, subnets, MACs that stay."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import NetworkError
from jailrun.net.addresses import (
    Subnet,
    derive_mac,
    format_address,
    parse_address,
    parse_interface,
    parse_subnet,
)

V4 = st.integers(0, 2**32 - 1)
V6 = st.integers(0, 2**128 - 1)


@given(V4)
def test_v4_is_read_as_written(number: int) -> None:
    text = format_address(4, number)
    assert text == str(ipaddress.IPv4Address(number))
    assert parse_address(text) == (4, number)


@given(V6)
def test_v6_is_read_as_written(number: int) -> None:
    text = format_address(6, number)
    assert ipaddress.IPv6Address(text) == ipaddress.IPv6Address(number)
    assert parse_address(text) == (6, number)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.87.0", "10.87.0.256", "010.87.0.1", " 10.87.0.1", "10.87.0.1/16", "web", "1:2"),
        *("::g", "fe80::1%eth0", "10.87.0.1\0", "10.87.0.\u0661", ":::", "2130706433"),
    ],
)
def test_not_an_address(text: str) -> None:
    with pytest.raises(NetworkError, match="is not an IP address"):
        parse_address(text)


@given(V4, st.integers(0, 32))
def test_subnet_holds_what_it_says(number: int, prefix: int) -> None:
    expected = ipaddress.ip_network((number, prefix), strict=False)
    subnet = parse_subnet(str(expected))
    assert str(subnet) == str(expected)
    assert subnet.size == expected.num_addresses
    assert subnet.contains(number)
    assert subnet.nth(0) == str(expected.network_address)
    assert subnet.nth(subnet.size - 1) == str(expected.broadcast_address)
    assert not subnet.contains(subnet.last + 1)
    assert not subnet.contains(subnet.first - 1)


@given(V4, st.integers(0, 32), V4, st.integers(0, 32))
def test_overlap_is_as_the_library_says(one: int, bits: int, two: int, more: int) -> None:
    first = ipaddress.ip_network((one, bits), strict=False)
    second = ipaddress.ip_network((two, more), strict=False)
    ours = parse_subnet(str(first)).overlaps(parse_subnet(str(second)))
    assert ours == first.overlaps(second)


def test_families_do_not_overlap() -> None:
    assert not Subnet(4, 0, 0).overlaps(Subnet(6, 0, 0))


def test_host_bits_are_shown() -> None:
    with pytest.raises(NetworkError, match="its last 8 bits are 0x11, not 0") as caught:
        parse_subnet("10.9.8.17/24")
    assert caught.value.hint == "the subnet is 10.9.8.0/24"
    with pytest.raises(NetworkError, match="last 64 bits are 0x1"):
        parse_subnet("fd00::1/64")


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "::/129"])
def test_prefix_is_wanted(text: str) -> None:
    with pytest.raises(NetworkError, match="lacks a prefix length of 0 to"):
        parse_subnet(text)


def test_address_in_its_subnet() -> None:
    assert parse_interface("10.87.0.10/16") == (4, 0x0A57000A, 16)


def test_numbers_of_hosts() -> None:
    subnet = parse_subnet("10.0.0.0/30")
    assert [number for number in range(-1, 6) if subnet.is_usable(number)] == [1, 2]
    six = parse_subnet("fd00::/126")
    assert [number for number in range(-1, 6) if six.is_usable(number)] == [1, 2, 3]
    with pytest.raises(NetworkError, match=r"10\.0\.0\.0/30 has no address of number 4"):
        subnet.nth(4)


@given(st.text(), st.text(), st.text())
def test_derived_mac_is_one_that_may_be_chosen(jail: str, nic: str, salt: str) -> None:
    mac = derive_mac(jail, nic, salt)
    assert mac.startswith("02:")
    assert [len(part) for part in mac.split(":")] == [2] * 6
    assert derive_mac(jail, nic, salt) == mac


def test_derived_macs_differ_and_stay() -> None:
    assert derive_mac("web", "eth0") == "02:0f:78:aa:91:02"
    macs = {derive_mac(f"web{n}", f"eth{m}") for n in range(1000) for m in range(4)}
    assert len(macs) == 4000
    assert derive_mac("web", "eth0", "this host") != derive_mac("web", "eth0", "that host")
