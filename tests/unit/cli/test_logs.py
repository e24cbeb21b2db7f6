"""The verb logs: finding the last lines, and logs that are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cli import logs, main
from tests.unit.cli.records import make_record


def tail(data: bytes, lines: int) -> bytes:
    """Return the last lines of ``data`` as `find_tail` finds them."""
    fd = os.memfd_create("log")
    try:
        os.write(fd, data)
        return data[logs.find_tail(fd, lines) :]
    finally:
        os.close(fd)


@pytest.mark.parametrize("block", [1, 2, 3, 65536])
@given(
    data=st.lists(st.sampled_from([b"\n", b"a", b"bb\n", b"\n\n"]), max_size=20).map(b"".join),
    lines=st.integers(0, 6),
)
def test_tail_is_that_of_splitlines(block: int, data: bytes, lines: int) -> None:
    whole = data.split(b"\n")
    ended = [line + b"\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
    before = logs.BLOCK
    logs.BLOCK = block
    try:
        assert tail(data, lines) == b"".join(ended[max(len(ended) - lines, 0) :])
    finally:
        logs.BLOCK = before


def test_whole_log(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n\xff two\nthree")
    make_record("web", log=str(log))
    assert main(["logs", "web"]) == 0
    assert capfdbinary.readouterr().out == b"one\n\xff two\nthree"
    assert main(["logs", "--tail", "2", "web"]) == 0
    assert capfdbinary.readouterr().out == b"\xff two\nthree"
    assert main(["logs", "-n", "0", "web"]) == 0
    assert capfdbinary.readouterr().out == b""
    assert main(["logs", "--follow", "web"]) == 0
    assert capfdbinary.readouterr().out == b"one\n\xff two\nthree"


def test_jail_without_log(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web")
    assert main(["logs", "web"]) == 125
    assert "runs in the foreground" in capsys.readouterr().err


def test_log_that_is_gone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_record("web", log=str(tmp_path / "gone"))
    assert main(["logs", "web"]) == 125
    assert "No such file" in capsys.readouterr().err
