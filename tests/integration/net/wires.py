"""Network namespaces wired by hand, for tests of the firewall alone: no jail, no engine.

Owns: `Space` (a namespace in which this process makes sockets), `Wires` (a host, an outside, and
members of networks as a start makes them).  Out of scope: jails in networks (``world``).

A socket stays in the namespace in which it was made.  So one process plays all the parts, and no
program has to be started for it.

    outside, 192.0.2.9, 2001:db8::9 ── up0, 192.0.2.1, 2001:db8::1, host ── bridges ── members
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jailrun.kernel import constants as c
from jailrun.kernel.execute import syscall
from jailrun.net import nft, rules
from jailrun.net.links import host_mac

HOST4, HOST6 = "192.0.2.1", "2001:db8::1"
OUTSIDE4, OUTSIDE6 = "192.0.2.9", "2001:db8::9"
REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM)
SOON, LATE = 5.0, 0.3  # seconds: until something must have come, until nothing will come any more


class Space:
    """A network namespace of our own; gone with the object's `close`."""

    def __init__(self, name: str) -> None:
        self.name = name
        with keep_own_space():
            syscall("unshare", c.CLONE_NEWNET)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.ip("link set lo up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the namespace."""
        with keep_own_space():
            syscall("setns", self.fd, c.CLONE_NEWNET)
            yield

    def run(self, *command: str, text: str = "") -> str:
        """Run a program there and return what it prints."""
        with self.entered():
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.name}: {command} {text}\n{done.stderr}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run commands of ip(8)."""
        self.run("ip", "-batch", "-", text="\n".join(lines))

    def sysctl(self, **values: int) -> None:
        """Set kernel parameters of the network, ``__`` in a name stands for ``/``."""
        with self.entered():
            for name, value in values.items():
                Path("/proc/sys/net", name.replace("__", "/")).write_text(str(value))

    def bound(self, kind: int, address: str, port: int = 0, **options: Any) -> socket.socket:
        """Return a socket bound to an address, with a time-out."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered():
            made = socket.socket(family, kind, **options)
        made.settimeout(SOON)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
        return made

    def packets(self, device: str) -> socket.socket:
        """Return a socket that sends and gets whole frames of a device."""
        with self.entered():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            made.bind((device, 0))
        made.settimeout(SOON)
        return made

    def close(self) -> None:
        """Let go of the namespace."""
        os.close(self.fd)


@contextlib.contextmanager
def keep_own_space() -> Iterator[None]:
    """Come back to where we were."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        syscall("setns", own, c.CLONE_NEWNET)
        os.close(own)


class Wires:
    """A host with networks, and what is around it."""

    def __init__(self) -> None:
        self.host, self.outside = Space("host"), Space("outside")
        self.members: list[Space] = []
        self.sockets: list[socket.socket] = []
        self.outside.ip("link add eth0 type veth peer name up0")
        self.outside.ip(f"link set up0 netns /proc/{os.getpid()}/fd/{self.host.fd}")
        for space, device, *addresses in (
            (self.host, "up0", f"{HOST4}/24", f"{HOST6}/64"),
            (self.outside, "eth0", f"{OUTSIDE4}/24", f"{OUTSIDE6}/64"),
        ):
            space.ip(*(f"addr add {one} dev {device} nodad" for one in addresses))
            space.ip(f"link set {device} up")
        self.host.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)

    def network(self, number: int, **changes: Any) -> dict[str, Any]:
        """Make a network and return its definition."""
        link = changes.get("link", f"jailrun{number}")
        made: dict[str, Any] = {
            "name": f"net{number}",
            "driver": "bridge",
            "link": link,
            "subnet": f"10.87.{number}.0/24",
            "gateway": f"10.87.{number}.1",
            "subnet6": f"fd87:{number + 1:x}::/64",
            "gateway6": f"fd87:{number + 1:x}::1",
            "internal": False,
            "isolate": False,
            **changes,
        }
        self.host.ip(
            f"link add {link} type bridge mcast_snooping 0",
        )
        with self.host.entered():
            Path(f"/proc/sys/net/ipv4/conf/{link}/route_localnet").write_text("1")
            # What the host routes to a member waits for its link-local address otherwise.
            Path(f"/proc/sys/net/ipv6/conf/{link}/accept_dad").write_text("0")
        self.host.ip(
            f"addr add {made['gateway']}/24 dev {link}",
            f"addr add {made['gateway6']}/64 dev {link} nodad",
            f"link set {link} up",
        )
        self.apply(rules.network_text(made))  # type: ignore[arg-type]
        return made

    def nic(self, network: dict[str, Any], number: int) -> dict[str, Any]:
        """Return what a member's record would say of its interface."""
        own = network["driver"] == "bridge"
        prefix, prefix6 = network["subnet"].rpartition(".")[0], network["subnet6"].split("/")[0]
        return {
            "network": network["name"],
            "driver": network["driver"],
            "bridge": network["link"],
            "link": "jr" + os.urandom(5).hex(),
            "name": "eth0",
            "address": f"{prefix}.{number}",
            "gateway": network["gateway"] if own else "",
            "address6": f"{prefix6}{number:x}",
            "gateway6": network["gateway6"] if own else "",
            "mac": f"02:00:00:{prefix.rpartition('.')[2].zfill(2)}:00:{number:02x}",
            "internal": network["internal"],
            "isolate": network["isolate"],
        }

    def join(self, network: dict[str, Any], number: int, **record: Any) -> Member:
        """Make a member of a network; ``record`` as in a jail's record, and changes of the NIC."""
        record = {"publish": [], "firewall": [], "nics": [self.nic(network, number)], **record}
        member = Member(self, record)
        self.members.append(member)
        self.apply(rules.jail_text(record))  # type: ignore[arg-type]
        for nic in record["nics"]:
            member.connect(nic)
        return member

    def apply(self, text: str) -> None:
        """Run a transaction on the host."""
        with self.host.entered():
            nft.apply(text)

    def remove(self, text: str) -> None:
        """Remove something from the host's tables."""
        with self.host.entered():
            nft.remove(text)

    def bridge_filter(self, *, on: bool) -> None:
        """Say whether bridged frames go through the host's rules."""
        self.host.sysctl(
            **{f"bridge__bridge-nf-call-{kind}": int(on) for kind in ("iptables", "ip6tables")}
        )

    # --- traffic ---------------------------------------------------------------------------------
    def listen(self, space: Space, kind: int, address: str, port: int) -> socket.socket:
        """Return a socket that waits for others until the end of the test."""
        made = space.bound(kind, address, port)
        if kind == socket.SOCK_STREAM:
            made.listen()
        self.sockets.append(made)
        return made

    def ask(
        self, source: Space, target: str, port: int, at: socket.socket, own: str = ""
    ) -> str | None:
        """Send from ``source`` to an address; return whom the server takes it for, or None.

        With UDP, the answer must come back, too.
        """
        kind = at.type
        any_address = "::" if ":" in target else "0.0.0.0"
        with contextlib.closing(source.bound(kind, own or any_address)) as client:
            client.settimeout(LATE if self.expect_failure else SOON)
            at.settimeout(LATE if self.expect_failure else SOON)
            try:
                with source.entered():  # which knows the interface of a link-local address
                    client.connect(socket.getaddrinfo(target, port)[0][4])
                if kind == socket.SOCK_STREAM:
                    other, peer = at.accept()
                    other.close()
                    return str(peer[0])
                client.send(b"ping")
                _, peer = at.recvfrom(100)
                if self.expect_failure:
                    return str(peer[0])  # it got through, whatever becomes of the answer
                at.sendto(b"pong", peer)
                client.recv(100)
            except OSError as error:
                if not isinstance(error, TimeoutError) and error.errno not in REFUSED:
                    raise
                return None
        return str(peer[0])

    expect_failure = False

    def refuses(self, source: Space, target: str, port: int, at: socket.socket) -> bool:
        """Tell whether nothing gets through."""
        self.expect_failure = True
        try:
            return self.ask(source, target, port, at) is None
        finally:
            self.expect_failure = False

    def close(self) -> None:
        """Take all down."""
        for one in self.sockets:
            one.close()
        for space in (*self.members, self.outside, self.host):
            space.close()
        nft.close()


class Member(Space):
    """A namespace with interfaces in networks, as a jail has them."""

    def __init__(self, wires: Wires, record: dict[str, Any]) -> None:
        super().__init__(record["nics"][0]["address"])
        self.wires = wires
        self.record = record
        self.address: str = record["nics"][0]["address"]
        self.address6: str = record["nics"][0]["address6"]
        self.mac: str = record["nics"][0]["mac"]
        self.link: str = record["nics"][0]["link"]

    def connect(self, nic: dict[str, Any]) -> None:
        """Make an interface, with the addresses that the record has."""
        link, name = nic["link"], nic["name"]
        self.ip(
            f"link add {name} address {nic['mac']} type veth "
            f"peer name {link} address {host_mac(link)}",
            f"link set {link} netns /proc/{os.getpid()}/fd/{self.wires.host.fd}",
        )
        with self.entered():
            Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
        self.wires.host.ip(
            f"link set {link} master {nic['bridge']} up",
            f"link set {link} type bridge_slave hairpin on",
        )
        self.ip(
            f"addr add {nic['address']}/24 dev {name}",
            f"addr add {nic['address6']}/64 dev {name} nodad",
            f"link set {name} up",
        )
        for gateway in (nic["gateway"], nic["gateway6"]):
            if gateway and name == "eth0" and not nic["internal"]:
                self.ip(f"route add default via {gateway}")
        self.wires.host.run("ip", "link", "show", link)  # the kernel looks at its carrier now
