"""Traffic rules of a jail: who gets in and out, stateful, also between two jails of one bridge."""

from __future__ import annotations

import itertools
import socket
import subprocess
from collections.abc import Iterator
from struct import pack
from typing import Any

import pytest

from jailrun.net import rules
from jailrun.net.rules import link_local
from jailrun.spec.traffic import parse_publish, parse_rules
from tests.integration.jails import eventually
from tests.integration.net import frames
from tests.integration.net.wires import HOST4, HOST6, OUTSIDE4, OUTSIDE6, Member, Space, Wires

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
pytestmark = pytest.mark.requires("tool:nft", "tool:ip", "tool:ping")


@pytest.fixture(params=[True, False], ids=["nf-call", "no-nf-call"])
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    """Return a host, with bridged frames in its rules or without."""
    made = Wires()
    made.bridge_filter(on=request.param)
    yield made
    made.close()


class Scene:
    """A jail with rules, another without, and who else there is."""

    def __init__(self, wires: Wires, *, allow: str = "", deny: str = "", **changes: Any) -> None:
        self.wires = wires
        self.network = wires.network(0, **changes)
        record: dict[str, Any] = {
            "firewall": parse_rules(allow.split(), deny.split()),
            "publish": [parse_publish("8080:80"), parse_publish("8081:81")],
        }
        self.jail = wires.join(self.network, 2, **record)
        self.other = wires.join(self.network, 3)

    def into(
        self, source: Space, port: int, kind: int = TCP, family: int = 4, *, works: bool = True
    ) -> None:
        """Connect to the jail's own address."""
        target = self.jail.address if family == 4 else self.jail.address6
        self.connects(source, self.jail, target, port, kind, works=works)

    def out(
        self, target: Space, address: str, port: int, kind: int = TCP, *, works: bool = True
    ) -> None:
        """Connect from the jail."""
        self.connects(self.jail, target, address, port, kind, works=works)

    def connects(
        self,
        source: Space,
        server: Space,
        address: str,
        port: int,
        kind: int = TCP,
        *,
        at: int = 0,
        works: bool = True,
    ) -> None:
        """See that a connection works, or not; ``at`` is the server's port where it is another."""
        everywhere = "::" if ":" in address else "0.0.0.0"
        listening = self.wires.listen(server, kind, everywhere, at or port)
        if works:
            assert self.wires.ask(source, address, port, listening), f"{source.name} → {address}"
        else:
            assert self.wires.refuses(source, address, port, listening), (
                f"{source.name} → {address}"
            )
        listening.close()


def pings(source: Space, target: str, *, works: bool = True) -> None:
    """See that an echo comes back, or not."""
    seconds = "5" if works else "0.3"
    command = ["ping", "-n", "-c", "1", "-W", seconds, target]
    with source.entered():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == works, done.stdout


def test_only_what_is_allowed_gets_in(wires: Wires) -> None:
    scene = Scene(wires, allow="in:tcp:80 in:udp:5000-5010")
    for source in (scene.other, wires.host):
        for family in (4, 6):
            scene.into(source, 80, family=family)
            scene.into(source, 81, family=family, works=False)
            scene.into(source, 5010, UDP, family)
            scene.into(source, 5011, UDP, family, works=False)
            scene.into(source, 80, UDP, family, works=False)
    for source, host in itertools.product((wires.outside, scene.other), (HOST4, HOST6)):
        scene.connects(source, scene.jail, host, 8080, at=80)
        scene.connects(source, scene.jail, host, 8081, at=81, works=False)
    scene.connects(wires.host, scene.jail, "127.0.0.1", 8080, at=80)
    scene.connects(wires.host, scene.jail, "127.0.0.1", 8081, at=81, works=False)
    # It calls whom it likes, and hears the answer.
    for target, address in (
        (scene.other, scene.other.address),
        (scene.other, scene.other.address6),
        (wires.outside, OUTSIDE4),
        (wires.outside, OUTSIDE6),
        (wires.host, scene.network["gateway"]),
    ):
        for kind in (TCP, UDP):
            scene.out(target, address, 7000, kind)
    pings(scene.jail, scene.other.address)
    pings(scene.other, scene.jail.address, works=False)


def test_what_is_denied_does_not_get_in(wires: Wires) -> None:
    scene = Scene(wires, deny="in:tcp:81 in:icmp")
    for source in (scene.other, wires.host):
        for family in (4, 6):
            scene.into(source, 80, family=family)
            scene.into(source, 81, family=family, works=False)
            scene.into(source, 81, UDP, family)
    scene.connects(wires.outside, scene.jail, HOST4, 8081, at=81, works=False)
    for source in (scene.other, wires.host):
        pings(source, scene.jail.address, works=False)
        pings(source, scene.jail.address6, works=False)
    pings(scene.jail, scene.other.address)
    pings(scene.jail, scene.other.address6)


def test_what_is_allowed_is_an_exception_of_what_is_denied(wires: Wires) -> None:
    scene = Scene(wires, allow="in:tcp:10.87.0.3:80 in:tcp:[fd87:1::3]:80", deny="in:tcp:80")
    third = wires.join(scene.network, 4)
    for family in (4, 6):
        scene.into(scene.other, 80, family=family)
        scene.into(third, 80, family=family, works=False)
        scene.into(third, 81, family=family)
    # An outside client is known by its own address.
    scene.connects(wires.outside, scene.jail, HOST4, 8080, at=80, works=False)


def test_clients_outside_are_known_by_their_addresses(wires: Wires) -> None:
    scene = Scene(wires, allow=f"in:any:{OUTSIDE4}/32:80 in:any:[2001:db8::]/64:80")
    for host in (HOST4, HOST6):
        scene.connects(wires.outside, scene.jail, host, 8080, at=80)
        scene.connects(wires.outside, scene.jail, host, 8081, at=81, works=False)
    scene.connects(scene.other, scene.jail, HOST4, 8080, at=80, works=False)


def test_what_is_denied_does_not_get_out(wires: Wires) -> None:
    scene = Scene(wires, deny="out:any:192.0.2.0/24 out:tcp:[2001:db8::]/32 out:any:10.87.0.3:90")
    for kind in (TCP, UDP):
        scene.out(wires.outside, OUTSIDE4, 7000, kind, works=False)
        scene.out(wires.host, HOST4, 7000, kind, works=False)
        scene.out(scene.other, scene.other.address, 90, kind, works=False)
        scene.out(scene.other, scene.other.address, 91, kind)
    scene.out(wires.outside, OUTSIDE6, 7000, TCP, works=False)
    scene.out(wires.outside, OUTSIDE6, 7000, UDP)
    pings(scene.jail, OUTSIDE4, works=False)
    # Who was called may answer.
    scene.connects(wires.outside, scene.jail, HOST4, 8080, at=80)
    scene.into(wires.host, 80)


def test_only_what_is_allowed_gets_out(wires: Wires) -> None:
    scene = Scene(wires, allow="out:tcp:7000")
    gateway, gateway6 = scene.network["gateway"], scene.network["gateway6"]
    for target, address in (
        (wires.outside, OUTSIDE4),
        (wires.outside, OUTSIDE6),
        (scene.other, scene.other.address),
        (scene.other, scene.other.address6),
        (wires.host, gateway),
    ):
        scene.out(target, address, 7000)
        scene.out(target, address, 7001, works=False)
        scene.out(target, address, 7000, UDP, works=False)
    for address in (gateway, gateway6):
        for kind in (TCP, UDP):
            scene.out(wires.host, address, 53, kind)
    scene.out(wires.outside, OUTSIDE4, 53, UDP, works=False)
    scene.into(scene.other, 80)


def test_nothing_at_all(wires: Wires) -> None:
    scene = Scene(wires, deny="in out")
    for kind in (TCP, UDP):
        scene.into(scene.other, 80, kind, works=False)
        scene.into(wires.host, 80, kind, 6, works=False)
        scene.out(scene.other, scene.other.address, 80, kind, works=False)
        scene.out(wires.outside, OUTSIDE6, 80, kind, works=False)
    scene.out(wires.host, scene.network["gateway"], 53, UDP)


def test_rules_hold_in_an_internal_network(wires: Wires) -> None:
    scene = Scene.__new__(Scene)
    scene.wires, scene.network = wires, wires.network(0, internal=True)
    firewall = parse_rules([], ["in:tcp:81"])
    scene.jail = wires.join(scene.network, 2, firewall=firewall)
    scene.other = wires.join(scene.network, 3)
    scene.into(scene.other, 80)
    scene.into(scene.other, 81, works=False)


def test_both_ends_have_rules(wires: Wires) -> None:
    scene = Scene(wires, deny="in:tcp:81")
    third = wires.join(scene.network, 4, firewall=parse_rules([], ["out:tcp:82"]))
    for family in (4, 6):
        scene.into(third, 80, family=family)
        scene.into(third, 81, family=family, works=False)
        scene.into(third, 82, family=family, works=False)


# --- ways around -------------------------------------------------------------------------------
def hears(
    wires: Wires, listener: Member, sender: Member, target_mac: str, target: str, port: int = 90
) -> bool:
    """Tell whether a frame's text is heard, where the next one, from the host, is."""
    at = wires.listen(listener, UDP, "::" if ":" in target else "0.0.0.0", port)
    source = sender.address6 if ":" in target else sender.address
    packet = frames.ip(source, target, frames.UDP, udp_text(source, target, port))
    kind = frames.IP6 if ":" in target else frames.IP
    with sender.packets("eth0") as out:
        out.send(frames.ether(sender.mac, target_mac, kind, packet))
    own = listener.address6 if ":" in target else listener.address
    with wires.host.bound(UDP, "::" if ":" in target else "0.0.0.0") as last:
        last.sendto(b"last", (own, port))
    heard = at.recv(100) != b"last"
    at.close()
    return heard


def udp_text(source: str, target: str, port: int) -> bytes:
    """Return a datagram with its checksum, which IPv6 asks for."""
    text = frames.udp(7000, port, b"around")
    pseudo = frames.address_bytes(source) + frames.address_bytes(target)
    pseudo += pack(">II", len(text), frames.UDP)
    return text[:6] + pack(">H", frames.checksum(pseudo + text)) + text[8:]


def test_no_way_around_in(wires: Wires) -> None:
    """Port 90 is open to the host only."""
    allow = "in:udp:10.87.0.1:90 in:udp:[fd87:1::1]:90"
    scene = Scene(wires, allow=allow)
    plain = wires.join(scene.network, 5)
    for name, mac, target in (
        ("broadcast", frames.EVERYONE, "10.87.0.255"),
        ("broadcast to all", frames.EVERYONE, "255.255.255.255"),
        ("its address in a broadcast frame", frames.EVERYONE, "{address}"),
        ("broadcast in its own frame", "{mac}", "10.87.0.255"),
        ("IPv6 in a multicast frame", "33:33:00:00:00:01", "{address6}"),
        ("multicast", "33:33:00:00:00:01", "ff02::1"),
    ):

        def heard(listener: Member, mac: str = mac, target: str = target) -> bool:
            words = {
                "mac": listener.mac,
                "address": listener.address,
                "address6": listener.address6,
            }
            return hears(wires, listener, scene.other, mac.format(**words), target.format(**words))

        if name != "IPv6 in a multicast frame":  # the kernel does not take it
            assert heard(plain), f"{name}: the test does not work"
        assert not heard(scene.jail), name


def test_no_way_around_out(wires: Wires) -> None:
    scene = Scene(wires, deny="out:udp")
    for mac, target in (
        (frames.EVERYONE, "10.87.0.255"),
        (frames.EVERYONE, scene.other.address),
        (scene.other.mac, scene.other.address),
        ("33:33:00:00:00:01", "ff02::1"),
        (scene.other.mac, scene.other.address6),
    ):
        assert not hears(wires, scene.other, scene.jail, mac, target), target


def test_no_way_around_by_link_local_addresses(wires: Wires) -> None:
    scene = Scene(wires, deny="in:tcp:81")
    local = link_local(scene.jail.mac)
    host = scene.network["link"]
    scene.connects(scene.other, scene.jail, f"{local}%eth0", 81, works=False)
    scene.connects(wires.host, scene.jail, f"{local}%{host}", 81, works=False)
    scene.connects(wires.host, scene.jail, f"{local}%{host}", 80)


def test_host_sends_no_redirects(wires: Wires) -> None:
    """Neighbours must not learn a way around the host, which would be refused."""
    scene = Scene(wires, deny="in:tcp:81")
    wires.host.sysctl(ipv4__conf__all__send_redirects=1)
    with scene.other.packets("eth0") as seen:
        scene.into(scene.other, 80, family=6)
        scene.into(scene.other, 80, family=6)
        # The first of IPv4 get lost in the kernel's address translation, which is for later ones.
        with scene.other.bound(UDP, scene.other.address) as sender:

            def goes_on() -> bool:
                sender.sendto(b"x", (scene.jail.address, 90))
                return count_redirects(wires.host) > 3

            eventually(goes_on, "words of the host that there is a shorter way")
        last = wires.listen(wires.host, UDP, scene.network["gateway"], 90)
        assert wires.ask(scene.other, scene.network["gateway"], 90, last)
        while True:
            frame = seen.recv(4000)
            if b"pong" in frame:
                break
            assert not (frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 5)
            assert not (frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 137)


def count_redirects(host: Space) -> int:
    """Return how many the host has wanted to send."""
    names, values = (
        line.split()
        for line in host.run("cat", "/proc/net/snmp").splitlines()
        if line.startswith("Icmp:")
    )
    return int(dict(zip(names, values, strict=True))["OutRedirects"])


def test_rules_go_with_the_jail(wires: Wires) -> None:
    scene = Scene(wires, deny="in:tcp:81 out:udp")
    scene.into(scene.other, 81, works=False)
    wires.remove(rules.jail_removal_text(scene.jail.record))  # type: ignore[arg-type]
    shown = wires.host.run("nft", "list", "ruleset")
    assert scene.jail.link not in shown
    assert scene.jail.address not in shown
    wires.apply(rules.jail_text({**scene.jail.record, "firewall": []}))  # type: ignore[typeddict-item]
    scene.into(scene.other, 81)
