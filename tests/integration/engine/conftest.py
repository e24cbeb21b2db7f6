"""Every test of the engine runs on both executors."""

from __future__ import annotations

import pytest

EXECUTORS = ("native", "ctypes")


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param(name, marks=pytest.mark.requires("native") if name == "native" else ())
        for name in EXECUTORS
    ],
)
def executor(
    request: pytest.FixtureRequest, own_folders: object, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Choose the executor; return its name."""
    name: str = request.param
    monkeypatch.setenv("JAILRUN_EXECUTOR", name)
    return name
