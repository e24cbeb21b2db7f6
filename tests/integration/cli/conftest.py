"""Command lines for tests, which end with the test whatever becomes of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names
from jailrun.errors import JailError
from jailrun.images import Image
from tests.integration.cli.command import Command, Terminal
from tests.integration.jails import new_name

Start = Callable[..., Command]
Open = Callable[..., Terminal]


@pytest.fixture
def name() -> str:
    """Return a name for a jail."""
    return new_name()


@pytest.fixture
def root_folder(busybox: Image, tmp_path: Path) -> Path:
    """Return a plain folder with busybox in it."""
    root = tmp_path / "root"
    shutil.copytree(busybox.layers[0], root, symlinks=True)
    return root


@pytest.fixture
def no_jails_stay(leaves_host_as_it_was: None) -> Iterator[None]:
    """Remove at the end the jails that stay, detached ones and those without --rm."""
    yield
    for left in list_names():
        with contextlib.suppress(JailError):
            lifecycle.delete(left, force=True)


@pytest.fixture
def start(no_jails_stay: None) -> Iterator[Start]:
    """Return what starts a command line and does not wait for it."""
    started: list[Command] = []

    def begin(*words: str, **options: Any) -> Command:
        started.append(Command(*words, **options))
        return started[-1]

    yield begin
    for command in started:
        command.drop()


@pytest.fixture
def terminal(no_jails_stay: None) -> Iterator[Open]:
    """Return what starts a command line in a terminal of its own."""
    opened: list[Terminal] = []

    def begin(*words: str, size: tuple[int, int] = (24, 80)) -> Terminal:
        opened.append(Terminal(words, size))
        return opened[-1]

    yield begin
    for one in opened:
        one.drop()
