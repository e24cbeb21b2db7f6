"""The assembler of BPF programs: its instructions one by one, and the two calls of bpf(2)."""

from __future__ import annotations

from _struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.kernel import bpf
from jailrun.kernel.operation import Struct
from jailrun.kernel.program import Program
from tests.unit.kernel.bpf_machine import Machine, find_unreached

WORD = st.integers(0, 2**32 - 1)
SIGNED = st.integers(-(2**31), 2**31 - 1)


def run(code: bytes, context: bytes = b"") -> int:
    assert not find_unreached(code)
    return Machine(context).run(code)


def test_encoding() -> None:
    """As bpftool shows them: code, registers, offset, value."""
    assert bpf.load_word(bpf.R2, bpf.R1, 4).hex() == "6112040000000000"
    assert bpf.store_word(bpf.R6, 40, bpf.R2).hex() == "6326280000000000"
    assert bpf.store_number(bpf.FRAME, -16, 2).hex() == "620af0ff02000000"
    assert bpf.move(bpf.R0, -1).hex() == "b7000000ffffffff"
    assert bpf.move_word(bpf.R2, 0xFFFFFFFE).hex() == "b4020000feffffff"
    assert bpf.call(64).hex() == "8500000040000000"
    assert bpf.leave(3).hex() == "b700000003000000" + "9500000000000000"
    assert bpf.count(bpf.leave(3)) == 2


@given(SIGNED, st.integers(0, 31))
def test_numbers_and_bits(value: int, bits: int) -> None:
    code = bpf.move(bpf.R2, value) + bpf.add(bpf.R2, 1) + bpf.copy(bpf.R0, bpf.R2)
    assert run(code + bpf.instruction(0x95)) == value + 1 & 2**64 - 1
    code = bpf.move(bpf.R0, value) + bpf.mask(bpf.R0, 0xFF00) + bpf.shift_right(bpf.R0, bits)
    assert run(code + bpf.instruction(0x95)) == (value & 0xFF00) >> bits


@given(WORD, WORD)
def test_words_of_the_context(first: int, second: int) -> None:
    code = bpf.load_word(bpf.R2, bpf.R1, 4) + bpf.move_word(bpf.R3, first)
    code += bpf.store_word(bpf.R1, 0, bpf.R2) + bpf.store_word(bpf.R1, 4, bpf.R3)
    machine = Machine(pack("<II", first, second))
    machine.run(code + bpf.leave(0))
    assert unpack("<II", machine.context) == (second, first)


@given(WORD, WORD, st.booleans())
def test_conditions_on_words(one: int, two: int, same: bool) -> None:
    """Whatever the highest bit of a word is: an address above 128.0.0.0 has it."""
    two = one if same else two
    load = bpf.load_word(bpf.R2, bpf.R1, 0)
    context = pack("<I", one)
    code = load + bpf.if_words({bpf.R2: two}, bpf.leave(7)) + bpf.leave(9)
    assert run(code, context) == (7 if one == two else 9)


@given(SIGNED, SIGNED, st.booleans())
def test_conditions_on_numbers(one: int, two: int, same: bool) -> None:
    two = one if same else two
    load = bpf.move(bpf.R2, one)
    code = load + bpf.if_equal(bpf.R2, two, bpf.leave(7)) + bpf.leave(9)
    assert run(code) == (7 if one == two else 9)
    code = load + bpf.if_unequal(bpf.R2, two, bpf.leave(7)) + bpf.leave(9)
    assert run(code) == (9 if one == two else 7)


@given(st.lists(WORD, min_size=4, max_size=4), st.integers(0, 4))
def test_all_words_must_be_equal(words: list[int], wrong: int) -> None:
    load = b"".join(bpf.load_word(2 + i, bpf.R1, 4 * i) for i in range(4))
    code = load + bpf.if_words(dict(zip(range(2, 6), words, strict=True)), bpf.leave(1))
    found = [word ^ (i == wrong) for i, word in enumerate(words)]
    assert run(code + bpf.leave(0), pack("<4I", *found)) == (wrong == 4)


def test_a_call_forgets_its_arguments() -> None:
    code = bpf.move(bpf.R1, 1) + bpf.call(5) + bpf.copy(bpf.R0, bpf.R1) + bpf.leave(0)
    with pytest.raises(KeyError):
        Machine(b"", helpers={5: lambda _machine, _arguments: 0}).run(code)


def test_code_that_nothing_reaches_is_found() -> None:
    assert find_unreached(bpf.leave(0) + bpf.leave(1)) == {2, 3}


def test_load_and_attach() -> None:
    program = Program()
    cgroup = program.before.open("/c", 0)
    hook = bpf.Hook("bind4", bpf.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, bpf.BPF_CGROUP_INET4_BIND)
    bpf.plan_attach(program.before, hook, bpf.leave(1), cgroup, "/c")
    load, attach, close = program.before.operations[1:]
    assert load.args[0] == 5 and load.args[2] == 72
    assert isinstance(load.args[1], Struct)
    kind_and_count, code, licence, rest, place = load.args[1].parts
    assert kind_and_count == pack("<II", 18, 2)
    assert isinstance(code, Struct) and code.parts == (bpf.leave(1),)
    assert isinstance(licence, Struct) and licence.parts == (b"GPL\0",)
    assert isinstance(rest, bytes) and len(rest) == 40 and b"jailrun_bind4\0" in rest
    assert place == pack("<II", 0, 8)
    assert isinstance(attach.args[1], Struct)
    assert attach.args[1].holes == {0: cgroup, 4: load.result}
    assert attach.args[1].parts == (pack("<IIII", 0, 0, 8, 2),)
    assert close.args == (load.result,)
    text = "\n".join(program.explain())
    assert "load the program bind4 of /c" in text
    assert "attach the program bind4 to /c" in text
