"""The text of the firewall: what a network and a jail add, and take away again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import NetworkError, UnsupportedError
from jailrun.net import nft, rules
from jailrun.net.ruleset import BRIDGE, INET, OBJECTS, RULES
from jailrun.spec.traffic import parse_publish, parse_rules

LINK = "jr0123456789"
LINK_MAC = "fe:01:23:45:67:89"  # that of the host's end


def definition(**changes: Any) -> Any:
    """Return the definition of a network."""
    made = {
        "name": "default", "driver": "bridge", "link": "jailrun0", "subnet": "10.87.0.0/16",
        "gateway": "10.87.0.1", "subnet6": "fd87::/64", "gateway6": "fd87::1",
        "internal": False, "isolate": False,
    }  # fmt: skip
    return {**made, **changes}


def nic(**changes: Any) -> dict[str, Any]:
    """Return an interface as the record has it."""
    made = {
        "network": "default", "driver": "bridge", "bridge": "jailrun0", "link": LINK,
        "address": "10.87.0.2", "gateway": "10.87.0.1", "address6": "fd87::2",
        "gateway6": "fd87::1", "mac": "02:00:00:00:00:02", "internal": False,
    }  # fmt: skip
    return {**made, **changes}


def record(*nics: dict[str, Any], publish: str = "", allow: str = "", deny: str = "") -> Any:
    """Return what a jail's record says of its network."""
    return {
        "nics": list(nics) or [nic()],
        "publish": [parse_publish(text) for text in publish.split()],
        "firewall": parse_rules(allow.split(), deny.split()),
    }


def added(text: str) -> dict[str, str]:
    """Return set or map → what is added to it."""
    lines = [line.split(maxsplit=5) for line in text.splitlines() if "element" in line]
    assert all(words[:2] == ["add", "element"] for words in lines)
    return {words[4]: words[5].strip("{} ") for words in lines}


# --- networks ------------------------------------------------------------------------------------
def test_network() -> None:
    text = rules.network_text(definition())
    assert text.startswith(rules.table_text())
    assert added(text) == {
        "bridges": '"jailrun0"',
        "joined": '"jailrun0" . "jailrun0"',
        "near4": "10.87.0.0/16",
        "near6": "fd87::/64",
        "subnets4": "10.87.0.0/16",
        "subnets6": "fd87::/64",
    }


def test_network_of_one_family() -> None:
    assert "subnets6" not in added(rules.network_text(definition(subnet6="", gateway6="")))


def test_internal_network_is_not_masqueraded() -> None:
    names = added(rules.network_text(definition(internal=True)))
    assert set(names) == {"bridges", "internal", "joined", "near4", "near6"}


def test_members_of_an_isolating_network_are_not_joined() -> None:
    assert "joined" not in added(rules.network_text(definition(isolate=True)))


def test_bridge_of_the_host_is_left_alone() -> None:
    text = rules.network_text(definition(driver="host-bridge", link="br0"))
    assert text == rules.table_text()  # for what its jails send
    assert rules.network_removal_text(definition(driver="host-bridge", link="br0")) == ""


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_what_the_host_does_not_bridge_needs_no_tables(driver: str) -> None:
    assert rules.network_text(definition(driver=driver, link="")) == ""
    assert rules.network_removal_text(definition(driver=driver, link="")) == ""
    assert rules.jail_text(record(nic(driver=driver, bridge=""))) == ""
    assert rules.jail_removal_text(record(nic(driver=driver, bridge=""))) == ""


def test_removal_takes_away_what_was_added() -> None:
    for add, remove in (
        (rules.network_text(definition()), rules.network_removal_text(definition())),
        (rules.jail_text(record(publish="80")), rules.jail_removal_text(record(publish="80"))),
    ):
        wanted = [line for line in add.splitlines() if line.startswith("add element")]
        expected = [f"{line}\n{line.replace('add', 'delete', 1)}\n" for line in wanted]
        assert remove.split("\n\n") == [one.rstrip("\n") for one in expected[:-1]] + expected[-1:]


def test_last_removal_works_without_tables() -> None:
    assert rules.last_removal_text().splitlines() == [
        "add table inet jailrun",
        "delete table inet jailrun",
        "add table bridge jailrun",
        "delete table bridge jailrun",
    ]


def test_tables_are_renewed_whole() -> None:
    """Every chain is flushed before it gets its rules, no set or map ever is."""
    lines = rules.table_text().splitlines()
    for table, chains in RULES.items():
        for chain, chain_rules in chains.items():
            assert f"  chain {chain} {{" in OBJECTS
            flush = lines.index(f"flush chain {table} {chain}")
            adds = [
                number
                for number, line in enumerate(lines)
                if line.startswith(f"add rule {table} {chain} ")
            ]
            assert len(adds) == len(chain_rules)
            assert all(flush < number for number in adds)
    assert not any(line.startswith(("flush set", "flush map", "flush table")) for line in lines)


def test_no_chain_refuses_by_its_policy() -> None:
    """What is not ours must get through, whatever we forget."""
    hooks = [line for line in OBJECTS.splitlines() if " hook " in line]
    assert hooks
    assert all("policy accept;" in line for line in hooks)


# --- jails ---------------------------------------------------------------------------------------
def test_jail_adds_only_elements() -> None:
    text = rules.jail_text(record(publish="8080:80"))
    assert all(line.startswith("add element ") for line in text.splitlines())
    mine = f'"{LINK}" . 02:00:00:00:00:02'
    assert added(text) == {
        "ports": mine,
        "own4": f"{mine} . 10.87.0.2",
        "own6": f"{mine} . fe80::ff:fe00:2, {mine} . fd87::2",
        "told6": f'"{LINK}" . 0xfe80000000000000000000fffe000002, '
        f'"{LINK}" . 0xfd870000000000000000000000000002',
        "any4": "tcp . 8080 : 10.87.0.2 . 80",
        "any6": "tcp . 8080 : fd87::2 . 80",
    }


def test_isolated_port() -> None:
    assert added(rules.jail_text(record(nic(isolate=True))))["isolated"] == f'"{LINK}"'


def test_unknown_addresses_on_a_bridge_of_the_host() -> None:
    unknown = nic(driver="host-bridge", bridge="br0", address="", address6="")
    names = added(rules.jail_text(record(unknown)))
    assert names["unaddressed"] == f'"{LINK}"'
    assert "own4" not in names
    # In a network of ours there is no such thing.
    assert "unaddressed" not in added(rules.jail_text(record(nic(address6=""))))


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        ("02:00:00:00:00:02", "fe80::ff:fe00:2"),
        ("00:11:22:33:44:55", "fe80::211:22ff:fe33:4455"),
        ("fe:ff:ff:ff:ff:ff", "fe80::fcff:ffff:feff:ffff"),
    ],
)
def test_link_local_address(mac: str, address: str) -> None:
    assert rules.link_local(mac) == address


# --- published ports -----------------------------------------------------------------------------
def test_published_ranges_and_protocols() -> None:
    names = added(rules.jail_text(record(publish="8080-8082:90-92/udp 53:53")))
    assert names["any4"] == (
        "udp . 8080 : 10.87.0.2 . 90, udp . 8081 : 10.87.0.2 . 91, udp . 8082 : 10.87.0.2 . 92, "
        "tcp . 53 : 10.87.0.2 . 53"
    )


def test_published_on_given_addresses() -> None:
    names = added(rules.jail_text(record(publish="192.0.2.1:80:80 [2001:db8::1]:80:81")))
    assert names["given4"] == "192.0.2.1 . tcp . 80 : 10.87.0.2 . 80"
    assert names["given6"] == "2001:db8::1 . tcp . 80 : fd87::2 . 81"
    assert not {"any4", "any6"} & set(names)


def test_published_on_all_addresses_of_one_family() -> None:
    names = added(rules.jail_text(record(publish="0.0.0.0:80:80 [::]:80:81")))
    assert names["any4"] == "tcp . 80 : 10.87.0.2 . 80"
    assert names["any6"] == "tcp . 80 : fd87::2 . 81"
    assert not {"given4", "given6"} & set(names)


def test_published_on_the_first_interface_that_can_be_reached() -> None:
    nics = (
        nic(driver="macvlan", bridge=""),
        nic(internal=True, address="10.88.0.2"),
        nic(address="10.89.0.2", address6=""),
        nic(address="10.90.0.2", address6="fd90::2"),
    )
    names = added(rules.jail_text(record(*nics, publish="80")))
    assert names["any4"] == "tcp . 80 : 10.89.0.2 . 80"
    assert names["any6"] == "tcp . 80 : fd90::2 . 80"


def test_published_without_ipv6() -> None:
    assert "any6" not in added(rules.jail_text(record(nic(address6=""), publish="80")))
    with pytest.raises(NetworkError, match="cannot publish port 80: the jail has no IPv6 address"):
        rules.jail_text(record(nic(address6=""), publish="[2001:db8::1]:80:80"))


@pytest.mark.parametrize("changes", [{"internal": True}, {"driver": "macvlan"}])
def test_published_where_nobody_gets(changes: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match="cannot publish port 80: the jail has no address"):
        rules.jail_text(record(nic(**changes), publish="80"))


# --- traffic rules -------------------------------------------------------------------------------
def chain(text: str, name: str) -> list[str]:
    """Return the rules that are added to a chain."""
    start = f"add rule {INET} {name} "
    return [line[len(start) :] for line in text.splitlines() if line.startswith(start)]


def test_jail_with_rules_is_routed() -> None:
    names = added(rules.jail_text(record(deny="in:tcp:25")))
    assert names["guarded"] == f'"{LINK}"'
    assert names["lift_from"] == f'"{LINK}" : {LINK_MAC}'
    assert names["lift_to4"] == f"02:00:00:00:00:02 . 10.87.0.2 : {LINK_MAC}"
    assert names["lift_to6"] == f"02:00:00:00:00:02 . fd87::2 : {LINK_MAC}"
    assert names["in4"] == f'"jailrun0" . 10.87.0.2 : goto in-{LINK}'
    assert names["in6"] == (
        f'"jailrun0" . fe80::ff:fe00:2 : goto in-{LINK}, "jailrun0" . fd87::2 : goto in-{LINK}'
    )
    assert not {"out4", "out6"} & set(names)  # no rules for that direction


DNS = [
    "ip daddr 10.87.0.1 udp dport 53 accept",
    "ip daddr 10.87.0.1 tcp dport 53 accept",
    "ip6 daddr fd87::1 udp dport 53 accept",
    "ip6 daddr fd87::1 tcp dport 53 accept",
]


@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        ("in:tcp:80", "", ["tcp dport 80 accept", "drop"]),
        ("", "in:tcp:80-90", ["tcp dport 80-90 drop"]),
        ("in:tcp:80", "in", ["tcp dport 80 accept", "drop"]),
        ("", "in:any:53", ["tcp dport 53 drop", "udp dport 53 drop"]),
        ("", "in:icmp", ["meta l4proto icmp drop", "meta l4proto icmpv6 drop"]),
        ("", "in:udp", ["meta l4proto udp drop"]),
        ("in:any:10.0.0.0/8", "", ["ip saddr 10.0.0.0/8 accept", "drop"]),
        ("in:tcp:[fd00::]/8:80", "", ["ip6 saddr fd00::/8 tcp dport 80 accept", "drop"]),
    ],
)
def test_rules_of_what_comes_in(allow: str, deny: str, expected: list[str]) -> None:
    text = rules.jail_text(record(allow=allow, deny=deny))
    assert chain(text, f"in-{LINK}") == expected
    assert "out-" not in text


def test_resolver_is_always_allowed() -> None:
    text = rules.jail_text(record(allow="out:tcp:10.0.0.0/8:443", deny="out:any:10.1.0.0/16"))
    assert chain(text, f"out-{LINK}") == [
        *DNS,
        "ip daddr 10.0.0.0/8 tcp dport 443 accept",
        "ip daddr 10.1.0.0/16 drop",
    ]
    assert "in-" not in text


def test_rules_of_a_jail_in_two_networks() -> None:
    second = nic(link="jr00000000ff", bridge="jailrun1", address="10.88.0.2", gateway="10.88.0.1")
    text = rules.jail_text(record(nic(), second, deny="out:udp"))
    assert added(text.replace("\nadd element bridge", "\n#"))  # two lines for out4: one a network
    for bridge, address in (("jailrun0", "10.87.0.2"), ("jailrun1", "10.88.0.2")):
        assert f'"{bridge}" . {address} : goto out-{LINK} ' in text
    assert "ip daddr 10.88.0.1 udp dport 53 accept" in text


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan", "host-bridge"])
def test_rules_need_a_network_of_ours(driver: str) -> None:
    with pytest.raises(UnsupportedError, match=f"has the driver {driver}"):
        rules.jail_text(record(nic(), nic(driver=driver), deny="in"))


def test_chains_are_removed_after_what_leads_to_them() -> None:
    blocks = rules.jail_removal_text(record(allow="in:tcp:80", deny="out")).split("\n\n")
    for block, name in zip(blocks[-2:], (f"in-{LINK}", f"out-{LINK}"), strict=True):
        assert block.splitlines() == [
            f"{word} chain {INET} {name}" for word in ("add", "flush", "delete")
        ]
    assert all("chain" not in block for block in blocks[:-2])


@given(st.lists(st.sampled_from(["in:tcp:80", "in", "out:udp", "out:icmp", "in:any:10.0.0.1"])))
def test_every_rule_has_a_verdict(texts: list[str]) -> None:
    half = len(texts) // 2
    allow, deny = set(texts[:half]), set(texts[half:])
    text = rules.jail_text(record(allow=" ".join(allow), deny=" ".join(deny - allow)))
    for line in text.splitlines():
        assert not line.startswith("add rule") or line.endswith((" accept", " drop"))
        assert BRIDGE in line or INET in line


# --- nft -----------------------------------------------------------------------------------------
def test_messages_of_nft() -> None:
    said = "Error: syntax error, unexpected string\nadd frob\n    ^^^^\n"
    assert nft.explain(said).message == (
        "cannot change the firewall: add frob: syntax error, unexpected string"
    )
    gone = nft.explain("Error: No such file or directory\nadd chain inet jailrun x\n^^^^\n")
    assert "jailrun repair" in str(gone.hint)
    assert "root" in str(nft.explain("Error: Operation not permitted\n").hint)
    assert nft.explain("").message == "cannot change the firewall: no reason given"


def test_kernel_without_what_we_need() -> None:
    said = "Error: Could not process rule: Operation not supported\nadd table bridge jailrun\n"
    error = nft.explain(said)
    assert isinstance(error, UnsupportedError)
    assert "CONFIG_NF_TABLES_BRIDGE" in str(error.hint)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "LIBRARY", "libnftables.so.none")
    monkeypatch.setattr(nft, "_library", None)
    with pytest.raises(UnsupportedError, match=r"libnftables\.so\.none") as caught:
        nft.apply("list tables")
    assert "apt-get install libnftables1" in str(caught.value.hint)


def test_nothing_to_do_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "LIBRARY", "libnftables.so.none")
    monkeypatch.setattr(nft, "_library", None)
    nft.apply("")
    nft.remove("")


class Said:
    """What would have been run, and an error for some of it."""

    def __init__(self, *, fails: str, message: str) -> None:
        self.run: list[str] = []
        self.fails, self.message = fails, message

    def __call__(self, text: str) -> None:
        self.run.append(text)
        if self.fails in text:
            raise NetworkError(self.message)


@pytest.mark.parametrize("reason", [nft.MISSING, nft.EXISTS])
def test_removal_passes_over_what_is_gone(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    said = Said(fails="b", message=f"cannot change the firewall: b: {reason}")
    monkeypatch.setattr(nft, "apply", said)
    nft.remove("a\n\nb\n\nc")
    assert said.run == ["a\n\nb\n\nc", "a", "b", "c"]


def test_removal_does_not_hide_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said(fails="b", message="Operation not permitted")
    monkeypatch.setattr(nft, "apply", said)
    with pytest.raises(NetworkError, match="not permitted"):
        nft.remove("a\n\nb\n\nc")
