"""The verb update: what the options mean together with the limits that a jail has."""

from __future__ import annotations

from typing import Any

import pytest

from jailrun.cli.update import plan_change
from jailrun.errors import JailError
from jailrun.spec.default import default_config
from jailrun.spec.facts import HostFacts

HOST = HostFacts(cpu_numbers={0, 1}, memory_bytes=1 << 30)
M = 1 << 20


def plan(asked: dict[str, Any], *, has_swap: bool = True, **present: Any) -> Any:
    """Return the change of a jail whose memory limits are ``present``."""
    config: Any = default_config()
    config["linux"]["resources"]["memory"] = present
    request: Any = {**asked, "host": HOST}
    return plan_change(request, config, has_swap=has_swap)


def test_what_is_not_named_is_not_there() -> None:
    assert plan({"pids": "7"}) == {"pids": {"limit": 7}}


def test_cpus_and_the_rest() -> None:
    assert plan({"cpus": "1.5", "cpuset": "0-1", "cpu_shares": "512"}) == {
        "cpu": {"quota": 150000, "period": 100000, "shares": 512, "cpus": "0-1"}
    }


def test_memory_without_swap_stays_without_swap() -> None:
    assert plan({"memory": "32M"}, limit=64 * M, swap=64 * M)["memory"] == {
        "limit": 32 * M,
        "swap": 32 * M,
    }


def test_memory_keeps_the_swap_beside_it() -> None:
    assert plan({"memory": "32M"}, limit=64 * M, swap=80 * M)["memory"] == {
        "limit": 32 * M,
        "swap": 48 * M,
    }


def test_memory_keeps_swap_without_limit() -> None:
    assert plan({"memory": "32M"}, limit=64 * M, swap=-1)["memory"] == {
        "limit": 32 * M,
        "swap": -1,
    }


def test_swap_alone_takes_the_present_memory() -> None:
    assert plan({"swap": "16M"}, limit=64 * M, swap=64 * M)["memory"] == {
        "limit": 64 * M,
        "swap": 80 * M,
    }


def test_swap_needs_memory() -> None:
    with pytest.raises(JailError, match="needs a limit of memory"):
        plan({"swap": "16M"})


def test_swap_that_nobody_asked_for_is_left_out_where_it_cannot_be_limited() -> None:
    config: Any = default_config()
    config["linux"]["resources"]["memory"] = {"limit": 64 * M, "swap": 64 * M}
    config["jailrun"]["swap"] = "default"
    asked: Any = {"memory": "32M"}
    assert plan_change(asked, config, has_swap=False)["memory"] == {"limit": 32 * M}
    assert plan_change({"swap": "1M"}, config, has_swap=False)["memory"]["swap"] == 65 * M


@pytest.mark.parametrize(
    "asked",
    [
        {"memory": "0"},
        {"memory": "-1"},
        {"memory": "1k"},
        {"memory": "8G"},
        {"memory": "lots"},
        {"cpus": "0"},
        {"cpus": "9999"},
        {"cpuset": "7"},
        {"cpuset": "1-0"},
        {"cpu_shares": "1"},
        {"pids": "0"},
        {"pids": "-1"},
    ],
)
def test_impossible_limits(asked: dict[str, str]) -> None:
    with pytest.raises(JailError) as caught:
        plan(asked)
    assert caught.value.hint


def test_request_is_not_changed() -> None:
    asked: Any = {"memory": "32M", "host": HOST}
    config: Any = default_config()
    config["linux"]["resources"]["memory"] = {"limit": 64 * M, "swap": 80 * M}
    plan_change(asked, config)
    assert asked == {"memory": "32M", "host": HOST}
