"""Stores for the tests of images: a fresh one for each test, and one that is built once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailrun import images
from jailrun.images import Image


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
