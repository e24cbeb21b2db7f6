"""A program in memory: the layout that _execute.c reads, and what is where."""

from __future__ import annotations

import re
import subprocess
from _struct import unpack_from
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.kernel import constants as c
from jailrun.kernel import operation as words
from jailrun.kernel.encode import HEADER, OPERATION, Encoded, encode
from jailrun.kernel.operation import Pointers, Struct, Text
from jailrun.kernel.program import Program

KERNEL = Path(__file__).resolve().parents[3] / "jailrun" / "kernel"
BASE = 0x10000


def put(program: Program) -> Encoded:
    """Encode for a made-up address."""
    return encode(program, lambda _buffer: BASE)


def rows_of(encoded: Encoded) -> list[tuple[int, ...]]:
    """Return the rows of an encoded program."""
    header = HEADER.unpack_from(encoded.buffer)
    return [
        OPERATION.unpack_from(encoded.buffer, header[3] + at * OPERATION.size)
        for at in range(header[1])
    ]


def string_at(encoded: Encoded, offset: int) -> bytes:
    """Return the NUL-terminated string at an offset."""
    return bytes(encoded.buffer[offset : encoded.buffer.index(b"\0", offset)])


def read_source() -> str:
    """Return the C sources of the executor."""
    return "".join(path.read_text() for path in sorted(KERNEL.glob("_*.[ch]")))


@pytest.mark.runs_programs
def test_layout_is_that_of_the_source(tmp_path: Path) -> None:
    """Sizes and offsets as the C compiler has them."""
    source = read_source()
    fields = {
        "header": "length operation_count slot_count operations slots stacks stack_bytes "
        "report_slot",
        "operation": "number result needs slot_mask pointer_mask flags allow args",
    }
    structs = [re.search(rf"struct {name} {{.*?}};", source, re.S) for name in fields]
    lines = ["#include <stddef.h>", "#include <stdint.h>", "#include <stdio.h>"]
    lines += [found.group(0) for found in structs if found]
    lines += ["int main(void) {"]
    for name, names in fields.items():
        lines += [f'printf("%zu ", sizeof(struct {name}));']
        lines += [f'printf("%zu ", offsetof(struct {name}, {field}));' for field in names.split()]
    program = tmp_path / "layout.c"
    program.write_text("\n".join([*lines, "return 0; }"]))
    subprocess.run(["gcc", "-o", str(tmp_path / "layout"), str(program)], check=True)
    answer = subprocess.run([str(tmp_path / "layout")], check=True, capture_output=True, text=True)
    numbers = [int(word) for word in answer.stdout.split()]
    assert numbers[0] == HEADER.size
    assert numbers[1:9] == [0, 8, 12, 16, 24, 32, 40, 48]
    assert numbers[9] == OPERATION.size
    assert numbers[10:] == [0, 2, 4, 6, 7, 8, 10, 16]


def test_numbers_are_those_of_the_source() -> None:
    """The enumerations of both languages agree."""
    source = read_source()
    for name in (
        "FORMAT",
        "STORE32",
        "SPLIT",
        "SIGNALS",
        "KEEP",
        "DROP",
        "NETLINK",
        "EXACT",
        "NOTE",
        "ANY_ERROR",
    ):
        found = re.search(rf"\b{name} = (-?\d+)", source)
        assert found, name
        assert int(found.group(1)) == getattr(words, name)


def test_header() -> None:
    """Everything lies in the buffer, and nothing overlaps."""
    program = Program()
    program.before.mkdir("/a")
    program.child.chdir("/b")
    encoded = put(program)
    header = HEADER.unpack_from(encoded.buffer)
    length, count, slots, rows_at, slots_at, stacks_at, stack_bytes, report = header
    assert length == len(encoded.buffer)
    assert slots == len(program.slots)
    assert HEADER.size <= stacks_at
    assert stacks_at % 16 == 0
    assert stacks_at + 2 * stack_bytes <= slots_at
    assert slots_at % 8 == rows_at % 8 == 0
    assert slots_at + 8 * slots <= rows_at
    assert rows_at + count * OPERATION.size == length
    assert report == program.report_fd.index
    assert all(encoded.read_slot(slot) == -1 for slot in program.slots)


def test_lanes() -> None:
    """Each lane is a range of rows; the child's begins with the closing of descriptors."""
    program = Program()
    program.before.mkdir("/a")
    program.child.chdir("/b")
    program.attach.mkdir("/c")
    encoded = put(program)
    assert encoded.before == (0, 1)
    assert encoded.child == (1, 3)
    assert encoded.attach == (3, 4)
    assert rows_of(encoded)[1][0] == words.KEEP
    assert len(encoded.origin) == 4


def test_arguments() -> None:
    """Numbers as they are, slots by index, strings by their place."""
    program = Program()
    fd = program.before.open("/a", 5)
    program.child.mkdirat(fd, "name", 0o700, allow=(17, 30))
    row = rows_of(encoded := put(program))[-1]
    number, result, needs, slot_mask, pointer_mask, flags = row[:6]
    assert number == c.SYSCALLS["mkdirat"]
    assert result == program.child.operations[0].result.index
    assert (needs, slot_mask, pointer_mask, flags) == (-1, 0b001, 0b010, 0)
    assert row[6:9] == (17, 30, 0)
    assert row[9] == fd.index
    assert string_at(encoded, row[10]) == b"name"
    assert row[11] == 0o700


def test_pointers() -> None:
    """An array of absolute addresses, ended by NULL."""
    program = Program()
    program.child.call("execve", "/bin/true", Pointers(["a", "bc"]), Pointers([]))
    encoded = put(program)
    row = rows_of(encoded)[-1]
    first, second, end = unpack_from("<QQQ", encoded.buffer, row[10])
    assert string_at(encoded, first - BASE) == b"a"
    assert string_at(encoded, second - BASE) == b"bc"
    assert end == 0
    assert unpack_from("<Q", encoded.buffer, row[11]) == (0,)


def test_text() -> None:
    """A number in a text gets a row before the operation, which needs its slot."""
    program = Program()
    program.child.open(Text("/proc/%/x", program.pid), 0)
    encoded = put(program)
    fill, use = rows_of(encoded)[-2:]
    assert fill[0] == words.FORMAT
    assert string_at(encoded, fill[10]) == b"/proc/%/x"
    assert fill[11] == program.pid.index
    assert use[2] == program.pid.index
    assert use[10] == fill[9]


def test_struct_with_a_hole() -> None:
    """A slot's number is stored in a structure before it is used."""
    program = Program()
    slot = program.before.open("/a", 0)
    inner = Struct(b"in")
    program.child.call("ioctl", 1, 2, Struct(b"head", bytes(4), inner, holes={4: slot}))
    encoded = put(program)
    store, use = rows_of(encoded)[-2:]
    assert store[0] == words.STORE32
    assert store[9] == use[11] + 4
    assert use[2] == slot.index
    assert bytes(encoded.buffer[use[11] : use[11] + 4]) == b"head"
    (target,) = unpack_from("<Q", encoded.buffer, use[11] + 8)
    assert bytes(encoded.buffer[target - BASE : target - BASE + 2]) == b"in"


@given(st.lists(st.binary(max_size=40).filter(lambda data: b"\0" not in data), max_size=30))
def test_many_strings(paths: list[bytes]) -> None:
    """Whatever the strings, each operation has its own."""
    program = Program()
    for path in paths:
        program.child.chdir(path)
    encoded = put(program)
    rows = rows_of(encoded)[1:] if paths else []
    assert [string_at(encoded, row[9]) for row in rows] == paths


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers(value: int) -> None:
    """All 64 bits of an argument arrive."""
    program = Program()
    program.child.call("close", value)
    assert rows_of(put(program))[-1][9] == value


def test_slots_can_be_written() -> None:
    """The executor's own results are put in by hand."""
    program = Program()
    encoded = put(program)
    encoded.write_slot(program.pid, 4711)
    assert encoded.read_slot(program.pid) == 4711


def test_message_of_netlink() -> None:
    """The socket by its slot, the message by its place, filled in before."""
    program = Program()
    socket = program.before.socket(16, 3)
    index = program.before.netlink(socket, Struct(b"ask!"), result="link")
    program.before.netlink(socket, Struct(bytes(8), holes={4: index}), allow=(17,))
    encoded = put(program)
    _, asked, store, told = rows_of(encoded)
    assert asked[0] == told[0] == words.NETLINK
    assert asked[3:5] == (0b01, 0b10)
    assert asked[9] == socket.index
    assert bytes(encoded.buffer[asked[10] : asked[10] + 4]) == b"ask!"
    assert (store[9], store[10]) == (told[10] + 4, index.index)
    assert told[2] == index.index
    assert told[6] == 17
