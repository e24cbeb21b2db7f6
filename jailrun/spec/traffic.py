"""Published ports, and rules for what a jail may send and receive.

Owns: the options ``publish``, ``deny`` and those of ``allow`` that are rules of traffic; what of
them clashes.  Out of scope: whether a port of the host is free, and the packet filter
(`jailrun.net`).
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.addresses import is_ipv4, parse_address, parse_subnet
from jailrun.units import is_digits, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jailrun.spec.extensions import PublishedPort, TrafficRule

PORT_MAX = 65535
# As the host's address: all of that family.  Without one, a port is that of all of both.
ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104 - the user's words
PROTOCOLS = ("any", "tcp", "udp", "icmp")
_PUBLISH_HINT = "write [HOST_ADDRESS:][HOST_PORT:]PORT[/udp], as 8080:80 or [fd00::1]:8080:80"
_RULE_HINT = "write in or out[:any|tcp|udp|icmp][:ADDRESS[/PREFIX]][:PORT[-LAST]], as in:tcp:80"


def parse_ports(text: str, what: str) -> tuple[int, int]:
    """Return the first and the last port of ``80`` or ``8000-8010``."""
    first, dash, last = text.partition("-")
    for number in (first, last if dash else first):
        if not is_digits(number) or not 0 < int(number) <= PORT_MAX:
            raise JailError(
                f"{what}: {show(number)} is not a port",
                hint=f"write a number from 1 to {PORT_MAX}, or a range as 8000-8010",
            )
    ports = int(first), int(last or first)
    if ports[0] > ports[1]:
        raise JailError(
            f"{what}: the range {show(text)} goes down", hint=f"write {ports[1]}-{ports[0]}"
        )
    return ports


# --- published ports ------------------------------------------------------------------------------
def parse_publish(text: str) -> PublishedPort:
    """Return what ``[HOST_ADDRESS:][HOST_PORT[-LAST]:]PORT[-LAST][/tcp|/udp]`` describes.

    Without a port of the host it is the one of the jail.
    """
    what = f"publish {show(text)}"
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp"):
        raise JailError(f"{what}: {show(protocol)} cannot be published", hint="valid: tcp, udp")
    address, outside, inside = _split_publish(body, what)
    jail = parse_ports(inside, what)
    host = parse_ports(outside, what) if outside else jail
    counts = host[1] - host[0] + 1, jail[1] - jail[0] + 1
    if counts[0] != counts[1]:
        raise JailError(
            f"{what}: {counts[0]} {_ports(counts[0])} of the host cannot lead to {counts[1]} "
            "of the jail",
            hint=f"write two ranges of the same length, as {jail[0]}-{jail[1]}:{inside}",
        )
    return {
        "protocol": protocol,
        "host_address": _parse_host_address(address, what) if address else "",
        "host_port": host[0],
        "jail_port": jail[0],
        "count": counts[0],
    }


def _ports(count: int) -> str:
    return "ports" if count > 1 else "port"


def _split_publish(body: str, what: str) -> tuple[str, str, str]:
    """Return the host's address and its port, both empty where not said, and the jail's port."""
    if body.startswith("["):
        address, bracket, rest = body[1:].partition("]")
        parts = rest.split(":")[1:]
        if bracket and rest[:1] == ":" and len(parts) in (1, 2):
            return address, parts[0] if len(parts) == 2 else "", parts[-1]
    else:
        parts = body.split(":")
        if len(parts) == 1:
            return "", "", body
        if len(parts) == 2 and parts[0]:
            if is_ipv4(parts[0]):
                return parts[0], "", parts[1]
            return "", parts[0], parts[1]
        if len(parts) == 3 and parts[0]:
            return parts[0], parts[1], parts[2]
    raise JailError(f"{what} is not valid", hint=_PUBLISH_HINT)


def _parse_host_address(text: str, what: str) -> str:
    address = parse_address(
        text, f"{what}: the host's address", but=("multicast", "reserved", "IPv4-mapped")
    )
    if address == "::1" or address.startswith("fe80:"):
        raise JailError(
            f"{what}: the kernel forwards nothing that comes for {address}",
            hint="write 127.0.0.1, or an address of a network interface",
        )
    return address


def format_publish(port: PublishedPort) -> str:
    """Return what `parse_publish` reads, in the shortest form with both ports: 8080:80."""
    address = port["host_address"]
    parts = [f"[{address}]" if ":" in address else address] if address else []
    for first in (port["host_port"], port["jail_port"]):
        last = first + port["count"] - 1
        parts.append(f"{first}-{last}" if last > first else str(first))
    protocol = "" if port["protocol"] == "tcp" else f"/{port['protocol']}"
    return f"{':'.join(parts)}{protocol}"


def find_clash(ports: Sequence[PublishedPort]) -> tuple[int, int, int] | None:
    """Return the places of two entries that want one port of the host, and that port."""
    for later, one in enumerate(ports):
        for earlier, other in enumerate(ports[:later]):
            overlap = have_common_address(one["host_address"], other["host_address"])
            if one["protocol"] == other["protocol"] and overlap:
                first = max(one["host_port"], other["host_port"])
                if first < min(each["host_port"] + each["count"] for each in (one, other)):
                    return earlier, later, first
    return None


def have_common_address(one: str, other: str) -> bool:
    """Tell whether two host addresses, each of which may stand for several, have one in common."""
    if one == other or "" in (one, other):
        return True
    return (":" in one) == (":" in other) and not {one, other}.isdisjoint((ANY4, ANY6))


def parse_publishes(texts: Sequence[str]) -> list[PublishedPort]:
    """Return what several options say, of which no two want the same port of the host."""
    ports = [parse_publish(text) for text in texts]
    clash = find_clash(ports)
    if clash is not None:
        earlier, later, port = clash
        protocol = ports[later]["protocol"]
        raise JailError(
            f"publish {show(texts[later])} and {show(texts[earlier])} want the same port of the "
            f"host, {protocol} {port}",
            hint="publish it once, or choose another port of the host for one of them",
        )
    return ports


# --- rules ----------------------------------------------------------------------------------------
def is_rule(text: str) -> bool:
    """Tell whether an entry of ``allow`` is a rule of traffic, not the name of a right."""
    return ":" in text or text in ("in", "out")


def parse_rule(action: str, text: str) -> TrafficRule:
    """Return what ``in|out[:PROTOCOL][:ADDRESS[/PREFIX]][:PORT[-LAST]]`` describes."""
    what = f"{action} {show(text)}"
    direction, *words = _split_rule(text)
    if direction not in ("in", "out"):
        raise JailError(f"{what} says not whether it is for in or out", hint=_RULE_HINT)
    rule: TrafficRule = {
        "action": action,
        "direction": direction,
        "protocol": words.pop(0) if words and words[0] in PROTOCOLS else "any",
        "address": "",
        "port": 0,
        "last_port": 0,
    }
    if words and not is_digits(words[0].partition("-")[0]):
        if words[0].isalpha():
            raise JailError(
                f"{what}: {show(words[0])} is not a protocol",
                hint=f"valid: {', '.join(PROTOCOLS)}",
            )
        rule["address"] = parse_subnet(words.pop(0), f"{what}: the address")
    if words:
        rule["port"], rule["last_port"] = parse_ports(words.pop(0), what)
        if rule["protocol"] == "icmp":
            raise JailError(f"{what}: icmp has no ports", hint="write tcp or udp")
    if words:
        raise JailError(f"{what} is not valid", hint=_RULE_HINT)
    return rule


def _split_rule(text: str) -> list[str]:
    """Return the words between the colons that are not in brackets."""
    words, inside = [""], False
    for letter in text:
        inside = letter == "[" or (inside and letter != "]")
        if letter == ":" and not inside:
            words.append("")
        else:
            words[-1] += letter
    return words


def parse_rules(allowed: Iterable[str], denied: Iterable[str]) -> list[TrafficRule]:
    """Return all rules, each once; what is allowed and denied in the same words is refused."""
    rules: list[TrafficRule] = []
    for action, texts in (("allow", allowed), ("deny", denied)):
        for text in texts:
            rule = parse_rule(action, text)
            opposite: TrafficRule = {**rule, "action": "allow"}
            if action == "deny" and opposite in rules:
                raise JailError(
                    f"{show(text)} is both allowed and denied", hint="leave one of them out"
                )
            if rule not in rules:
                rules.append(rule)
    return rules
