"""One step of a program: a system call, its arguments, its result, and why it is made.

Owns: the kinds of arguments, `Operation`, and how a step reads in words, planned or failed.
Out of scope: the order of the steps (`jailrun.kernel.program`).

An operation's result is a `Slot`, an argument for later ones.  An operation that failed with an
errno it allows leaves its slot empty, and every operation with an empty slot among its arguments
is skipped: the only branch that a program has.
"""

from __future__ import annotations

from jailrun.kernel.constants import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    Argument: TypeAlias = "int | str | bytes | Slot | Text | Pointers | Struct"

# Operations that are not one system call; negative numbers, shared with _interpret.h.
FORMAT = -1  # (text, template, slot): the slot's number in place of the first "%"
STORE32 = -2  # (address, slot): puts a number into a structure, as for SCM_RIGHTS
SPLIT = (
    -3
)  # (clone flags): goes on in a new child of the caller, as a join of a pid namespace needs
SIGNALS = -4  # (): every signal to its default, none blocked
KEEP = -5  # (descriptors): closes every descriptor but these
DROP = -6  # (mask): takes these capabilities, bit n for number n, out of the bounding set
NETLINK = -7  # (socket, message): sends it, reads the answer; the index of a link, or 0
PSEUDO = {
    FORMAT: "format", STORE32: "store", SPLIT: "clone", SIGNALS: "signals", KEEP: "keep",
    DROP: "drop", NETLINK: "netlink",
}  # fmt: skip

EXACT = 1  # flag: the result must be the third argument, as for a whole write
NOTE = 2  # flag: an allowed failure is reported all the same, for the error that comes after it
ANY_ERROR = 4  # flag: no failure of this operation matters


class Slot:
    """The place of a result: a number known only when the program runs, -1 while empty."""

    __slots__ = ("index", "kind")

    def __init__(self, index: int, kind: str) -> None:
        self.index = index
        self.kind = kind

    @property
    def name(self) -> str:
        """Its name where the program is shown: what it holds, and a number."""
        return f"{self.kind}{self.index}"

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Text:
    """A string with numbers known only when the program runs: one slot for each ``%``."""

    __slots__ = ("slots", "template")

    def __init__(self, template: str, *slots: Slot) -> None:
        self.template = template
        self.slots = slots

    def __repr__(self) -> str:
        return repr(str(self))

    def __str__(self) -> str:
        text = self.template
        for slot in self.slots:
            text = text.replace("%", f"<{slot.name}>", 1)
        return text


class Pointers:
    """A NULL-terminated array of pointers to strings, as execve takes."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[str | bytes]) -> None:
        self.items = list(items)

    def __repr__(self) -> str:
        return repr(self.items)


class Struct:
    """A kernel structure: bytes and pointers to further structures; strings get no NUL here.

    ``holes`` maps an offset in it to a slot whose 32-bit number is stored there before use.
    """

    __slots__ = ("holes", "label", "parts")

    def __init__(
        self, *parts: bytes | Struct, label: str = "…", holes: dict[int, Slot] | None = None
    ) -> None:
        self.parts = parts
        self.label = label
        self.holes = holes

    def slots(self) -> list[Slot]:
        """Return the slots that are stored in it or in what it points to."""
        found = list((self.holes or {}).values())
        for part in self.parts:
            if isinstance(part, Struct):
                found += part.slots()
        return found

    def __repr__(self) -> str:
        return self.label


class Operation:
    """One step: a system call with its arguments, why it is made, and what may go wrong."""

    __slots__ = (
        "allow",
        "args",
        "facility",
        "flags",
        "hint",
        "name",
        "number",
        "object",
        "result",
        "what",
    )

    def __init__(
        self,
        name: str,
        number: int,
        args: tuple[Argument, ...],
        result: Slot,
        facility: str,
        what: str,
        object: str,
        allow: tuple[int, ...],
        hint: str,
        flags: int,
    ) -> None:
        self.name = name
        self.number = number
        self.args = args
        self.result = result
        self.facility = facility
        self.what = what
        self.object = object
        self.allow = allow
        self.hint = hint
        self.flags = flags

    def slots(self) -> list[Slot]:
        """Return the slots that the operation needs."""
        found: list[Slot] = []
        for argument in self.args:
            if isinstance(argument, Slot):
                found.append(argument)
            elif isinstance(argument, Text):
                found += argument.slots
            elif isinstance(argument, Struct):
                found += argument.slots()
        return found

    def describe(self) -> str:
        """Return the call in one line, as --explain prints it."""
        args = ", ".join(_show(argument) for argument in self.args)
        why = f"  # {self.what} {self.object}".rstrip() if self.what else ""
        return f"{self.name}({args}){why}"


def _show(argument: Argument) -> str:
    if argument == AT_FDCWD:
        return "AT_FDCWD"
    if isinstance(argument, int):
        return str(argument) if -4096 < argument < 4096 else hex(argument)
    if isinstance(argument, bytes):
        text = argument.decode("utf-8", "replace")
        return repr(text) if text.replace("\n", "").isprintable() else f"<{len(argument)} bytes>"
    return repr(argument)


class OperationError(OSError):
    """An operation of a program failed; ``operation`` says which, and why it was made."""

    def __init__(self, number: int, strerror: str, operation: Operation) -> None:
        super().__init__(number, strerror, operation.object or None)
        self.operation = operation

    def __str__(self) -> str:
        operation = self.operation
        subject = f"{operation.what or operation.name} {operation.object}".strip()
        return f"cannot {subject}: {self.strerror}"
