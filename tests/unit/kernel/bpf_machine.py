"""A machine for the BPF programs of ours: runs the instructions that they may have.

Stricter than the kernel's own where that finds mistakes: a register that was not written, memory
that is not there and an instruction that nothing reaches are errors.
"""

from __future__ import annotations

from _struct import unpack_from
from collections.abc import Callable

MASK = 2**64 - 1
SPACE = 1 << 32  # between blocks of memory
FRAME, STACK_BYTES = 10, 512
SIZES = {0x71: 1, 0x61: 4, 0x79: 8, 0x63: 4, 0x62: 4}
JUMPS = {0x15, 0x55, 0x16, 0x56}
EXIT = 0x95

Helper = Callable[["Machine", list[int]], int]


def find_unreached(code: bytes) -> set[int]:
    """Return the instructions that nothing reaches, which the kernel's verifier refuses."""
    count, seen, todo = len(code) // 8, set(), [0]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        assert at < count, "a jump out of the program"
        seen.add(at)
        opcode, _pair, jump, _value = unpack_from("<BBhi", code, at * 8)
        if opcode in JUMPS:
            todo.append(at + 1 + jump)
        if opcode != EXIT:
            todo.append(at + 1)
    return set(range(count)) - seen


class Machine:
    """Registers, a stack, the context and further blocks of memory."""

    def __init__(
        self,
        context: bytes,
        blocks: tuple[bytes, ...] = (),
        helpers: dict[int, Helper] | None = None,
    ) -> None:
        stack = bytes(STACK_BYTES)
        self.blocks = [bytearray(one) for one in (b"", stack, context, *blocks)]
        self.helpers = helpers or {}
        self.registers = {1: 2 * SPACE, FRAME: SPACE + STACK_BYTES}

    @property
    def context(self) -> bytearray:
        """What the program has made of its context."""
        return self.blocks[2]

    @staticmethod
    def address(block: int) -> int:
        """Return the address of a further block."""
        return (3 + block) * SPACE

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of memory."""
        block, at = divmod(address, SPACE)
        data = bytes(self.blocks[block][at : at + size])
        assert len(data) == size, "a read beyond the end"
        return data

    def write(self, address: int, data: bytes) -> None:
        """Change bytes of memory."""
        block, at = divmod(address, SPACE)
        assert at + len(data) <= len(self.blocks[block]), "a write beyond the end"
        self.blocks[block][at : at + len(data)] = data

    def run(self, code: bytes) -> int:
        """Run a program; return what it does."""
        at = 0
        for _step in range(len(code) // 8 + 1):
            opcode, pair, offset, value = unpack_from("<BBhi", code, at * 8)
            at += 1
            if opcode == EXIT:
                return self.registers[0]
            if opcode in JUMPS:
                at += offset if self._jumps(opcode, self.registers[pair & 15], value) else 0
            elif opcode in SIZES:
                self._move_memory(opcode, pair & 15, pair >> 4, offset, value)
            elif opcode == 0x85:
                arguments = [self.registers.pop(number, 0) for number in range(1, 6)]
                self.registers[0] = self.helpers[value](self, arguments) & MASK
            else:
                self._compute(opcode, pair & 15, pair >> 4, value)
        raise AssertionError("no exit")

    @staticmethod
    def _jumps(opcode: int, register: int, value: int) -> bool:
        mask = MASK if opcode & 7 == 5 else MASK >> 32
        equal = register & mask == value & mask
        return equal == (opcode & 0xF0 == 0x10)

    def _move_memory(self, opcode: int, target: int, source: int, offset: int, value: int) -> None:
        size = SIZES[opcode]
        if opcode & 7 == 1:
            data = self.read(self.registers[source] + offset, size)
            self.registers[target] = int.from_bytes(data, "little")
        else:
            number = self.registers[source] if opcode == 0x63 else value
            data = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
            self.write(self.registers[target] + offset, data)

    def _compute(self, opcode: int, target: int, source: int, value: int) -> None:
        registers = self.registers
        if opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0xB7:
            registers[target] = value & MASK
        elif opcode == 0xB4:
            registers[target] = value & MASK >> 32
        elif opcode == 0x07:
            registers[target] = registers[target] + value & MASK
        elif opcode == 0x57:
            registers[target] &= value & MASK
        elif opcode == 0x77:
            registers[target] >>= value
        else:
            raise AssertionError(f"instruction {opcode:#x}")
