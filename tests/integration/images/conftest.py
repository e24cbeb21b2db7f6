"""Stores for the tests of images: a fresh one for each test, and one that is built once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailrun import images
from jailrun.images import Image
from tests.integration.place import network_of_the_machine


@pytest.fixture(scope="module", autouse=True)
def on_the_network(own_place: None) -> Iterator[None]:
    """Be where packages can be fetched from; no test of images starts a jail with a network."""
    with network_of_the_machine():
        yield


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a store of its own; return the folder of JAILRUN_DATA."""
    monkeypatch.setenv("JAILRUN_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("JAILRUN_RECIPES", raising=False)
    return tmp_path / "data"


@pytest.fixture(scope="session")
def debian(session_data: Path) -> Image:
    """Return a Debian image, built once for the session, beside the others that it shares."""
    before = os.environ.get("JAILRUN_DATA")
    os.environ["JAILRUN_DATA"] = str(session_data)
    try:
        with network_of_the_machine():
            return images.ensure("debian")
    finally:
        if before is None:
            del os.environ["JAILRUN_DATA"]
        else:
            os.environ["JAILRUN_DATA"] = before


def read_mounts(below: Path) -> list[str]:
    """Return the mount points of this mount namespace at and below a folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(str(below))]
