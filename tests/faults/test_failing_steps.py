"""Every operation of a start fails, or its process dies there: one error, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine import launch as module
from jailrun.engine.lifecycle import delete
from jailrun.engine.record import list_names
from jailrun.errors import JailError
from jailrun.kernel import constants as c
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
        number, value = (EXIT_GROUP[c.MACHINE], 99) if kind == "end" else (c.SYSCALLS["close"], -1)
        fault = Operation("fault", number, (value,), slot, "engine", "be faulty", "", (), "", 0)
        operations.insert(place, fault)
        return plan

    module.make_plan = make_plan
    try:
        yield lengths
    finally:
        module.make_plan = original


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
                assert "be faulty" in str(error) or "ended early" in str(error)
            else:
                jails.running.remove(running)
                if kind == "end" and not hold:
                    # It had said that it executes: then it has ended by itself.
                    assert running.wait().status == 99
                else:
                    assert hold, f"{lane} {place}: no error"
                    delete(running.name, force=True)
                    running.drop()
        count = lengths[0]
        place += 1 if lane != "child" else 3
        assert list_names() == [], f"{lane} {place}"
    assert count > 3
