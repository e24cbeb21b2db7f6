"""The caller's terminal as data: raw settings, and the modes that a program leaves behind.

Out of scope: bytes through a real one (tests/integration/cli/test_terminal.py).
"""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cli.modes import Modes
from jailrun.cli.terminal import Guard, find_terminal, plan_raw, read_size, require_terminal
from jailrun.errors import JailError


@pytest.fixture
def slave() -> Iterator[int]:
    """Give a terminal of the host's own kind."""
    master, slave = pty.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def settings_of(fd: int) -> list[Any]:
    """Return the settings of a terminal."""
    return termios.tcgetattr(fd)


def test_raw_is_what_cfmakeraw_makes(slave: int) -> None:
    import tty

    ours = plan_raw(settings_of(slave))
    tty.setraw(slave)
    theirs = settings_of(slave)
    # Python 3.11's setraw leaves some input flags that cfmakeraw(3) clears.
    assert ours[0] & ~theirs[0] == 0
    assert ours[1:] == theirs[1:]


def test_raw_leaves_what_was_found_alone(slave: int) -> None:
    found = settings_of(slave)
    before = [*found[:6], list(found[6])]
    plan_raw(found)
    assert found == before


def test_guard_restores(slave: int) -> None:
    found = settings_of(slave)
    with Guard(slave) as guard:
        guard.make_raw()
        assert settings_of(slave) != found
    assert settings_of(slave) == found


def test_guard_restores_after_an_error(slave: int) -> None:
    found = settings_of(slave)
    with pytest.raises(RuntimeError), Guard(slave) as guard:
        guard.make_raw()
        raise RuntimeError
    assert settings_of(slave) == found


def test_guard_restores_what_another_changed(slave: int) -> None:
    """A jail that has the caller's terminal as its output can do that."""
    found = settings_of(slave)
    with Guard(slave):
        changed = settings_of(slave)
        changed[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, changed)
    assert settings_of(slave) == found


def test_guard_of_what_is_no_terminal_does_nothing() -> None:
    reader, writer = os.pipe()
    with Guard(reader) as guard:
        guard.make_raw()
    with Guard(None) as guard:
        guard.make_raw()
    os.close(reader)
    os.close(writer)


def test_guard_survives_a_hangup() -> None:
    master, slave = pty.openpty()
    with Guard(slave) as guard:
        guard.make_raw()
        os.close(master)
    os.close(slave)


def test_size(slave: int) -> None:
    assert read_size(slave) is None  # 0 by 0: it does not know
    termios.tcsetwinsize(slave, (33, 99))
    assert read_size(slave) == (33, 99)
    assert read_size(None) is None


def test_find_terminal(slave: int) -> None:
    reader, writer = os.pipe()
    assert find_terminal((reader, slave)) == slave
    assert find_terminal((reader, writer)) is None
    os.close(reader)
    os.close(writer)


def test_terminal_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    with pytest.raises(JailError, match="needs a terminal"):
        require_terminal()


class TestModes:
    """What a program switched and did not switch back."""

    @pytest.mark.parametrize(
        ("printed", "undo"),
        [
            (b"plain text\r\n", b""),
            (b"\x1b[?1049h", b"\x1b[?1049l"),
            (b"\x1b[?1049h editing \x1b[?1049l", b""),
            (b"\x1b[?25l", b"\x1b[?25h"),
            (b"\x1b[?25l\x1b[?25h", b""),
            (b"\x1b[?1000;1006h", b"\x1b[?1000l\x1b[?1006l"),
            (b"\x1b[?2004h$ ", b"\x1b[?2004l"),
            (b"\x1b[31mred\x1b[0m", b""),
            (b"\x1b[?7777h\x1b[?h\x1b[?;h\x1b[?99999999h", b""),
            (b"\x1b[?25$p", b""),
            (b"\x1b\x1b[?1h\x1b", b"\x1b[?1l"),
        ],
    )
    def test_undo(self, printed: bytes, undo: bytes) -> None:
        modes = Modes()
        modes.follow(printed)
        assert modes.undo() == undo
        assert modes.undo() == b""

    @given(st.data())
    def test_pieces_make_no_difference(self, data: st.DataObject) -> None:
        parts = st.sampled_from(
            [
                b"\x1b[?1049h",
                b"\x1b[?25l",
                b"\x1b[?25h",
                b"\x1b[?1;2004h",
                b"\x1b[1m",
                b"x",
                b"\x1b",
            ]
        )
        whole = b"".join(data.draw(st.lists(parts, max_size=8)))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
        once, pieces = Modes(), Modes()
        once.follow(whole)
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            pieces.follow(whole[start:end])
        assert once.changed == pieces.changed

    @given(st.lists(st.binary(max_size=40), max_size=8))
    def test_anything_is_followed(self, pieces: list[bytes]) -> None:
        modes = Modes()
        for piece in pieces:
            modes.follow(piece)
        modes.undo()

    def test_an_endless_sequence_is_not_kept(self) -> None:
        modes = Modes()
        modes.follow(b"\x1b[?")
        for _ in range(1000):
            modes.follow(b"1111111111")
        assert modes.undo() == b""
