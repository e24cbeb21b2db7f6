"""A lane: the ordered operations of one process.

Owns: `Lane`, and the operations that are not one system call.  Out of scope: the system calls
(`jailrun.kernel.calls`), running them (`jailrun.kernel.execute`).
"""

from __future__ import annotations

from _struct import pack

from jailrun.kernel import constants as c
from jailrun.kernel.calls import Calls
from jailrun.kernel.operation import (
    DROP,
    EXACT,
    KEEP,
    NETLINK,
    PSEUDO,
    SIGNALS,
    SPLIT,
    Operation,
    Slot,
    Struct,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Unpack

    from jailrun.kernel.calls import Fd, Words
    from jailrun.kernel.operation import Argument

# Reports that a program makes itself; see jailrun.kernel.execute
READY = pack("<IIiI", 4, 0, 0, 0)
EXECUTING = pack("<IIiI", 5, 0, 0, 0)


class Lane(Calls):
    """An ordered list of operations for one process."""

    def __init__(self, slots: list[Slot]) -> None:
        self.slots = slots
        self.operations: list[Operation] = []
        self.facility = "engine"
        self.meeting = 0
        self.report_fd: Slot
        self.go_fd: Slot

    def slot(self, kind: str) -> Slot:
        """Return a new, empty slot, for a ``kind`` of number."""
        slot = Slot(len(self.slots), kind)
        self.slots.append(slot)
        return slot

    def call(
        self,
        name: str,
        *args: Argument,
        what: str = "",
        object: str = "",
        allow: tuple[int, ...] = (),
        hint: str = "",
        result: str = "",
        flags: int = 0,
    ) -> Slot:
        """Add the system call ``name``; return the slot of its result."""
        slot = Slot(len(self.slots), result or name)
        self.slots.append(slot)
        self.operations.append(
            Operation(
                name, c.SYSCALLS[name], args, slot, self.facility, what, object, allow, hint, flags
            )
        )
        return slot

    def pseudo(
        self,
        number: int,
        *args: Argument,
        what: str = "",
        object: str = "",
        allow: tuple[int, ...] = (),
        hint: str = "",
        result: str = "",
    ) -> Slot:
        """Add an operation that is not one system call."""
        name = PSEUDO[number]
        slot = self.slot(result or name)
        self.operations.append(
            Operation(name, number, args, slot, self.facility, what, object, allow, hint, 0)
        )
        return slot

    def split(self, flags: int, *, what: str) -> Slot:
        """Go on in a new child of the caller: who joins a pid namespace is not in it himself."""
        return self.pseudo(SPLIT, flags, what=what)

    def wait_for_caller(self, what: str = "wait for the caller", fd: Fd | None = None) -> None:
        """Report that this point is reached and wait for the word to go on, on ``fd`` if given."""
        self.call("write", self.report_fd, Struct(READY, label="ready"), 16, flags=EXACT)
        self.meeting = self.meeting or len(self.operations)
        self.read_exact(self.go_fd if fd is None else fd, 1, what=what)

    def announce_exec(self) -> None:
        """Report that only execve is left; fails where the caller has gone meanwhile."""
        report = Struct(EXECUTING, label="executing")
        self.call("write", self.report_fd, report, 16, flags=EXACT, what="reach the caller")

    def keep_only(self, *descriptors: Fd) -> None:
        """Close every descriptor but these."""
        self.pseudo(KEEP, *descriptors, what="close what is not needed")

    def drop_capabilities(self, mask: int, *, what: str, object: str) -> None:
        """Take capabilities, bit n for the one of number n, out of the bounding set."""
        self.pseudo(DROP, mask, what=what, object=object)

    def netlink(self, socket: Fd, message: Struct, **words: Unpack[Words]) -> Slot:
        """Send one message that asks for an acknowledgement, and read it (rtnetlink(7)).

        Fails with the errno in it; the result is the index of the link that the kernel told of
        before, as RTM_GETLINK asks, or 0.  The executor numbers the message.
        """
        return self.pseudo(NETLINK, socket, message, **words)

    def reset_signals(self) -> None:
        """Give every signal its default and block none, as an exec should find them."""
        self.pseudo(SIGNALS, what="reset the signals")
