"""A jail before it is a process: the ordered list of system calls that a start would make.

Owns: `Program`.  Building one is pure.  Out of scope: the calls one by one
(`jailrun.kernel.lane`), putting a program into memory (`jailrun.kernel.encode`) and running it
(`jailrun.kernel.execute`).

A program has three lanes, run in this order:

``before``   by the caller: makes cgroups, opens what the child inherits
``child``    in the new process, from its clone to its exec
``attach``   by the caller while the child waits at `Lane.wait_for_caller`: what only the
             caller may do to a process that exists (uid_map, id-mapped layers)
"""

from __future__ import annotations

from jailrun.kernel import constants as c
from jailrun.kernel.lane import Lane
from jailrun.kernel.operation import Operation, OperationError, Pointers, Slot, Struct, Text

__all__ = ["Lane", "Operation", "OperationError", "Pointers", "Program", "Slot", "Struct", "Text"]


class Program:
    """Everything that one start does, in order; see the module's docstring."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.before = Lane(self.slots)
        self.child = Lane(self.slots)
        self.attach = Lane(self.slots)
        # Filled in by the executor when it makes the child.
        self.pid = self.before.slot("pid")
        self.report_fd = self.child.report_fd = self.before.slot("report")
        self.go_fd = self.child.go_fd = self.before.slot("go")
        self.kept: list[int | Slot] = []
        self.clone_flags = 0  # of the clone that makes the child

    def enter(self, facility: str) -> None:
        """Say who adds operations from here on; an error names it."""
        self.before.facility = self.child.facility = self.attach.facility = facility

    def keep(self, *descriptors: int | Slot) -> None:
        """Have the child keep these descriptors; every other one is closed at its birth.

        Descriptors that ``before`` opened and ``child`` uses are kept without being named here.
        """
        self.kept += descriptors

    def operations(self) -> list[Operation]:
        """Return all operations, lane after lane: an operation's number is its place here."""
        return self.before.operations + self.child.operations + self.attach.operations

    def explain(self) -> list[str]:
        """Return the program as lines of text: what would be done, by whom, in which order."""
        used = {slot.index for operation in self.operations() for slot in operation.slots()}

        def lines(operations: list[Operation]) -> list[str]:
            return [
                (f"{one.result.name} = " if one.result.index in used else "") + one.describe()
                for one in operations
            ]

        meeting = self.child.meeting
        return [
            "# the caller, before the jail exists",
            *lines(self.before.operations),
            f"{self.pid.name} = clone3({{flags={format_flags(self.clone_flags)}}})",
            "# the new process",
            *lines(self.child.operations[:meeting]),
            "# the caller, while the new process waits",
            *lines(self.attach.operations),
            "# the new process",
            *lines(self.child.operations[meeting:]),
        ]


def format_flags(flags: int) -> str:
    """Return clone flags by their names (clone(2))."""
    names = [name for name in dir(c) if name.startswith("CLONE_") and getattr(c, name) & flags]
    return "|".join(names) or "0"
