"""Published ports: which clash, and whose sockets the kernel's tables name."""

from __future__ import annotations

import errno
import os

import pytest

from jailrun.errors import ConflictError, NetworkError
from jailrun.net import ports
from jailrun.spec.extensions import PublishedPort

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 0100007F:1F90 0100007F:ACE8 01 00000000:00000000 03:0000176F 00000000     0        0 4712 3 0
   2: 0100007F:1F90 0100007F:ACE9 06 00000000:00000000 03:0000176F 00000000     0        0 0 3 0
   3: 0100007F:ACE8 0100007F:1F90 01 00000000:00000000 03:0000176F 00000000     0        0 4713 3 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue …
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0
"""  # noqa: E501 - as the kernel prints it


def port(number: int, address: str = "", count: int = 1, protocol: str = "tcp") -> PublishedPort:
    return {
        "protocol": protocol,
        "host_address": address,
        "host_port": number,
        "jail_port": 80,
        "count": count,
    }


def test_sockets_on_a_port() -> None:
    """Not those that are the other end of one, nor what has no owner any more."""
    assert ports.parse_sockets(TCP, 8080) == {"4711": "0A", "4712": "01"}
    assert ports.parse_sockets(TCP6, 8080) == {"4714": "0A"}
    assert ports.parse_sockets(TCP, 80) == {}
    assert ports.parse_sockets("", 80) == {}


@pytest.mark.parametrize(
    ("one", "clashes"),
    [
        (("tcp", "", 8080), True),
        (("tcp", "192.0.2.1", 8080), True),
        (("udp", "", 8080), False),
        (("tcp", "", 8079), False),
        (("tcp", "", 9009), True),
        (("tcp", "", 9010), False),
        (("tcp", "192.0.2.1", 7000), True),
        (("tcp", "192.0.2.2", 7000), False),
        (("tcp", "", 7000), True),
        (("tcp", "0.0.0.0", 7000), True),
        (("tcp", "::", 7000), False),
        (("tcp", "192.0.2.1", 6000), True),
        (("tcp", "2001:db8::1", 6000), False),
        (("tcp", "::", 6000), False),
        (("tcp", "0.0.0.0", 6000), True),
        (("tcp", "", 6000), True),
    ],
)
def test_clash(one: tuple[str, str, int], clashes: bool) -> None:
    publish = [port(8080), port(9000, count=10), port(7000, "192.0.2.1"), port(6000, "0.0.0.0")]
    assert ports.is_published(publish, *one) is clashes


def test_address_before_a_port() -> None:
    written = [ports.format_address(one) for one in ("", "192.0.2.1", "2001:db8::1")]
    assert written == ["", "192.0.2.1:", "[2001:db8::1]:"]


@pytest.mark.parametrize(
    ("number", "address", "kind", "message", "hint"),
    [
        (errno.EADDRINUSE, "", ConflictError, "port 80/tcp is taken by jail web", "ss -tanp"),
        (errno.EACCES, "", NetworkError, "port 80/tcp: Permission denied", "need root"),
        (errno.EMFILE, "", NetworkError, "port 80/tcp: Too many open files", "ulimit -n"),
        (errno.EADDRNOTAVAIL, "192.0.2.9", NetworkError, "no address 192.0.2.9", "ip address"),
        (errno.ENOBUFS, "2001:db8::1", NetworkError, "[2001:db8::1]:80/tcp: No buffer", None),
    ],
)
def test_what_is_said(
    number: int,
    address: str,
    kind: type[Exception],
    message: str,
    hint: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ports, "_bind", fail)
    with pytest.raises(kind) as raised:
        ports.reserve([port(80, address)], "a", find_jail=lambda *_asked: "web")
    assert message in str(raised.value)
    told = getattr(raised.value, "hint", None)
    assert (hint or "") in (told or "")
    assert bool(told) == bool(hint)
    assert ports.held("a") == []
