"""Cells: processes of the tests' own in cgroups made by the real plan, and nothing else of a jail.

A cell runs the plan's ``before`` lane, forks, and has the child write ``0`` to each cgroup by
itself, as a jail's child does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun.cgroups import control
from jailrun.cgroups.errors import translate
from jailrun.cgroups.hierarchy import UNIFIED, Hierarchies, place, read_hierarchies
from jailrun.cgroups.plan import plan, read_facts
from jailrun.kernel.execute import Execution
from jailrun.kernel.operation import OperationError
from jailrun.kernel.program import Program

COUNT = itertools.count()
SECONDS = 20.0  # a deadline, never a measure


def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait until ``condition`` holds; fail after a generous time."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it never came: {what or condition}"
        select.poll().poll(5)


def close_what_is_open(execution: Execution, error: OperationError) -> None:
    """Close the descriptors that a lane had open when it failed; they would hold the lock."""
    operations = execution.program.before.operations
    done = operations[: operations.index(error.operation)]
    closed = {op.args[0] for op in done if op.name == "close"}
    for op in done:
        if op.name in ("openat", "bpf") and op.result not in closed:
            fd = execution.read_slot(op.result)
            if fd > 2:
                os.close(fd)


class Cell:
    """The cgroups of one jail that has no other walls."""

    def __init__(self, resources: dict[str, Any], hierarchies: Hierarchies, path: str = "") -> None:
        self.name = f"jailrun-test-{os.getpid()}-{next(COUNT)}"
        self.config = {"linux": {"resources": resources, "cgroupsPath": path}}
        self.hierarchies = hierarchies
        self.cgroups = place(self.config, self.name, hierarchies)
        self.children: list[subprocess.Popen[str]] = []

    def make(self, *, look: bool = True) -> None:
        """Run the plan's ``before`` lane; raise what the facility raises."""
        facts = read_facts(self.config, self.hierarchies, self.cgroups) if look else None
        program = Program()
        plan(self.config, program, self.hierarchies, self.cgroups, facts)
        execution = Execution(program)
        try:
            execution.run_before()
        except OperationError as error:
            close_what_is_open(execution, error)
            raise translate(error) from error
        execution.close_opened()

    def run(self, code: str) -> subprocess.Popen[str]:
        """Start Python in the cgroups with this program; its output is a pipe."""
        joins = [
            f"{path}/{'cgroup.procs' if key == UNIFIED else 'tasks'}"
            for key, path in self.cgroups.items()
        ]
        join = f"for file in {joins!r}:\n    open(file, 'w').write('0')\n"
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", join + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.children.append(child)
        return child

    def answer(self, code: str) -> str:
        """Run a program to its end and return what it printed."""
        return self.run(code).communicate(timeout=SECONDS)[0]

    def hold(self, code: str = "") -> subprocess.Popen[str]:
        """Run a program and, after it, wait for its input to end; return when it waits."""
        child = self.run(f"{code}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()\n")
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        return child

    def read(self, controller: str, file: str) -> str:
        """Return the text of a file of the cell."""
        hierarchy = self.hierarchies.of(controller)
        return (
            (Path(self.cgroups[hierarchy.id if hierarchy else UNIFIED]) / file).read_text().strip()
        )

    def end(self) -> None:
        """Kill, reap and remove."""
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
        if any(Path(path).is_dir() for path in self.cgroups.values()):
            control.kill(self.cgroups)
        for child in self.children:
            child.wait(SECONDS)
            for stream in (child.stdin, child.stdout):
                if stream:
                    stream.close()
        control.release(self.cgroups)


def list_cgroups(hierarchies: Hierarchies) -> set[str]:
    """Return what is below the roots, one level deep, and what is enabled for it."""
    found = set()
    for item in hierarchies.items:
        found |= {entry.path for entry in os.scandir(item.mount) if entry.is_dir()}
    if hierarchies.unified:
        file = Path(hierarchies.unified.mount) / "cgroup.subtree_control"
        found |= {f"+{name}" for name in file.read_text().split()}
    return found


@pytest.fixture
def hierarchies() -> Hierarchies:
    """Return this host's hierarchies."""
    if os.geteuid():
        pytest.skip("needs root")
    return read_hierarchies(fresh=True)


@pytest.fixture(autouse=True)
def leaves_no_cgroup(hierarchies: Hierarchies) -> Iterator[None]:
    """Fail a test that leaves a cgroup of its own, or a controller enabled for it."""
    before = list_cgroups(hierarchies)
    yield
    left = {one for one in list_cgroups(hierarchies) - before if "/jailrun-test-" in one}
    for item in hierarchies.items:
        parent = Path(item.mount) / "jailrun"
        if parent.is_dir():
            left |= {str(path) for path in parent.glob(f"jailrun-test-{os.getpid()}-*")}
    assert not left


@pytest.fixture
def make_cell(hierarchies: Hierarchies) -> Iterator[Callable[..., Cell]]:
    """Return a function that makes a cell; all are ended after the test."""
    cells: list[Cell] = []

    def make(
        resources: dict[str, Any] | None = None, *, on: Hierarchies | None = None, path: str = ""
    ) -> Cell:
        cell = Cell(resources or {}, on or hierarchies, path)
        cells.append(cell)
        try:
            cell.make()
        except Exception:
            control.release(cell.cgroups)
            raise
        return cell

    yield make
    for cell in cells:
        cell.end()
