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
        child = [operation.describe() for operation in self.child.operations]
        meeting = self.child.meeting
        return [
            "# the caller, before the jail exists",
            *(operation.describe() for operation in self.before.operations),
            "# the new process",
            *child[:meeting],
            "# the caller, while the new process waits",
            *(operation.describe() for operation in self.attach.operations),
            "# the new process",
            *child[meeting:],
        ]
