"""The firewall of networks as text for nft(8): two tables of ours, ``jailrun``.

Owns: what is masqueraded, published, isolated and refused, for both families.  Pure.  Out of
scope: running the text (`jailrun.net.nft`), the host's own rules, which are never touched
(`jailrun.net.policy` says which of them are in the way).

Table ``inet jailrun`` filters and translates what the host routes; ``bridge jailrun`` sees each
frame that a jail sends, and refuses what is forged.  Their rules are fixed and work with sets and
maps, all keyed by interfaces of ours, so that other bridges and jails are not concerned.  A network
and a jail only add elements: a transaction of the same size with the first jail and the 200th.

The exception is a jail with traffic rules of its own, which gets chains, named by its link:

* ``out-LINK`` judges what the jail sends, by the address that it has dialled; ``in-LINK`` what is
  sent to it, by the port in the jail.  The sets that would hold such rules as elements (directions,
  protocols, prefixes and port ranges at once) cost each packet of all jails more than a chain does.
* The kernel tracks no connections on a bridge (without NF_CONNTRACK_BRIDGE).  So frames from and to
  such a jail are addressed to the host's end of its link, which makes the host route them, through
  the chains, also between two jails of one bridge.  What cannot be routed is refused there, but for
  ARP and neighbour discovery: broadcasts, multicasts, link-local connections between jails.

With bridge-nf-call-iptables on, as it is by default where the kernel has br_netfilter, bridged
frames go through the table inet, too, with the bridge as both interfaces.
"""

from __future__ import annotations

from _socket import AF_INET6, inet_ntop, inet_pton

from jailrun.errors import NetworkError, UnsupportedError
from jailrun.net.definition import BRIDGE_DRIVERS
from jailrun.net.links import host_mac
from jailrun.net.ruleset import BRIDGE, INET, OBJECTS, RULES
from jailrun.spec.traffic import ANY4, ANY6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.net.definition import Definition
    from jailrun.net.model import Network, NetworkNic
    from jailrun.spec.extensions import PublishedPort, TrafficRule

    Elements = list[tuple[str, str, list[str]]]  # table, set or map, elements


# --- tables and networks -------------------------------------------------------------------------
def table_text() -> str:
    """Return what makes the tables, or renews their rules; elements stay as they are."""
    lines = [OBJECTS]
    for table, chains in RULES.items():
        lines += [f"flush chain {table} {chain}\n" for chain in chains]
        for chain, rules in chains.items():
            lines += [f"add rule {table} {chain} {rule}\n" for rule in rules]
    return "".join(lines)


def network_text(definition: Definition) -> str:
    """Return what makes a network known to the tables, which are made where they are missing."""
    if definition["driver"] not in BRIDGE_DRIVERS:
        return ""
    return table_text() + _format_add(_network_elements(definition))


def network_removal_text(definition: Definition) -> str:
    """Return, for `jailrun.net.nft.remove`, what makes the tables forget a network."""
    return _format_removal(_network_elements(definition))


def last_removal_text() -> str:
    """Return what removes the tables, once there is no network."""
    return "".join(f"add table {table}\ndelete table {table}\n" for table in (INET, BRIDGE))


def _network_elements(definition: Definition) -> Elements:
    if definition["driver"] != "bridge":
        return []  # the host's own bridge: its ports are ours, its addresses are not
    link = f'"{definition["link"]}"'
    internal = definition["internal"]
    elements: Elements = [
        (INET, "bridges", [link]),
        (INET, "internal", [link] if internal else []),
        (INET, "joined", [] if definition["isolate"] else [f"{link} . {link}"]),
    ]
    for version, subnet in (("4", definition["subnet"]), ("6", definition["subnet6"])):
        elements.append((INET, f"near{version}", [subnet] if subnet else []))
        elements.append((INET, f"subnets{version}", [subnet] if subnet and not internal else []))
    return elements


# --- jails ---------------------------------------------------------------------------------------
def jail_text(network: Network) -> str:
    """Return what makes a jail known to the tables, before it has its interfaces."""
    return _format_chains(network) + _format_add(_jail_elements(network))


def jail_removal_text(network: Network) -> str:
    """Return, for `jailrun.net.nft.remove`, what makes the tables forget a jail."""
    blocks = [_format_removal(_jail_elements(network))]
    blocks += [
        f"add chain {INET} {chain}\nflush chain {INET} {chain}\ndelete chain {INET} {chain}\n"
        for chain in _name_chains(network).values()
    ]
    return "\n".join(block for block in blocks if block)


def _jail_elements(network: Network) -> Elements:
    elements: Elements = []
    for nic in network["nics"]:
        if nic["driver"] in BRIDGE_DRIVERS:
            elements += _nic_elements(nic)
    chains = _name_chains(network)
    if chains:
        for nic in network["nics"]:
            elements += _guard_elements(nic, chains)
    return elements + _published_elements(network)


def _nic_elements(nic: NetworkNic) -> Elements:
    """What an interface may send: anything else is forged."""
    link, mac, local = f'"{nic["link"]}"', nic["mac"], link_local(nic["mac"])
    addresses6 = [local, nic["address6"]] if nic["address6"] else [local]
    # On a bridge of the host's whose addresses others give out, we cannot know the jail's.
    unknown = nic["driver"] == "host-bridge" and not nic["address"] and not nic["address6"]
    return [
        (BRIDGE, "ports", [f"{link} . {mac}"]),
        (BRIDGE, "own4", [f"{link} . {mac} . {nic['address']}"] if nic["address"] else []),
        (BRIDGE, "own6", [f"{link} . {mac} . {address}" for address in addresses6]),
        (BRIDGE, "told6", [f"{link} . 0x{_hex6(address)}" for address in addresses6]),
        (BRIDGE, "unaddressed", [link] if unknown else []),
        (BRIDGE, "isolated", [link] if nic.get("isolate") else []),
    ]


def _guard_elements(nic: NetworkNic, chains: dict[str, str]) -> Elements:
    """What has the host route, and judge, an interface's traffic."""
    link, mac, target = f'"{nic["link"]}"', nic["mac"], host_mac(nic["link"])
    bridge, local = f'"{nic["bridge"]}"', link_local(mac)
    address, address6 = nic["address"], nic["address6"]
    elements: Elements = [
        (BRIDGE, "guarded", [link]),
        (BRIDGE, "lift_from", [f"{link} : {target}"]),
        (BRIDGE, "lift_to4", [f"{mac} . {address} : {target}"] if address else []),
        (BRIDGE, "lift_to6", [f"{mac} . {address6} : {target}"] if address6 else []),
    ]
    for direction, chain in chains.items():
        known6 = [local, address6] if address6 else [local]
        to_chain = f"goto {chain}"
        elements += [
            (INET, f"{direction}4", [f"{bridge} . {address} : {to_chain}"] if address else []),
            (INET, f"{direction}6", [f"{bridge} . {one} : {to_chain}" for one in known6]),
        ]
    return elements


# --- published ports -----------------------------------------------------------------------------
def _published_elements(network: Network) -> Elements:
    found: dict[str, list[str]] = {}
    for port in network["publish"]:
        host_address = port["host_address"]
        single = host_address not in ("", ANY4, ANY6)
        targets = _find_targets(network, port)
        for step in range(port["count"]):
            outside = f"{port['protocol']} . {port['host_port'] + step}"
            inside = port["jail_port"] + step
            for family, target in targets.items():
                key = f"{host_address} . {outside}" if single else outside
                name = f"given{family}" if single else f"any{family}"
                found.setdefault(name, []).append(f"{key} : {target} . {inside}")
    return [(INET, name, elements) for name, elements in found.items()]


def _find_targets(network: Network, port: PublishedPort) -> dict[str, str]:
    """Return the jail's addresses, by family, that a published port leads to."""
    reachable = [nic for nic in network["nics"] if nic["driver"] == "bridge"]
    reachable = [nic for nic in reachable if not nic["internal"]]
    targets = {
        "4": next((nic["address"] for nic in reachable if nic["address"]), ""),
        "6": next((nic["address6"] for nic in reachable if nic["address6"]), ""),
    }
    host_address = port["host_address"]
    if host_address:
        del targets["4" if ":" in host_address else "6"]
    targets = {family: target for family, target in targets.items() if target}
    if not targets:
        family = {True: "IPv6 ", False: "IPv4 "}[":" in host_address] if host_address else ""
        raise NetworkError(
            f"cannot publish port {port['host_port']}: the jail has no {family}address in a "
            "network of the driver bridge that is not internal",
            hint="add one, as --net default",
        )
    return targets


# --- traffic rules -------------------------------------------------------------------------------
def _name_chains(network: Network) -> dict[str, str]:
    """Return the names of a jail's own chains by direction; of one without rules there is none."""
    if not network["firewall"] or not network["nics"]:
        return {}
    directions = {rule["direction"] for rule in network["firewall"]}
    link = network["nics"][0]["link"]
    return {name: f"{name}-{link}" for name in ("in", "out") if name in directions}


def _format_chains(network: Network) -> str:
    chains = _name_chains(network)
    if not chains:
        return ""
    for nic in network["nics"]:
        if nic["driver"] != "bridge":
            raise UnsupportedError(
                f"traffic rules need networks of the driver bridge, {nic['network']} has the "
                f"driver {nic['driver']}",
                hint="jailrun net create NAME makes one",
            )
    lines = []
    for direction, chain in chains.items():
        rules = [rule for rule in network["firewall"] if rule["direction"] == direction]
        lines += [f"add chain {INET} {chain}", f"flush chain {INET} {chain}"]
        lines += [f"add rule {INET} {chain} {rule}" for rule in _format_rules(rules, network)]
    return "\n".join(lines) + "\n"


def _format_rules(rules: list[TrafficRule], network: Network) -> list[str]:
    """Return the rules of one direction; what was accepted before never comes here."""
    formatted = []
    if rules[0]["direction"] == "out":
        for nic in network["nics"]:
            for family, gateway in (("ip", nic["gateway"]), ("ip6", nic["gateway6"])):
                if gateway:
                    formatted += [
                        f"{family} daddr {gateway} {protocol} dport 53 accept"
                        for protocol in ("udp", "tcp")
                    ]
    for action, verdict in (("allow", "accept"), ("deny", "drop")):
        for rule in rules:
            if rule["action"] == action:
                formatted += [f"{match}{verdict}" for match in _format_matches(rule)]
    if all(rule["action"] == "allow" for rule in rules):
        formatted.append("drop")
    return formatted


def _format_matches(rule: TrafficRule) -> list[str]:
    """Return what a rule matches: several matches where one would need a set of its own."""
    match, address, protocol = "", rule["address"], rule["protocol"]
    if address:
        side = "daddr" if rule["direction"] == "out" else "saddr"
        match = f"{'ip6' if ':' in address else 'ip'} {side} {address} "
    if protocol == "icmp":
        return [f"{match}meta l4proto {name} " for name in ("icmp", "icmpv6")]
    if rule["port"]:
        ports = f"{rule['port']}-{rule['last_port']}"
        if rule["last_port"] in (0, rule["port"]):
            ports = str(rule["port"])
        names = ("tcp", "udp") if protocol == "any" else (protocol,)
        return [f"{match}{name} dport {ports} " for name in names]
    return [match if protocol == "any" else f"{match}meta l4proto {protocol} "]


# --- words ---------------------------------------------------------------------------------------
def link_local(mac: str) -> str:
    """Return the link-local address that the kernel makes of a MAC (RFC 4291, EUI-64)."""
    first, *rest = (int(byte, 16) for byte in mac.split(":"))
    identifier = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return inet_ntop(AF_INET6, b"\xfe\x80" + bytes(6) + identifier)


def _hex6(address: str) -> str:
    return inet_pton(AF_INET6, address).hex()


def _format_add(elements: Elements) -> str:
    return "".join(
        f"add element {table} {name} {{ {', '.join(entries)} }}\n"
        for table, name, entries in elements
        if entries
    )


def _format_removal(elements: Elements) -> str:
    """Return blocks; each adds first, since to delete what is not there is an error."""
    blocks = []
    for table, name, entries in elements:
        if entries:
            what = f"element {table} {name} {{ {', '.join(entries)} }}\n"
            blocks.append(f"add {what}delete {what}")
    return "\n".join(blocks)
