"""A program in memory, as both executors read it.

Owns: the layout (header, operations, slots, data, two stacks in one buffer), which
``_interpret.h`` repeats as C structures.  Pointers in arguments are offsets in the buffer, those
inside structures are absolute: the buffer never moves.  Out of scope: running it.
"""

from __future__ import annotations

from _struct import Struct as Layout
from _struct import pack, pack_into, unpack_from

from jailrun.kernel.operation import FORMAT, KEEP, STORE32, Operation, Pointers, Slot, Struct, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jailrun.kernel.operation import Argument
    from jailrun.kernel.program import Program

HEADER = Layout("<QIIQQQQq")
OPERATION = Layout("<hhhBBBx3h6q")
STACK_BYTES = 16384  # each: the interpreter's own frames, and the table of kept descriptors
STACKS_AT = 64
NONE_ALLOWED = (0, 0, 0)
NO_ARGUMENTS = tuple((0,) * (6 - given) for given in range(7))  # what fills a row up


class Encoded:
    """An encoded program: the buffer, and which operation each of its rows came from."""

    __slots__ = ("attach", "before", "buffer", "child", "origin", "slots_at")

    def __init__(self, buffer: bytearray, slots_at: int, origin: list[Operation]) -> None:
        self.buffer = buffer
        self.slots_at = slots_at
        self.origin = origin
        self.before = self.child = self.attach = (0, 0)  # first row, row after the last

    def read_slot(self, slot: Slot) -> int:
        """Return the number in ``slot``, -1 while it is empty."""
        return int(unpack_from("<q", self.buffer, self.slots_at + 8 * slot.index)[0])

    def write_slot(self, slot: Slot, value: int) -> None:
        """Put a number into ``slot``."""
        pack_into("<q", self.buffer, self.slots_at + 8 * slot.index, value)


def encode(program: Program, address_of: Callable[[bytearray], int]) -> Encoded:
    """Lay out ``program``; ``address_of`` says where a buffer lies in memory."""
    slots_at = STACKS_AT + 2 * STACK_BYTES
    data_at = slots_at + 8 * len(program.slots)
    rows = _Rows(data_at)
    lanes = []
    for lane in (program.before, program.child, program.attach):
        first = len(rows.rows)
        if lane is program.child and lane.operations:
            rows.keep(lane.operations[0], _kept(program))
        for operation in lane.operations:
            rows.add(operation)
        lanes.append((first, len(rows.rows)))
    rows_at = data_at + rows.length
    length = rows_at + OPERATION.size * len(rows.rows)
    buffer = bytearray(STACKS_AT).ljust(slots_at, b"\0")
    buffer += b"\xff" * (data_at - slots_at)
    buffer += b"".join(rows.data)
    buffer += b"".join(rows.rows)
    HEADER.pack_into(
        buffer, 0, length, len(rows.rows), len(program.slots), rows_at, slots_at, STACKS_AT,
        STACK_BYTES, program.report_fd.index,
    )  # fmt: skip
    base = address_of(buffer)
    for at, target in rows.pointers:
        pack_into("<Q", buffer, at, base + target)
    encoded = Encoded(buffer, slots_at, rows.origin)
    encoded.before, encoded.child, encoded.attach = lanes
    return encoded


def _kept(program: Program) -> list[int | Slot]:
    """Return the descriptors that the child keeps: its streams, and what it was given to use."""
    opened = {operation.result.index for operation in program.before.operations}
    used = {
        argument.index: argument
        for operation in program.child.operations
        for argument in operation.args
        if type(argument) is Slot and argument.index in opened
    }
    return [0, 1, 2, program.report_fd, program.go_fd, *program.kept, *used.values()]


def _terminated(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return data + b"\0"


class _Rows:
    """The operations as rows and the data they point to, offsets counted from the buffer's start.

    A number that is known only when the program runs gets a row of its own, which puts it into
    the text or structure just before the operation that uses it.
    """

    def __init__(self, data_at: int) -> None:
        self.data_at = data_at
        self.length = 0
        self.data: list[bytes] = []
        self.strings: dict[str, int] = {}
        self.pointers: list[tuple[int, int]] = []  # where, to what
        self.rows: list[bytes] = []
        self.origin: list[Operation] = []

    def add(self, operation: Operation) -> None:
        """Append one operation."""
        if operation.number == KEEP:
            self.keep(operation, operation.args)
            return
        args = []
        slots = pointers = 0
        needs = -1
        bit = 1
        # The kinds by how often they come: a start has some three hundred operations.
        for argument in operation.args:
            if isinstance(argument, int):
                args.append(argument)
            elif isinstance(argument, Slot):
                args.append(argument.index)
                slots |= bit
            else:
                pointers |= bit
                if isinstance(argument, str):
                    at = self.strings.get(argument)
                    args.append(self._place_string(argument) if at is None else at)
                else:
                    at, needed = self._place(operation, argument)
                    args.append(at)
                    needs = max(needs, needed)
            bit += bit
        row = (operation.number, operation.result.index, needs, slots, pointers, operation.flags)
        self._append(operation, row, operation.allow, args)

    def keep(self, operation: Operation, kept: Iterable[Argument]) -> None:
        """Append the row that closes every descriptor but ``kept``; errors name ``operation``."""
        table = b"".join(
            pack("<qq", fd.index, 1) if isinstance(fd, Slot) else pack("<qq", fd, 0) for fd in kept
        )
        row = (KEEP, operation.result.index, -1, 0, 1, 0)
        self._append(operation, row, (), [self._put(table), len(table) // 16])

    def _append(
        self, operation: Operation, row: tuple[int, ...], allow: tuple[int, ...], args: list[int]
    ) -> None:
        errnos = (*allow, 0, 0, 0)[:3] if allow else NONE_ALLOWED
        self.rows.append(OPERATION.pack(*row, *errnos, *args, *NO_ARGUMENTS[len(args)]))
        self.origin.append(operation)

    def _put(self, data: bytes) -> int:
        """Append ``data``, aligned to eight bytes; return its offset in the buffer."""
        at = self.data_at + self.length
        padding = -len(data) % 8
        self.data.append(data + b"\0" * padding if padding else data)
        self.length += len(data) + padding
        return at

    def _place_string(self, text: str) -> int:
        """Append a string; used again, it is not placed again: nothing writes to one."""
        at = self.strings[text] = self._put(_terminated(text))
        return at

    def _place(self, operation: Operation, argument: Argument) -> tuple[int, int]:
        """Append what an argument points to; return its offset, and the slot it needs or -1."""
        if isinstance(argument, Struct):
            return self._place_struct(operation, argument)
        if isinstance(argument, bytes):
            return self._put(_terminated(argument)), -1
        if isinstance(argument, Pointers):
            targets = [self._put(_terminated(item)) for item in argument.items]
            at = self._put(bytes(8 * len(targets) + 8))
            self.pointers += [(at + 8 * i, target) for i, target in enumerate(targets)]
            return at, -1
        if isinstance(argument, Text):
            return self._place_text(operation, argument)
        raise TypeError(f"not an argument of a system call: {argument!r}")

    def _place_text(self, operation: Operation, text: Text) -> tuple[int, int]:
        """Append a text and the rows that fill it in, each from the text before it."""
        template = _terminated(text.template)
        at = self._put(template)
        for count, slot in enumerate(text.slots, 1):
            filled = self._put(bytes(len(template) + 20 * count))
            args = [filled, at, slot.index]
            row = (FORMAT, operation.result.index, -1, 0b100, 0b011, 0)
            self._append(operation, row, (), args)
            at = filled
        return at, text.slots[-1].index

    def _place_struct(self, operation: Operation, struct: Struct) -> tuple[int, int]:
        if struct.holes is None and len(struct.parts) == 1 and isinstance(struct.parts[0], bytes):
            return self._put(struct.parts[0]), -1  # as most are
        needs = -1
        targets = []
        flat = b""
        for part in struct.parts:
            if isinstance(part, Struct):
                target, needed = self._place_struct(operation, part)
                targets.append((len(flat), target))
                needs = max(needs, needed)
                part = bytes(8)
            flat += part
        at = self._put(flat)
        self.pointers += [(at + offset, target) for offset, target in targets]
        for offset, slot in (struct.holes or {}).items():
            row = (STORE32, operation.result.index, -1, 0b10, 0b01, 0)
            self._append(operation, row, (), [at + offset, slot.index])
            needs = max(needs, slot.index)
        return at, needs
