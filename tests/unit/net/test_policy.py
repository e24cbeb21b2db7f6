"""Rules of the host that are in the way of a network, found in what nft and iptables print."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jailrun.net import nft, policy

ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}


def definition(**changes: Any) -> dict[str, Any]:
    """Return the definition of a network."""
    made = {
        "name": "default", "driver": "bridge", "link": "jailrun0", "subnet": "10.87.0.0/16",
        "gateway": "10.87.0.1", "subnet6": "fd87::/64", "gateway6": "fd87::1",
        "internal": False, "isolate": False,
    }  # fmt: skip
    return {**made, **changes}


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    """Return a match as nft prints it."""
    return {"match": {"op": operator, "left": left, "right": right}}


def meta(key: str, right: Any, operator: str = "==") -> dict[str, Any]:
    """Return a match of a property of the packet."""
    return match({"meta": {"key": key}}, right, operator)


def address(field: str, right: Any, family: str = "ip") -> dict[str, Any]:
    """Return a match of an address."""
    return match({"payload": {"protocol": family, "field": field}}, right)


def prefix(text: str) -> dict[str, Any]:
    """Return a subnet as nft prints it."""
    first, _, length = text.partition("/")
    return {"prefix": {"addr": first, "len": int(length)}}


STATE = {"ct": {"key": "state"}}
STATUS = {"ct": {"key": "status"}}
ESTABLISHED = [match(STATE, ["established", "related"], "in"), ACCEPT]


def chain(*rules: list[Any], policy: str = "", **changes: Any) -> list[dict[str, Any]]:
    """Return a chain, at the hook forward if it has a policy, and its rules."""
    made = {"family": "inet", "table": "filter", "name": "forward", "handle": 1}
    if policy:
        made |= {"type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    made |= changes
    place = {key: made[key] for key in ("family", "table")}
    return [
        {"chain": made},
        *(
            {"rule": {**place, "chain": made["name"], "handle": number + 2, "expr": expressions}}
            for number, expressions in enumerate(rules)
        ),
    ]


def find(
    *entries: list[dict[str, Any]], bridged: bool = False, **changes: Any
) -> list[dict[str, Any]]:
    """Return what is found in the output of nft."""
    text = json.dumps({"nftables": [one for entry in entries for one in entry]})
    chains = policy._read_chains(text)
    found = policy.find_blocks_in(chains, definition(**changes), filters_bridged=bridged)
    return [dict(block) for block in found]


def stops(*entries: list[dict[str, Any]], **changes: Any) -> list[str]:
    """Return which traffic is stopped."""
    return [words for block in find(*entries, **changes) for words in block["stops"]]


OUT, INTO = "what its jails send to the outside", "what comes for published ports"
AMONG, NAMES = "what its jails send to each other", "its jails' questions for names"


def test_open_host() -> None:
    assert find() == []
    assert find(chain(policy="accept")) == []


def test_policy_drop() -> None:
    (block,) = find(chain(ESTABLISHED, policy="drop"))
    assert block == {
        "what": "the policy of chain forward in table inet filter, drop",
        "stops": [OUT, INTO],
        "advice": [
            'nft insert rule inet filter forward iifname "jailrun0" accept',
            'nft insert rule inet filter forward oifname "jailrun0" accept',
        ],
    }


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([[DROP]], [OUT, INTO]),
        ([[{"reject": {"type": "icmpx"}}]], [OUT, INTO]),
        ([[{"counter": None}, {"log": {"prefix": "x"}}, DROP]], [OUT, INTO]),
        ([[{"xt": {"type": "target", "name": "REJECT"}}]], [OUT, INTO]),
        ([[{"xt": {"type": "match", "name": "comment"}}, DROP]], [OUT, INTO]),
        ([[{"xt": {"type": "match", "name": "recent"}}, DROP]], []),
        ([[{"xt": None}, DROP]], []),
        ([[{"limit": {"rate": 5, "per": "second"}}, DROP]], []),
        ([[meta("iifname", "jailrun0"), DROP]], [OUT]),
        ([[meta("oifname", "jailrun*"), DROP]], [INTO]),
        ([[meta("iifname", "docker0"), DROP]], []),
        ([[meta("iifname", "@mine"), DROP]], []),
        ([[meta("iifname", {"set": ["lo", "jailrun0"]}), ACCEPT], [DROP]], [INTO]),
        ([[meta("iif", "jailrun0"), ACCEPT], [DROP]], [INTO]),
        ([[meta("iifname", "jailrun1", "!="), DROP]], [OUT, INTO]),
        ([[meta("nfproto", "ipv4"), DROP]], [OUT, INTO]),
        ([[meta("nfproto", "ipv6"), ACCEPT], [meta("nfproto", "ipv4"), ACCEPT], [DROP]], []),
        ([[meta("l4proto", "tcp"), DROP]], []),  # not all of it
        ([[match(STATUS, "dnat", "in"), ACCEPT], [DROP]], [OUT]),
        ([[match(STATE, {"set": ["invalid", "new"]}), DROP]], [OUT, INTO]),
        ([[match(STATE, "invalid"), DROP]], []),
        ([[address("saddr", prefix("10.0.0.0/8")), DROP]], [OUT]),
        ([[address("saddr", prefix("10.87.3.0/24")), DROP]], []),  # a part of it
        ([[address("daddr", {"range": ["10.0.0.0", "10.255.255.255"]}), DROP]], [INTO]),
        ([[address("saddr", {"set": [prefix("10.0.0.0/8"), "192.0.2.1"]}), DROP]], [OUT]),
        ([[address("saddr", prefix("fd00::/8"), "ip6"), DROP]], [OUT]),
        ([[address("saddr", {"strange": 1}), DROP]], []),
    ],
)
def test_rules(rules: list[list[Any]], expected: list[str]) -> None:
    assert stops(chain(*rules, policy="accept")) == expected


def test_rules_of_one_family() -> None:
    drop6 = chain([DROP], policy="accept", family="ip6")
    assert stops(drop6) == [OUT, INTO]
    assert stops(drop6, subnet6="", gateway6="") == []


def test_other_chains_are_followed() -> None:
    base = chain([{"jump": {"target": "zone"}}], [ACCEPT], policy="drop")
    zone = chain([meta("iifname", "lo"), RETURN], [DROP], name="zone")
    (block,) = find(base, zone)
    assert block["what"] == (
        "the rule with handle 3 of chain zone in table inet filter, which drops it"
    )
    assert block["advice"][0] == 'nft insert rule inet filter forward iifname "jailrun0" accept'
    assert stops(base, chain([RETURN], [DROP], name="zone")) == []
    assert stops(base, chain([DROP], name="zone", table="other")) == []
    goto = chain([{"goto": {"target": "zone"}}], [ACCEPT], policy="drop")
    assert find(goto, chain(name="zone"))[0]["what"].startswith("the policy of")


def test_verdict_maps_are_followed() -> None:
    entries = {"set": [["lo", ACCEPT], ["jailrun0", {"jump": {"target": "zone"}}]]}
    base = chain(
        [{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": entries}}], policy="accept"
    )
    assert stops(base, chain([DROP], name="zone")) == [OUT]
    unknown = [{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@zones"}}]
    assert stops(chain(unknown, policy="accept")) == []


def test_chains_that_go_round() -> None:
    again = chain([{"jump": {"target": "forward"}}], policy="drop")
    assert stops(again) == [OUT, INTO]


def test_every_chain_must_let_it_through() -> None:
    accepting = chain([ACCEPT], policy="accept", table="first")
    assert stops(accepting, chain(policy="drop", table="second")) == [OUT, INTO]


def test_traffic_among_jails_where_bridged_frames_are_filtered() -> None:
    assert stops(chain(policy="drop"), bridged=True) == [OUT, INTO, AMONG]
    assert stops(chain(policy="drop"), bridged=True, internal=True) == [AMONG]
    assert stops(chain(policy="drop"), internal=True) == []


def test_questions_for_names() -> None:
    entry = chain(ESTABLISHED, policy="drop", hook="input", name="input")
    (block,) = find(entry)
    assert block["stops"] == [NAMES]
    assert block["advice"] == [
        'nft insert rule inet filter input iifname "jailrun0" udp dport 53 accept',
        'nft insert rule inet filter input iifname "jailrun0" tcp dport 53 accept',
    ]
    port = match({"payload": {"protocol": "udp", "field": "dport"}}, 53)
    for rule in (
        [port, ACCEPT],
        [meta("iifname", "jailrun0"), port, ACCEPT],
        [match({"payload": {"protocol": "th", "field": "dport"}}, {"range": [50, 60]}), ACCEPT],
        [meta("l4proto", "udp"), ACCEPT],
    ):
        assert find(chain(rule, policy="drop", hook="input", name="input")) == []
    tcp = match({"payload": {"protocol": "tcp", "field": "dport"}}, 53)
    assert find(chain([tcp, ACCEPT], policy="drop", hook="input", name="input"))


def test_our_own_tables_are_not_in_the_way() -> None:
    assert find(chain(policy="drop", table="jailrun")) == []


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan", "host-bridge"])
def test_what_the_host_does_not_route(driver: str) -> None:
    assert find(chain(policy="drop"), driver=driver) == []


# --- advice in the words of who made the rules ---------------------------------------------------
def test_advice_for_iptables() -> None:
    (block,) = find(chain(policy="drop", family="ip", name="FORWARD"))
    assert block["advice"] == [
        "iptables -I FORWARD -i jailrun0 -j ACCEPT",
        "iptables -I FORWARD -o jailrun0 -j ACCEPT",
    ]
    (block,) = find(chain(policy="drop", family="ip6", name="INPUT", hook="input"))
    assert block["advice"] == [
        "ip6tables -I INPUT -i jailrun0 -p udp --dport 53 -j ACCEPT",
        "ip6tables -I INPUT -i jailrun0 -p tcp --dport 53 -j ACCEPT",
    ]


def test_advice_for_docker() -> None:
    base = chain([{"jump": {"target": "DOCKER-USER"}}], policy="drop", family="ip", name="FORWARD")
    (block,) = find(base, chain(family="ip", name="DOCKER-USER"))
    assert block["advice"][0] == "iptables -I DOCKER-USER -i jailrun0 -j ACCEPT"


def test_advice_for_firewalld_and_ufw() -> None:
    (block,) = find(chain([DROP], policy="accept", table="firewalld", name="filter_FORWARD"))
    assert block["advice"][0] == (
        "firewall-cmd --permanent --zone=trusted --add-interface=jailrun0"
    )
    base = chain(policy="drop", family="ip", name="FORWARD")
    (block,) = find(base, chain(family="ip", name="ufw-user-forward"))
    assert block["advice"] == [
        "ufw route allow in on jailrun0",
        "ufw route allow out on jailrun0",
    ]


# --- legacy iptables -----------------------------------------------------------------------------
LEGACY = """\
# Generated by iptables-save
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [12:3456]
:OUTPUT ACCEPT [0:0]
:MINE - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j MINE
-A FORWARD -s 10.0.0.0/8 -i jailrun+ ! -o docker0 -m comment --comment "let it out" -j ACCEPT
-A MINE -i docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A MINE -m recent --name x --rsource -j DROP
-A MINE -d 10.87.0.0/16 -j DROP
COMMIT
"""


def test_legacy_iptables() -> None:
    chains = policy.parse_legacy(LEGACY, "ip")
    (block,) = policy.find_blocks_in(chains, definition(), filters_bridged=False)
    assert block["what"] == (
        '"-A MINE -d 10.87.0.0/16 -j DROP" of chain MINE in legacy iptables\' table ip filter, '
        "which drops it"
    )
    assert block["stops"] == [INTO]
    assert block["advice"] == [
        "iptables-legacy -I FORWARD -i jailrun0 -j ACCEPT",
        "iptables-legacy -I FORWARD -o jailrun0 -j ACCEPT",
    ]


def test_legacy_iptables_policy() -> None:
    text = LEGACY.replace("-A MINE -d", "-A MINE -s 192.0.2.0/24 -d")
    (block,) = policy.find_blocks_in(
        policy.parse_legacy(text, "ip"), definition(), filters_bridged=False
    )
    assert block["what"] == "the policy of chain FORWARD in legacy iptables' table ip filter, drop"


def test_what_the_host_says_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"nftables": chain(policy="drop")})
    monkeypatch.setattr(nft, "query", lambda command: text if command == "list ruleset" else "")
    monkeypatch.setattr(policy, "_read_legacy", lambda family, command: [])
    monkeypatch.setattr(policy, "_filters_bridged", lambda: False)
    assert [block["stops"] for block in policy.find_blocks(definition())] == [[OUT, INTO]]
