"""A small world around the host of the tests: who is outside of it, and servers to talk to.

Owns: `World` (the places and how they are wired), `Server` (a jail that answers), the program
`talk` that both ends run.  Out of scope: what the tests find out.

    outside, a bridge 192.0.2.2/24, 2001:db8::2/64      far: 198.51.100.1, 2001:db8:f::1
      ├── uplink of the host, 192.0.2.1, 2001:db8::1    the session's own network namespace
      └── second, another host, 192.0.2.3, 2001:db8::3

Nobody but the host knows the way to its networks: what comes back was masqueraded.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jailrun import paths
from jailrun.engine import lifecycle
from jailrun.engine.record import list_names, load
from jailrun.errors import JailError
from tests.integration.cli.command import Done, jailrun, output_of
from tests.integration.jails import eventually, new_name
from tests.integration.place import Place

SOURCE = Path(__file__).with_name("talk.c")
UPLINK = "uplink"
HOST, OUTSIDE, SECOND = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
HOST6, OUTSIDE6, SECOND6 = ("2001:db8::1", "2001:db8::2", "2001:db8::3")
FAR, FAR6 = "198.51.100.1", "2001:db8:f::1"
PORT = 7000  # where whoever answers does so
EVERYWHERE = (f"tcp::::{PORT}", f"udp::::{PORT}")  # on "::", for both families
SOON = 700  # milliseconds after which no answer comes any more
SECONDS = 20.0  # a deadline, never a measure


@dataclass
class Answer:
    """What an asked server has said, or why there was no answer."""

    error: str = ""
    server: str = ""
    peer: str = ""  # who asks, as the server sees it
    asked: str = ""  # what was asked, as the server sees it


def parse_answer(said: str) -> Answer:
    """Return what `talk ask` has printed."""
    words = said.split()
    if len(words) != 4:
        return Answer(error=said.strip())
    return Answer("", words[0], words[1], words[3])


def build_talk(folder: Path) -> Path:
    """Build the program of both ends."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    target = folder / "talk"
    command = ["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", str(target), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


class World:
    """The places, and what can be done in each of them."""

    def __init__(self, talk: Path) -> None:
        self.talk = talk
        self.host = Place()
        self.outside = Place.make()
        self.second = Place.make()
        self._served: list[subprocess.Popen[str]] = []

    def wire(self) -> None:
        """Make the links; addresses of the second family are used at once."""
        self.host.ip(f"link add {UPLINK} type veth peer name host netns {self.outside.path}")
        self.outside.ip(
            f"link add second type veth peer name eth0 netns {self.second.path}",
            "link add wire type bridge",
            *(f"link set {name} master wire up" for name in ("host", "second")),
            f"address add {OUTSIDE}/24 dev wire",
            f"address add {OUTSIDE6}/64 dev wire nodad",
            f"address add {FAR}/32 dev lo",
            f"address add {FAR6}/128 dev lo nodad",
            "link set wire up",
        )
        for place, link, v4, v6 in (
            (self.host, UPLINK, HOST, HOST6),
            (self.second, "eth0", SECOND, SECOND6),
        ):
            place.ip(
                f"address add {v4}/24 dev {link}",
                f"address add {v6}/64 dev {link} nodad",
                f"link set {link} up",
                f"route add default via {OUTSIDE}",
                f"route add default via {OUTSIDE6}",
            )
        # Their own addresses of the link take a second to be tried, which nobody waits for.
        for place, address in ((self.host, OUTSIDE6), (self.second, HOST6)):
            eventually(
                lambda place=place, address=address: (
                    place.run("ping", "-6", "-c1", "-W1", address, check=False).returncode == 0
                ),
                f"{address} answers",
            )

    def serve(self, place: Place, name: str, *kinds: str) -> subprocess.Popen[str]:
        """Have somebody answer in a place, until `quiet`."""
        process = place.start(str(self.talk), "serve", name, *(kinds or EVERYWHERE))
        self._served.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def ask(
        self,
        place: Place,
        address: str,
        port: int = PORT,
        kind: str = "tcp",
        *,
        patience: int = 5000,
        source: str = "",
    ) -> Answer:
        """Ask an address from a place."""
        words = [str(self.talk), "ask", kind, address, str(port), str(patience)]
        return parse_answer(place.run(*words, *([source] if source else []), check=False).stdout)

    def is_silent(self, place: Place, address: str, port: int = PORT, kind: str = "tcp") -> bool:
        """Tell whether nobody answers, soon; who is refused is answered."""
        error = self.ask(place, address, port, kind, patience=SOON).error
        return error in ("ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")

    def pings(self, place: Place, address: str) -> bool:
        """Tell whether an address answers pings, with three tries."""
        words = ("ping", "-c3", "-i0.05", "-W1", address)
        return "bytes from" in place.run(*words, check=False).stdout

    def quiet(self) -> None:
        """End whoever answers outside of jails."""
        while self._served:
            process = self._served.pop()
            process.kill()
            process.communicate()

    def close(self) -> None:
        """End the world."""
        self.quiet()
        self.host.run("ip", "link", "delete", UPLINK, check=False)
        self.outside.close()
        self.second.close()


@dataclass
class Server:
    """A detached jail, with what its record says of its interfaces."""

    name: str
    pid: int
    network: dict[str, Any]
    place: Place
    nics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ip(self) -> str:
        """Its first address."""
        return str(self.nics[0]["address"])

    @property
    def ip6(self) -> str:
        """Its first address of the other family."""
        return str(self.nics[0]["address6"])

    @property
    def both(self) -> tuple[str, str]:
        """Its addresses of both families."""
        return self.ip, self.ip6

    @property
    def mac(self) -> str:
        """The hardware address of its first interface."""
        return str(self.nics[0]["mac"])

    def execute(self, *words: str) -> Done:
        """Run a command in it, as a user does."""
        return jailrun("exec", self.name, *words)

    def say(self, *words: str) -> str:
        """Return what a command in it prints."""
        return output_of("exec", self.name, *words)

    def read_log(self) -> str:
        """Return what it has said."""
        return Path(paths.logs_dir(), f"{self.name}.log").read_text()


class Servers:
    """Starts detached jails that answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.places: list[Place] = []

    def start(
        self,
        *options: str,
        name: str = "",
        kinds: tuple[str, ...] = EVERYWHERE,
        command: tuple[str, ...] = (),
    ) -> Server:
        """Start a jail that answers, or runs a command; return when it does."""
        name = name or new_name()
        words = command or ("/talk", "serve", name, *kinds)
        mount = f"{self.world.talk}:/talk:ro"
        output_of("run", "-d", "--name", name, "-v", mount, *options, "busybox", *words)
        return self.find(name, ready=not command)

    def find(self, name: str, *, ready: bool = True) -> Server:
        """Return a jail that runs, as soon as it answers."""
        record = load(name)
        network: dict[str, Any] = {**(record.network or {})}
        place = Place.of(record.pid)
        self.places.append(place)
        server = Server(name, record.pid, network, place, list(network.get("nics", [])))
        if ready:
            log = Path(paths.logs_dir(), f"{name}.log")
            eventually(log.read_text, f"{name} says a word")
            assert log.read_text() == "ready\n"
        return server

    def stop(self, *servers: Server) -> None:
        """Remove servers."""
        for server in servers:
            lifecycle.delete(server.name, force=True)

    def clear(self) -> None:
        """Remove all jails of this test."""
        for place in self.places:
            place.close()
        for name in list_names():
            with contextlib.suppress(JailError):
                lifecycle.delete(name, force=True)


@dataclass
class Networks:
    """Makes networks, and removes at the end of a test those that it has made."""

    made: list[str] = field(default_factory=list)

    def create(self, name: str, *options: str) -> str:
        """Make a network."""
        output_of("net", "create", name, *options)
        self.made.append(name)
        return name

    def clear(self) -> None:
        """Remove them."""
        for name in self.made:
            jailrun("net", "rm", name)


def bind_file(tmp_path: Path, target: str, text: str) -> Callable[[], None]:
    """Show processes of this session another file; return what undoes that."""
    source = tmp_path / target.replace("/", "-")
    source.write_text(text)
    subprocess.run(["mount", "--bind", source, target], check=True)

    def undo() -> None:
        subprocess.run(["umount", target], check=True)

    return undo


def inspect(network: str) -> dict[str, Any]:
    """Return what `net inspect` says of a network."""
    (described,) = json.loads(output_of("net", "inspect", network))
    return dict(described)


def is_within(address: str, subnet: str) -> bool:
    """Tell whether an address is of a subnet."""
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)
