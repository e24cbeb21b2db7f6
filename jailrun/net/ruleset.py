"""The rules of the two tables ``jailrun``, as data: the same on every host, whatever runs there.

Owns: the sets and maps that networks and jails add elements to, and the chains that use them.  Why
they are so is in `jailrun.net.rules`, which makes text of them.
"""

from __future__ import annotations

INET = "inet jailrun"
BRIDGE = "bridge jailrun"

# Sets and maps, and the chains at their hooks.  Priorities are numbers: nft 1.0.6 knows no names
# for some of these hooks.
OBJECTS = """\
table inet jailrun {
  set bridges { type ifname; }
  set internal { type ifname; }
  set joined { type ifname . ifname; }
  set near4 { type ipv4_addr; flags interval; }
  set near6 { type ipv6_addr; flags interval; }
  set subnets4 { type ipv4_addr; flags interval; }
  set subnets6 { type ipv6_addr; flags interval; }
  map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
  map given4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map given6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map out4 { type ifname . ipv4_addr : verdict; }
  map out6 { type ifname . ipv6_addr : verdict; }
  map in4 { type ifname . ipv4_addr : verdict; }
  map in6 { type ifname . ipv6_addr : verdict; }
  chain sent { type filter hook prerouting priority -110; policy accept; }
  chain dialled { type nat hook prerouting priority -100; policy accept; }
  chain dialled_here { type nat hook output priority -100; policy accept; }
  chain input { type filter hook input priority 0; policy accept; }
  chain forward { type filter hook forward priority 0; policy accept; }
  chain received { type filter hook postrouting priority 90; policy accept; }
  chain leaving { type nat hook postrouting priority 100; policy accept; }
  chain published { }
  chain from_internal { }
}
table bridge jailrun {
  set ports { type ifname . ether_addr; }
  set own4 { type ifname . ether_addr . ipv4_addr; }
  set own6 { type ifname . ether_addr . ipv6_addr; }
  set told6 { typeof iifname . @th,64,128; }
  set unaddressed { type ifname; }
  set isolated { type ifname; }
  set guarded { type ifname; }
  map lift_from { type ifname : ether_addr; }
  map lift_to4 { type ether_addr . ipv4_addr : ether_addr; }
  map lift_to6 { type ether_addr . ipv6_addr : ether_addr; }
  chain prerouting { type filter hook prerouting priority -300; policy accept; }
  chain forward { type filter hook forward priority -300; policy accept; }
  chain output { type filter hook output priority -300; policy accept; }
  chain sent { }
  chain sent_arp { }
  chain sent_ip { }
  chain sent_ip6 { }
  chain to_many { }
  chain to_guarded { }
}
"""

# The comments say what a rule is for where it does not say so itself.
RULES = {
    INET: {
        "sent": (
            "iifname != @bridges accept",
            "ip daddr 127.0.0.0/8 drop",  # route_localnet is on, for ports published there
            "ct state established,related accept",
            "icmpv6 type { 130-137, 143 } accept",  # neighbours, routers, multicast listeners
            "iifname . ip saddr vmap @out4",
            "iifname . ip6 saddr vmap @out6",
        ),
        "dialled": (
            # From outside the kernel refuses these (martians), but it looks only after this.
            "ip daddr 127.0.0.0/8 return",
            "fib daddr type local jump published",
        ),
        "dialled_here": ("fib daddr type local jump published",),
        "published": (
            "dnat ip to ip daddr . meta l4proto . th dport map @given4",
            "dnat ip to meta l4proto . th dport map @any4",
            # The kernel routes nothing from or to these: better refused than lost.
            "ip6 daddr { ::1, fe80::/10 } return",
            "dnat ip6 to ip6 daddr . meta l4proto . th dport map @given6",
            "dnat ip6 to meta l4proto . th dport map @any6",
        ),
        "input": (
            # What the host has on one bridge, a resolver for instance, is for that network alone.
            "iifname @bridges ip daddr @near4 fib daddr . iif type != local drop",
            "iifname @bridges ip6 daddr @near6 fib daddr . iif type != local drop",
            "iifname @internal goto from_internal",
        ),
        "from_internal": (
            "ct state established,related accept",
            "icmpv6 type { 130-137, 143 } accept",
            "fib daddr . iif type local meta l4proto { tcp, udp } th dport 53 accept",
            "drop",
        ),
        "forward": (
            "iifname != @bridges oifname != @bridges accept",
            # Of a link alone, and not tracked: never routed.
            "icmpv6 type { 130-137, 143 } iifname . oifname != @joined drop",
            "ct state established,related accept",
            "iifname . oifname @joined accept",
            "iifname @internal drop",
            "oifname @internal drop",
            "ct status dnat accept",
            "oifname @bridges drop",
        ),
        "received": (
            "oifname != @bridges accept",
            "ct state established,related accept",
            "icmpv6 type { 130-137, 143 } accept",
            "oifname . ip daddr vmap @in4",
            "oifname . ip6 daddr vmap @in6",
        ),
        "leaving": (
            "oifname != @bridges ip saddr @subnets4 masquerade",
            "oifname != @bridges ip6 saddr @subnets6 masquerade",
            "oifname @bridges ip saddr 127.0.0.0/8 masquerade",
            # A jail dials a published port: without this the answer would go to it directly, from
            # an address that it has not dialled, or through another network that both are in.
            "oifname @bridges ct status dnat ip saddr @subnets4 masquerade",
            "oifname @bridges ct status dnat ip6 saddr @subnets6 masquerade",
        ),
    },
    BRIDGE: {
        "prerouting": (
            'iifname "jr*" jump sent',
            "meta pkttype != other accept",  # for the host, which routes it, or for many
            "iifname @isolated drop",
            "icmpv6 type 133-137 accept",
            "ether daddr set ether daddr . ip daddr map @lift_to4 meta pkttype set host accept",
            "ether daddr set ether daddr . ip6 daddr map @lift_to6 meta pkttype set host accept",
            "ether type { ip, ip6 } ether daddr set iifname map @lift_from meta pkttype set host",
        ),
        "sent": (
            "ether type vmap { arp : goto sent_arp, ip : goto sent_ip, ip6 : goto sent_ip6 }",
            "drop",
        ),
        "sent_arp": (
            "iifname . ether saddr != @ports drop",
            "arp htype != 1 drop",
            "arp ptype != ip drop",
            "arp hlen != 6 drop",
            "arp plen != 4 drop",
            "iifname . arp saddr ether != @ports drop",
            "iifname . arp saddr ether . arp saddr ip @own4 return",
            "arp saddr ip 0.0.0.0 arp operation request return",  # a probe (RFC 5227)
            "iifname @unaddressed return",
            "drop",
        ),
        "sent_ip": (
            "meta l4proto tcp iifname . ether saddr . ip saddr @own4 return",  # most, at once
            "iifname . ether saddr != @ports drop",
            "udp sport 67 drop",  # a DHCP server
            "icmp type redirect drop",
            "iifname . ether saddr . ip saddr @own4 return",
            "iifname @unaddressed return",
            "drop",
        ),
        "sent_ip6": (
            "meta l4proto tcp iifname . ether saddr . ip6 saddr @own6 return",
            "iifname . ether saddr != @ports drop",
            "udp sport 547 drop",
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
            "iifname @unaddressed return",
            "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @told6 drop",
            "iifname . ether saddr . ip6 saddr @own6 return",
            # What a host sends before its link-local address may be used
            "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, 131, 143 } return",
            "drop",
        ),
        "forward": (
            "meta pkttype { broadcast, multicast } jump to_many",
            "oifname @guarded goto to_guarded",
        ),
        "to_many": (
            "iifname @isolated oifname @isolated drop",
            "ether type arp accept",
            "icmpv6 type 133-137 accept",
            "iifname @guarded drop",
        ),
        # Bridged after all: with br_netfilter, a published port that was dialled on the same
        # bridge; it has been through the chains of the table inet.
        "to_guarded": (
            "ether type arp accept",
            "icmpv6 type 133-137 accept",
            "oifname . ether daddr . ip daddr @own4 accept",
            "ip6 daddr != fe80::/10 oifname . ether daddr . ip6 daddr @own6 accept",
            "drop",
        ),
        # The host routes frames back to where they came from, and is to make no words of it.
        "output": (
            'oifname "jr*" icmp type redirect drop',
            'oifname "jr*" icmpv6 type nd-redirect drop',
        ),
    },
}  # fmt: skip
