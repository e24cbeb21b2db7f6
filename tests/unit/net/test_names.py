"""Texts of /etc/hosts and /etc/resolv.conf, and the host's own, however odd it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import NetworkError
from jailrun.net.names import (
    LOCAL_LINES,
    Resolv,
    format_hostname,
    format_hosts,
    format_resolv_conf,
    is_dns_name,
    own_names,
    parse_resolv,
    read_host_resolv,
)
from jailrun.spec.extensions import Names

HOST = parse_resolv("search example.org\nnameserver 192.0.2.53\nnameserver 127.0.0.53\n")


# --- /etc/hosts ----------------------------------------------------------------------------------
def hosts(*args: object, **more: object) -> str:
    """Return what follows the lines of the loopback interface."""
    text = format_hosts(*args, **more)  # type: ignore[arg-type]
    assert text.startswith(LOCAL_LINES)
    return text.removeprefix(LOCAL_LINES)


def test_hosts_of_a_network() -> None:
    """The full host name comes first: it is the one that an address is called by."""
    found = hosts("web.example", ["front", "web"], ["10.87.0.2", "fd87::2"])
    assert found == "10.87.0.2\tweb.example web front\nfd87::2\tweb.example web front\n"


def test_hosts_without_a_network() -> None:
    """A jail finds itself, as programs that look up their own host name expect."""
    assert hosts("web", ["web"], []) == "127.0.0.1\tweb\n"


@pytest.mark.parametrize("hostname", ["", "a b", "a\nb", "#a", "\udcff", "x" * 254])
def test_hosts_of_an_odd_host_name(hostname: str) -> None:
    """The kernel takes anything for a host name; /etc/hosts has no words for it."""
    assert hosts(hostname, ["web"], ["10.87.0.2"]).split()[-1] == "web"
    assert len(hosts(hostname, ["web"], ["10.87.0.2"]).splitlines()) == 1


def test_hosts_added() -> None:
    """In their order, before the jail's own; host-gateway in each family that there is."""
    extra = [["db", "192.0.2.9"], ["host.internal", "host-gateway"]]
    found = hosts("web", [], ["10.87.0.2"], extra, ["10.87.0.1", "fd87::1"])
    assert found.splitlines() == [
        "192.0.2.9\tdb",
        "10.87.0.1\thost.internal",
        "fd87::1\thost.internal",
        "10.87.0.2\tweb",
    ]


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "ip6-localhost", "db.localhost"])
def test_a_jail_is_not_the_loopback(name: str) -> None:
    """Whatever it is called: its programs trust that localhost is 127.0.0.1."""
    assert hosts(name, [name, "web"], ["10.87.0.2"]).split()[-1] == "web" or "." in name
    assert name not in own_names(name, ["web"])


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("db", "nowhere"),
        ("db", ""),
        ("db", "10.0.0.1\n6.6.6.6 bank.example"),
        ("db", "10.0.0.256"),
        ("db", "fe80::1%eth0"),
        ("db", "\udcff"),
        ("db x", "10.0.0.1"),
        ("db\n6.6.6.6", "10.0.0.1"),
        ("#db", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("d" * 254, "10.0.0.1"),
        ("db", "host-gateway"),
    ],
)
def test_hosts_refused(name: str, address: str) -> None:
    """What would not stay one line of a name and an address."""
    with pytest.raises(NetworkError):
        format_hosts("web", [], [], [[name, address]])


@given(st.text(max_size=20), st.text(max_size=20))
def test_hosts_stay_lines(name: str, address: str) -> None:
    """Whatever comes: it is refused, or is one line with two words."""
    try:
        text = format_hosts("web", [], [], [[name, address]])
    except NetworkError:
        return
    added = text.removeprefix(LOCAL_LINES).split("\n")
    assert len(added) == 3
    assert added[0].split() == [address, name]


def test_hostname() -> None:
    """One line."""
    assert format_hostname("web.example") == "web.example\n"


def test_dns_names() -> None:
    """A part of a name has at most 63 characters."""
    assert is_dns_name("web") and is_dns_name("a_b.example") and is_dns_name("x" * 63)
    assert not any(map(is_dns_name, ["", "x" * 64, "a..b", "a.", "ä", "a b", "a." * 127 + "a"]))


# --- /etc/resolv.conf ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("place", "names", "text"),
    [
        ("resolver", {}, "nameserver 10.87.0.1\nnameserver fd87::1\nsearch example.org\n"),
        ("direct", {}, "nameserver 192.0.2.53\nsearch example.org\n"),
        ("host", {}, HOST.text),
        ("none", {}, "# this jail has no network, and so nobody to ask for names\n"),
        ("resolver", {"dns": ["9.9.9.9"]}, "nameserver 9.9.9.9\nsearch example.org\n"),
        ("none", {"dns": ["9.9.9.9"]}, "nameserver 9.9.9.9\n"),
        (
            "host",
            {"search": ["a.example", "b.example"], "options": ["ndots:2", "rotate"]},
            "nameserver 192.0.2.53\nnameserver 127.0.0.53\nsearch a.example b.example\n"
            "options ndots:2 rotate\n",
        ),
        ("direct", {"search": ["."]}, "nameserver 192.0.2.53\n"),
    ],
)
def test_resolv_conf(place: str, names: Names, text: str) -> None:
    """For each place that a jail can be at, and what the user may ask for there."""
    assert format_resolv_conf(place, HOST, ["10.87.0.1", "fd87::1"], names) == text


def test_resolv_conf_without_a_server() -> None:
    """No server of somebody's whom nobody has asked for is put in its place."""
    text = format_resolv_conf("direct", Resolv())
    assert text == "# the host names no server that can be reached from here: use --dns\n"


@pytest.mark.parametrize(
    "names", [{"dns": ["x"]}, {"search": ["a b"]}, {"search": [""]}, {"options": ["a\nb"]}]
)
def test_resolv_conf_refused(names: Names) -> None:
    """What would become another line, or no address."""
    with pytest.raises(NetworkError):
        format_resolv_conf("resolver", HOST, ["10.87.0.1"], names)


def test_servers_that_only_the_host_reaches() -> None:
    """Loopback in every form, unspecified, and by an interface of the host's."""
    lines = [
        *("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"),
        *("fe80::1", "fe80::1%eth0", "::ffff:192.0.2.1", "2001:db8::53"),
    ]
    host = parse_resolv("".join(f"nameserver {line}\n" for line in lines))
    assert host.nameservers == lines
    text = format_resolv_conf("direct", host)
    assert text == "nameserver ::ffff:192.0.2.1\nnameserver 2001:db8::53\n"


def test_parse() -> None:
    """resolv.conf(5): comments, the last of search and domain, options that add up, nonsense."""
    found = parse_resolv(
        "# nameserver 192.0.2.1\n; x\nnameserver\t192.0.2.2 192.0.2.3\nnameserver nonsense\n"
        "domain a.example b.example\nsearch\nsortlist x\noptions ndots:1 rotate\noptions edns0\n"
        " nameserver 192.0.2.4\r\nnameserver 192.0.2.5\0\n"
    )
    assert found.nameservers == ["192.0.2.2", "192.0.2.4"]
    assert found.search == ["a.example"]
    assert found.options == ["ndots:1", "rotate", "edns0"]


def test_search_is_capped() -> None:
    """Six domains, 256 characters: what every resolver takes; no domain is cut in two."""
    names = [f"d{number}.example" for number in range(9)]
    assert parse_resolv(f"search {' '.join(names)}").search == names[:6]
    long = [f"{letter * 60}.{letter * 60}" for letter in "abcd"]
    assert parse_resolv(f"search {' '.join(long)}").search == long[:2]
    assert parse_resolv("search . ..bad").search == ["."]


@given(st.binary(max_size=200))
def test_any_file_of_the_host(data: bytes) -> None:
    """Whatever is in it: nothing of it becomes another line of ours."""
    host = parse_resolv(data.decode("utf-8", "surrogateescape"))
    for line in format_resolv_conf("direct", host).splitlines():
        assert line.split()[0] in ("nameserver", "search", "options", "#")
    assert format_resolv_conf("host", host).encode("utf-8", "surrogateescape") == data


class TestHostFile:
    """Where the host's resolv.conf is and leads to."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return a path for it."""
        return tmp_path / "resolv.conf"

    @pytest.fixture
    def resolved(self, tmp_path: Path) -> Path:
        """Return the files of systemd-resolved."""
        folder = tmp_path / "resolve"
        folder.mkdir()
        (folder / "stub-resolv.conf").write_text("nameserver 127.0.0.53\nsearch stub.example\n")
        (folder / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch lan.example\n")
        return folder / "resolv.conf"

    def read(self, place: str, path: Path, resolved: Path) -> list[str]:
        """Return the servers that are found."""
        return read_host_resolv(place, str(path), str(resolved)).nameservers

    def test_stub(self, path: Path, resolved: Path) -> None:
        """Its address is the host's alone: who asks by himself asks whom it asks."""
        path.write_text("nameserver 127.0.0.53\n")
        assert self.read("direct", path, resolved) == ["192.0.2.53"]
        assert self.read("host", path, resolved) == ["127.0.0.53"]

    def test_link_to_the_stub(self, path: Path, resolved: Path) -> None:
        """As systemd-resolved's own set-up has it, with a relative link."""
        path.symlink_to("resolve/stub-resolv.conf")
        assert self.read("direct", path, resolved) == ["192.0.2.53"]
        found = read_host_resolv("direct", str(path), str(resolved))
        assert found.search == ["stub.example"]

    def test_stub_alone(self, path: Path, tmp_path: Path) -> None:
        """Without the other file nothing is made up."""
        path.write_text("nameserver 127.0.0.53\n")
        assert self.read("direct", path, tmp_path / "none") == ["127.0.0.53"]

    def test_missing(self, path: Path, resolved: Path) -> None:
        """And links to nowhere, and to themselves."""
        assert self.read("direct", path, resolved) == []
        path.symlink_to("nowhere")
        assert self.read("host", path, resolved) == []
        path.unlink()
        path.symlink_to(path)
        assert self.read("host", path, resolved) == []

    def test_no_file_at_all(self, path: Path, resolved: Path) -> None:
        """A folder; a FIFO, which keeps nobody waiting."""
        path.mkdir()
        assert self.read("host", path, resolved) == []
        path.rmdir()
        os.mkfifo(path)
        assert self.read("host", path, resolved) == []

    def test_huge(self, path: Path, resolved: Path) -> None:
        """Only its beginning is read."""
        path.write_bytes(b"nameserver 192.0.2.1\n" + b"\xff" * 200_000)
        found = read_host_resolv("host", str(path), str(resolved))
        assert found.nameservers == ["192.0.2.1"]
        assert len(found.text) == 65536
