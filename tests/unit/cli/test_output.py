"""What the command line prints: tables, times, errors, progress."""

from __future__ import annotations

import io

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cli import output
from jailrun.errors import JailError, NotFoundError


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(("NAME", "PID"), [("web", "12"), ("database", "-")])
    assert capsys.readouterr().out == "NAME       PID\nweb        12\ndatabase   -\n"


def test_table_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(("NAME", "PID"), [])
    assert capsys.readouterr().out == "NAME   PID\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("größe", "größe"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b", "\\x9b"),
        ("\udcff", "\\udcff"),
        ("\u202e", "\\u202e"),
    ],
)
def test_terminal_is_out_of_reach(text: str, shown: str) -> None:
    assert output.clean(text) == shown


@given(st.text())
def test_clean_text_is_printable(text: str) -> None:
    assert output.clean(text).isprintable()


def test_error_lines_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("cannot read \x1b[2J", "type\nthis")
    assert capsys.readouterr().err == "jailrun: cannot read \\x1b[2J\n  hint: type\n  this\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (0, "just now"),
        (1, "1 second ago"),
        (59.9, "59 seconds ago"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86400 * 400, "400 days ago"),
    ],
)
def test_age(seconds: float, words: str) -> None:
    assert output.format_age(1000, 1000 + seconds) == words


def test_time() -> None:
    assert output.format_time(0) is None
    assert output.format_time(1700000000.25) == "2023-11-14T22:13:20.250Z"


@pytest.mark.parametrize(
    ("done", "total", "unit", "words"),
    [
        (1 << 20, 4 << 20, "B", "1.0M of 4.0M, 25 %"),
        (3, 7, "packages", "3 of 7 packages, 42 %"),
        (9, 7, "packages", "9 of 7 packages, 100 %"),
        (5, None, "packages", "5 packages"),
        (0, 0, "B", "0B"),
    ],
)
def test_done(done: int, total: int | None, unit: str, words: str) -> None:
    assert output.format_done(done, total, unit) == words


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_progress_elsewhere_is_plain_lines() -> None:
    stream = io.StringIO()
    with output.ProgressLine(stream) as progress:
        progress.step("fetch")
        progress.advance(1, 2, "packages")
        progress.warn("odd\x1b")
        progress.step("unpack")
    assert stream.getvalue() == ("jailrun: fetch\njailrun: warning: odd\\x1b\njailrun: unpack\n")


def test_progress_on_a_terminal_is_one_line_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with output.ProgressLine(stream) as progress:
        progress.step("fetch")
        progress.advance(2, 2, "packages")
        progress.step("unpack " + "x" * 100)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert "\rjailrun: fetch  2 of 2 packages, 100 %\033[K" in text
    pieces = text.replace("\n", "").replace("\033[K", "").split("\r")
    assert max(map(len, pieces)) <= 39


def test_progress_goes_on_where_nobody_looks() -> None:
    stream = io.StringIO()
    stream.close()

    class Gone(Terminal):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    progress = output.ProgressLine(Gone())
    progress.step("fetch")
    progress.end()


def test_for_each_goes_on_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def act(name: str) -> None:
        if name == "b":
            raise NotFoundError("there is no b", hint="none")

    with pytest.raises(typer.Exit) as caught:
        output.for_each(["a", "b", "c"], act)
    said = capsys.readouterr()
    assert caught.value.exit_code == 125
    assert said.out == "a\nc\n"
    assert said.err == "jailrun: there is no b\n  hint: none\n"


def test_for_each_does_what_comes_after(capsys: pytest.CaptureFixture[str]) -> None:
    def act(_name: str) -> None:
        raise JailError("no")

    with pytest.raises(typer.Exit):
        output.for_each(["a"], act, after=lambda: output.write_line("after"))
    assert capsys.readouterr().out == "after\n"
