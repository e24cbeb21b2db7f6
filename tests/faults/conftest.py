"""The ground of the fault tests, which is that of the integration tests."""

from __future__ import annotations

from tests.integration.engine.conftest import executor
from tests.integration.ground import (
    busybox,
    config,
    deadline,
    jails,
    leaves_host_as_it_was,
    own_folders,
    own_mount_namespace,
    probe_program,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    session_data,
    session_run,
)

__all__ = [
    "busybox",
    "config",
    "deadline",
    "executor",
    "jails",
    "leaves_host_as_it_was",
    "own_folders",
    "own_mount_namespace",
    "probe_program",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "session_data",
    "session_run",
]
