"""Signals by name and number, and which of them reach a process."""

from __future__ import annotations

import signal

import pytest

from jailrun.errors import JailError
from jailrun.server import stopping
from tests.unit.cli.records import make_record


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("15", 15),
        ("KILL", 9),
        ("1", 1),
        ("64", 64),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert stopping.parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-9", "NOPE", "SIG", "SIGSIGTERM", "TERM+1", "RTMIN+99", "RTMAX+1", "RTMIN+",
     "RTMIN-1", "_DFL", "DFL", "٣", "9 ", "1e1"],
)  # fmt: skip
def test_no_signals(text: str) -> None:
    with pytest.raises(JailError, match="is not a signal"):
        stopping.parse_signal(text)


def test_image_names_its_signal() -> None:
    plain = make_record("a")
    other = make_record("b", config={"annotations": {stopping.STOP_SIGNAL: "SIGQUIT"}})
    assert stopping.stop_signal(plain) == 15
    assert stopping.stop_signal(other) == 3


def test_stop_of_a_stopped_jail_is_done_already() -> None:
    make_record("web")
    stopping.stop("web")
