"""The ground of the fault tests, which is that of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import *  # noqa: F403 - every fixture and hook of theirs
from tests.integration.engine.conftest import executor as executor
