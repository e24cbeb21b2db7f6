"""The world of the network tests, and what starts servers in it; see ``world``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.net.world import Networks, Servers, World, bind_file, build_talk

ShowFile = Callable[[str, str], None]


@pytest.fixture(scope="session")
def whole_world(session_networks: Path, session_data: Path) -> Iterator[World]:
    """Return the world, made once, after the default network."""
    folder = session_data / "talk"
    folder.mkdir(mode=0o755)
    session_data.chmod(0o755)
    world = World(build_talk(folder))
    world.wire()
    yield world
    world.close()


@pytest.fixture
def world(whole_world: World, leaves_host_as_it_was: None) -> Iterator[World]:
    """Return the world; who was told to answer is silent after the test."""
    yield whole_world
    whole_world.quiet()


@pytest.fixture
def nets(leaves_host_as_it_was: None) -> Iterator[Networks]:
    """Return what makes networks, and removes them."""
    made = Networks()
    yield made
    made.clear()


@pytest.fixture
def servers(world: World, nets: Networks) -> Iterator[Servers]:
    """Return what starts servers, and removes them before their networks."""
    started = Servers(world)
    yield started
    started.clear()


@pytest.fixture
def fresh(
    leaves_host_as_it_was: None,
    own_folders: Path,
    session_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Be a new installation, without networks, but with the images of the session."""
    data, run = tmp_path / "data", own_folders / "fresh"
    data.mkdir()
    tmp_path.chmod(0o755)
    (data / "images").symlink_to(session_data / "images")
    monkeypatch.setenv("JAILRUN_DATA", str(data))
    monkeypatch.setenv("JAILRUN_RUN", str(run))
    return data


@pytest.fixture
def show_file(leaves_host_as_it_was: None, tmp_path: Path) -> Iterator[ShowFile]:
    """Return what shows another text in a file of the host, to this session alone."""
    undo: list[Callable[[], None]] = []
    yield lambda target, text: undo.append(bind_file(tmp_path, target, text))
    for each in reversed(undo):
        each()
