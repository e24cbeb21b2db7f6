"""The markers that all suites share.  Out of scope: fixtures, which each suite has of its own."""

from __future__ import annotations

import pytest

MARKERS = (
    "requires(feature, ...): what this host must be able to do; a skip where it cannot, "
    "a failure with JAILRUN_MUST_WORK=1",
    "runs_programs: a unit test that starts ordinary programs (an interpreter, tar), never a jail",
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
