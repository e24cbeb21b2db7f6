"""Which of the host's own firewall rules are in the way of a network, and what to type.

Owns: `find_blocks`, which reads the rules of nftables (iptables-nft's are among them) and of legacy
iptables, and follows a network's traffic through them.  Changes nothing, ever.  Out of scope: our
own tables (`jailrun.net.rules`).

A rule that says something about traffic which a network may or may not have (a port, a mark, a
set) counts as not matching: what is found stops a network's traffic in general.
"""

from __future__ import annotations

import os

from jailrun.errors import JailError
from jailrun.jsontext import loads
from jailrun.net import nft
from jailrun.net.addresses import parse_address, parse_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypedDict

    class Block(TypedDict):
        """What is in the way."""

        what: str  # the rule or policy
        stops: list[str]  # which traffic of the network
        advice: list[str]  # commands to type

    Chain = dict[str, Any]  # as nft prints it, with its rules: family, table, name, hook, policy
    Facts = dict[str, Any]  # what is known of a packet, by the keys of `_read_left`

OURS = "jailrun"
OTHER = "\0another interface"
STOPS = {"drop": "drops", "reject": "rejects"}


def find_blocks(definition: Mapping[str, Any]) -> list[Block]:
    """Return what of the host's rules stops the traffic of a network."""
    chains = _read_chains(nft.query("list ruleset"))
    for family, command in (("ip", "iptables"), ("ip6", "ip6tables")):
        chains += _read_legacy(family, command)
    return find_blocks_in(chains, definition, filters_bridged=_filters_bridged())


def find_blocks_in(
    chains: Sequence[Chain], definition: Mapping[str, Any], *, filters_bridged: bool
) -> list[Block]:
    """Return what of these chains stops the traffic of a network."""
    if definition["driver"] != "bridge":
        return []  # the host routes nothing for it
    blocks: dict[str, Block] = {}
    for hook, stops, facts in _list_traffic(definition, filters_bridged=filters_bridged):
        for chain in chains:
            if chain.get("hook") != hook or chain.get("type") != "filter":
                continue
            if chain["family"] not in ("inet", facts["family"]):
                continue
            what = _follow(chain, chains, facts, 0)
            if what is None and chain.get("policy") == "drop":
                what = f"the policy of {_name(chain)}, drop"
            if what is None or what == "accept":
                continue
            advice = _advise(chain, chains, definition["link"], hook)
            block = blocks.setdefault(what, {"what": what, "stops": [], "advice": []})
            block["stops"] += [stops] if stops not in block["stops"] else []
            block["advice"] += [line for line in advice if line not in block["advice"]]
    return list(blocks.values())


def _list_traffic(
    definition: Mapping[str, Any], *, filters_bridged: bool
) -> Iterable[tuple[str, str, Facts]]:
    """Return hook, words and facts of the first packets that must get through."""
    link = definition["link"]
    families = (("ip", "subnet", "gateway"), ("ip6", "subnet6", "gateway6"))
    for family, subnet, gateway in families:
        if not definition[subnet]:
            continue
        base: Facts = {"family": family, "state": "new", "status": ""}
        ours = parse_subnet(definition[subnet])
        inside = (ours.first, ours.last)
        if not definition["internal"]:
            out = {**base, "iifname": link, "oifname": OTHER, "saddr": inside}
            yield "forward", "what its jails send to the outside", out
            into = {**base, "iifname": OTHER, "oifname": link, "daddr": inside, "status": "dnat"}
            yield "forward", "what comes for published ports", into
        if filters_bridged:
            among = {**base, "iifname": link, "oifname": link, "saddr": inside, "daddr": inside}
            yield "forward", "what its jails send to each other", among
        if definition[gateway]:
            number = parse_address(definition[gateway])[1]
            names = {**base, "iifname": link, "saddr": inside, "daddr": (number, number)}
            yield "input", "its jails' questions for names", {**names, "l4proto": "udp", "udp": 53}


# --- following a packet --------------------------------------------------------------------------
def _follow(chain: Chain, chains: Sequence[Chain], facts: Facts, depth: int) -> str | None:
    """Return "accept", which rule stops the packet, or None where the chain does not say."""
    for rule in chain["rules"]:
        verdict, target = _judge(rule["expr"], facts)
        if verdict in ("jump", "goto") and depth < 16:  # as deep as the kernel goes
            next_chain = _find(chains, chain, target)
            result = _follow(next_chain, chains, facts, depth + 1) if next_chain else None
            if result is not None or verdict == "goto":
                return result
        elif verdict == "accept":
            return "accept"
        elif verdict in STOPS:
            handle = f"the rule with handle {rule['handle']}" if "handle" in rule else rule["text"]
            return f"{handle} of {_name(chain)}, which {STOPS[verdict]} it"
        elif verdict == "return":
            return None
    return None


def _judge(expressions: Sequence[Any], facts: Facts) -> tuple[str, str]:
    """Return what a rule does with the packet, and the chain where it is to go on."""
    for expression in expressions:
        kind = expression if isinstance(expression, str) else next(iter(expression))
        value = {} if isinstance(expression, str) else expression[kind]
        if kind == "match":
            if not _matches(value["op"], value["left"], value["right"], facts):
                return "", ""
        elif kind == "limit" or (kind == "xt" and _is_unknown(value)):
            return "", ""
        elif kind == "xt" and value["name"] in ("REJECT", "DROP"):
            return value["name"].lower(), ""
        elif kind in ("accept", "drop", "reject", "return"):
            return kind, ""
        elif kind in ("jump", "goto"):
            return kind, value["target"]
        elif kind == "vmap":
            return _look_up(value, facts)
    return "", ""


def _is_unknown(extension: Any) -> bool:
    """Tell whether an extension of iptables decides by something that nft does not print."""
    if not isinstance(extension, dict):
        return True
    return extension.get("type") == "match" and extension.get("name") != "comment"


def _look_up(value: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    entries = value["data"].get("set", []) if isinstance(value["data"], dict) else []
    for entry in entries:
        if isinstance(entry, list) and len(entry) == 2:
            key, statement = entry
            if _matches("==", value["key"], key, facts):
                return _judge([statement], facts)
    return "", ""


def _matches(operator: str, left: Any, right: Any, facts: Facts) -> bool:
    """Tell whether it is certain that a packet matches."""
    name = _read_left(left, facts)
    if name is None or name not in facts:
        return False
    is_equal = _is_equal(name, facts[name], right)
    return is_equal is not None and is_equal == (operator != "!=")


def _read_left(left: Any, facts: Facts) -> str | None:
    """Return the name of the fact that an expression of nft is about."""
    if not isinstance(left, dict):
        return None
    kind, value = next(iter(left.items()))
    if kind == "meta":
        key = str(value["key"])
        return {"iif": "iifname", "oif": "oifname", "nfproto": "family", "protocol": "family"}.get(
            key, key
        )
    if kind == "ct":
        return str(value["key"])
    if kind == "payload" and isinstance(value, dict) and "field" in value:
        protocol, field = value.get("protocol"), value["field"]
        if protocol == facts["family"]:
            return str(field)
        if protocol in ("udp", "th") and field == "dport":
            return "udp"
    return None


def _is_equal(name: str, fact: Any, right: Any) -> bool | None:
    """Compare a fact with the right side of a match; None where it depends."""
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if isinstance(right, list):
        results = [_is_equal(name, fact, one) for one in right]
        return True if True in results else None if None in results else False
    if isinstance(right, str) and right.startswith("@"):
        return None
    if name == "family":
        return bool({"ipv4": "ip", "ipv6": "ip6"}.get(str(right), right) == fact)
    if name in ("iifname", "oifname"):
        pattern = str(right)
        if pattern.endswith("*"):
            return None if pattern == "*" else str(fact).startswith(pattern[:-1])
        return bool(fact == pattern)
    if name in ("saddr", "daddr"):
        return _is_within(fact, right)
    if isinstance(right, dict) and "range" in right:
        first, last = right["range"]
        numbers = isinstance(first, int) and isinstance(last, int) and isinstance(fact, int)
        return first <= fact <= last if numbers else None
    return bool(fact == right)


def _is_within(fact: tuple[int, int], right: Any) -> bool | None:
    """Tell whether all addresses of a range are among those of a match, None where some are."""
    try:
        if isinstance(right, dict) and "prefix" in right:
            subnet = parse_subnet(f"{right['prefix']['addr']}/{right['prefix']['len']}")
            first, last = subnet.first, subnet.last
        elif isinstance(right, dict) and "range" in right:
            first, last = (parse_address(end)[1] for end in right["range"])
        else:
            first = last = parse_address(str(right))[1]
    except (JailError, KeyError, TypeError, ValueError):  # a form of nft's that we do not know
        return None
    if first <= fact[0] and fact[1] <= last:
        return True
    return None if first <= fact[1] and fact[0] <= last else False


# --- reading -------------------------------------------------------------------------------------
def _read_chains(text: str) -> list[Chain]:
    """Return the chains of ``nft --json list ruleset``, but for our own."""
    chains: dict[tuple[str, str, str], Chain] = {}
    for entry in loads(text)["nftables"] if text.strip() else []:
        if "chain" in entry:
            chain = entry["chain"]
            chains[chain["family"], chain["table"], chain["name"]] = {**chain, "rules": []}
        elif "rule" in entry:
            rule = entry["rule"]
            chain = chains.get((rule["family"], rule["table"], rule["chain"]))
            if chain is not None:
                chain["rules"].append(rule)
    return [chain for chain in chains.values() if chain["table"] != OURS]


def _read_legacy(family: str, command: str) -> list[Chain]:
    """Return the filter table of legacy iptables; the module is not loaded for it."""
    import subprocess

    try:
        fd = os.open(f"/proc/net/{family}_tables_names", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(fd, "rb") as file:
        tables = file.read().split()
    if b"filter" not in tables:
        return []
    words = [f"{command}-legacy-save", "-t", "filter"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return []  # not installed: nobody can have made rules with it, but other programs
    return parse_legacy(done.stdout, family)


def parse_legacy(text: str, family: str) -> list[Chain]:
    """Return the chains of ``iptables-save -t filter``, as nft would print them."""
    import shlex

    chains: dict[str, Chain] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chain: Chain = {"family": family, "table": "filter", "name": name, "rules": []}
            chain["legacy"] = True
            if policy != "-":
                chain.update(hook=name.lower(), type="filter", policy=policy.lower())
            chains[name] = chain
        elif line.startswith("-A "):
            words = shlex.split(line)
            rule = {"text": f'"{line}"', "expr": _parse_rule(words[2:], family)}
            chains[words[1]]["rules"].append(rule)
    return list(chains.values())


def _parse_rule(words: list[str], family: str) -> list[Any]:
    expressions: list[Any] = []
    negated = False
    protocol = ""
    while words:
        word = words.pop(0)
        if word == "!":
            negated = True
            continue
        value = words.pop(0) if words and words[0] != "!" and words[0][0] != "-" else ""
        left: Any = None
        right: Any = value
        if word in ("-i", "-o"):
            left = {"meta": {"key": "iifname" if word == "-i" else "oifname"}}
            right = f"{value[:-1]}*" if value.endswith("+") else value
        elif word in ("-s", "-d"):
            left = {"payload": {"protocol": family, "field": "saddr" if word == "-s" else "daddr"}}
            address, _, length = value.partition("/")
            right = {"prefix": {"addr": address, "len": int(length)}} if length else address
        elif word == "-p":
            protocol = value
            left = {"meta": {"key": "l4proto"}}
        elif word == "--dport" and value.isdigit():
            left, right = {"payload": {"protocol": protocol, "field": "dport"}}, int(value)
        elif word in ("--ctstate", "--state"):
            left = {"ct": {"key": "status" if value == "DNAT" else "state"}}
            right = [state.lower() for state in value.split(",")]
        elif word in ("-j", "-g"):
            verdict = value.lower()
            known = verdict in ("accept", "drop", "reject", "return")
            kind = "goto" if word == "-g" else "jump"
            return [*expressions, {verdict: None} if known else {kind: {"target": value}}]
        elif word not in ("-m", "--comment") and word.startswith("-"):
            return []  # it decides by something that we know nothing of
        if left is not None:
            operator = "!=" if negated else "=="
            expressions.append({"match": {"op": operator, "left": left, "right": right}})
        negated = False
    return expressions


def _filters_bridged() -> bool:
    """Tell whether frames between jails go through the host's rules."""
    try:
        fd = os.open("/proc/sys/net/bridge/bridge-nf-call-iptables", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        return file.read().strip() == b"1"


# --- words ---------------------------------------------------------------------------------------
def _find(chains: Iterable[Chain], near: Chain, name: str) -> Chain | None:
    table = (near["family"], near["table"], near.get("legacy"))
    for chain in chains:
        place = (chain["family"], chain["table"], chain.get("legacy"))
        if chain["name"] == name and place == table:
            return chain
    return None


def _name(chain: Chain) -> str:
    kind = "legacy iptables' table" if chain.get("legacy") else "table"
    return f"chain {chain['name']} in {kind} {chain['family']} {chain['table']}"


def _advise(chain: Chain, chains: Sequence[Chain], link: str, hook: str) -> list[str]:
    """Return commands that let a network's traffic through, in the words of who made the chain."""
    makers: list[tuple[bool, Callable[[Chain, str, str], list[str]]]] = [
        (chain["table"] == "firewalld", _advise_firewalld),
        (_find(chains, chain, "ufw-user-forward") is not None, _advise_ufw),
        (_find(chains, chain, "DOCKER-USER") is not None and hook == "forward", _advise_docker),
        (chain["table"] == "filter" and chain["name"] in ("FORWARD", "INPUT"), _advise_iptables),
    ]
    advise = next((one for is_maker, one in makers if is_maker), _advise_nft)
    return advise(chain, link, hook)


def _advise_firewalld(_chain: Chain, link: str, _hook: str) -> list[str]:
    return [
        f"firewall-cmd --permanent --zone=trusted --add-interface={link}",
        "firewall-cmd --reload",
    ]


def _advise_ufw(_chain: Chain, link: str, hook: str) -> list[str]:
    if hook == "input":
        return [f"ufw allow in on {link} to any port 53"]
    return [f"ufw route allow in on {link}", f"ufw route allow out on {link}"]


def _advise_docker(chain: Chain, link: str, hook: str) -> list[str]:
    return _advise_iptables({**chain, "name": "DOCKER-USER"}, link, hook)


def _advise_iptables(chain: Chain, link: str, hook: str) -> list[str]:
    command = "ip6tables" if chain["family"] == "ip6" else "iptables"
    insert = f"{command}{'-legacy' if chain.get('legacy') else ''} -I {chain['name']}"
    if hook == "input":
        return [f"{insert} -i {link} -p {kind} --dport 53 -j ACCEPT" for kind in ("udp", "tcp")]
    return [f"{insert} -{side} {link} -j ACCEPT" for side in ("i", "o")]


def _advise_nft(chain: Chain, link: str, hook: str) -> list[str]:
    insert = f"nft insert rule {chain['family']} {chain['table']} {chain['name']}"
    if hook == "input":
        return [f'{insert} iifname "{link}" {kind} dport 53 accept' for kind in ("udp", "tcp")]
    return [f'{insert} {side} "{link}" accept' for side in ("iifname", "oifname")]
