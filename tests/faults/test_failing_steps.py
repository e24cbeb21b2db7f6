"""Every operation of a start fails, or its process dies there: one error, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine import launch as module
from jailrun.engine.record import list_names
from jailrun.errors import JailError
from jailrun.kernel.operation import Operation
from tests.integration.jails import Build, Jails

EXIT_GROUP = {"x86_64": 231, "aarch64": 94}


@contextmanager
def changed_plan(lane: str, place: int, kind: str) -> Iterator[list[int]]:
    """Put an operation that fails, or ends the process, at a place in a lane of every plan.

    Yields a list that gets the number of operations of that lane.
    """
    original = module.make_plan
    lengths: list[int] = []

    def make_plan(*args: Any, **kwargs: Any) -> Any:
        plan = original(*args, **kwargs)
        operations = getattr(plan.program, lane).operations
        lengths.append(len(operations))
        slot = getattr(plan.program, lane).slot("fault")
        number, value = (EXIT_GROUP[machine()], 99) if kind == "end" else (close_number(), -1)
        fault = Operation("fault", number, (value,), slot, "engine", "be faulty", "", (), "", 0)
        operations.insert(place, fault)
        return plan

    module.make_plan = make_plan
    try:
        yield lengths
    finally:
        module.make_plan = original


def machine() -> str:
    """Return the architecture."""
    from jailrun.kernel.constants import MACHINE

    return MACHINE


def close_number() -> int:
    """Return the number of close(2)."""
    from jailrun.kernel.calls import SYSCALLS

    return SYSCALLS["close"]


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize(
    ("lane", "kind"), [("before", "fail"), ("attach", "fail"), ("child", "fail"), ("child", "end")]
)
def test_every_step(
    jails: Jails, config: Build, executor: str, session_data: Path, lane: str, kind: str, hold: bool
) -> None:
    """Wherever it happens, the start raises one error of ours."""
    built = config("true")
    place, count = 0, 1
    while place < count:
        with changed_plan(lane, place, kind) as lengths:
            try:
                running = jails.start(built, hold=hold)
            except JailError as error:
                text = str(error)
                assert "be faulty" in text or "ended early" in text, text
            else:
                # After the place where a created jail waits: its start would tell.
                assert hold, f"{lane} {place}: no error"
                running.execution.abandon()
                from jailrun.engine.lifecycle import delete

                delete(running.name, force=True)
                running.drop()
                jails.running.remove(running)
        count = lengths[0]
        place += 1 if lane != "child" else 3
        assert list_names() == [], f"{lane} {place}"
    assert count > 3
