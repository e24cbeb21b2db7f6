"""The ground of the integration tests: every test here stands on it; see ``ground``."""

from __future__ import annotations

from tests.integration.ground import (
    busybox,
    config,
    deadline,
    jails,
    leaves_host_as_it_was,
    make_root,
    own_folders,
    own_place,
    probe,
    probe_program,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    session_data,
    session_networks,
    session_run,
)

__all__ = [
    "busybox",
    "config",
    "deadline",
    "jails",
    "leaves_host_as_it_was",
    "make_root",
    "own_folders",
    "own_place",
    "probe",
    "probe_program",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "session_data",
    "session_networks",
    "session_run",
]
