"""BPF programs of a few dozen instructions: putting them together, loading and attaching them.

Owns: the instructions that our programs are made of, and bpf(2)'s two operations for programs of
cgroups.  Pure.  Out of scope: what the programs decide (`jailrun.cgroups.devices`,
`jailrun.net.shared`).

A piece of a program is a byte string; pieces are concatenated.  A condition is written with the
piece that it guards, so that jumps are counted here and nowhere else: execution goes on behind the
piece where the condition does not hold, or where the piece does not leave.

Source: linux/bpf.h and linux/bpf_common.h, Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

from _struct import pack

from jailrun.kernel.operation import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.lane import Lane
    from jailrun.kernel.operation import Slot

# Registers.  A call takes R1 to R5 and forgets them, returns R0, and keeps R6 to R9.
R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)

_LOAD_BYTE, _LOAD_WORD, _LOAD_LONG = 0x71, 0x61, 0x79
_STORE_WORD, _STORE_NUMBER = 0x63, 0x62
_MOVE, _MOVE_WORD, _COPY = 0xB7, 0xB4, 0xBF
_ADD, _AND, _SHIFT_RIGHT = 0x07, 0x57, 0x77
_JUMP_EQUAL, _JUMP_UNEQUAL = 0x15, 0x55
_JUMP_UNEQUAL_WORD = 0x56  # Linux 5.1
_CALL, _EXIT = 0x85, 0x95
WORD_MASK = 0xFFFFFFFF


def instruction(
    code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    """Return one instruction; ``value`` may be a signed number or an unsigned one of 32 bits."""
    return pack("<BBhI", code, source << 4 | target, offset, value & WORD_MASK)


def count(code: bytes) -> int:
    """Return how many instructions a piece has."""
    return len(code) // 8


# --- numbers --------------------------------------------------------------------------------------
def move(target: int, value: int) -> bytes:
    """Put a signed number into a register, all 64 bits of it."""
    return instruction(_MOVE, target, value=value)


def move_word(target: int, value: int) -> bytes:
    """Put an unsigned number of 32 bits into a register; its upper half becomes 0."""
    return instruction(_MOVE_WORD, target, value=value)


def copy(target: int, source: int) -> bytes:
    """Put a register's content into another."""
    return instruction(_COPY, target, source)


def add(target: int, value: int) -> bytes:
    """Add a signed number."""
    return instruction(_ADD, target, value=value)


def mask(target: int, value: int) -> bytes:
    """Keep these bits alone; ``value`` is signed, so that ~x keeps the upper half."""
    return instruction(_AND, target, value=value)


def shift_right(target: int, bits: int) -> bytes:
    """Shift right, filling with 0."""
    return instruction(_SHIFT_RIGHT, target, value=bits)


# --- memory ---------------------------------------------------------------------------------------
def load_byte(target: int, base: int, offset: int) -> bytes:
    """Load the byte at ``base + offset``."""
    return instruction(_LOAD_BYTE, target, base, offset)


def load_word(target: int, base: int, offset: int) -> bytes:
    """Load the 32 bits at ``base + offset``."""
    return instruction(_LOAD_WORD, target, base, offset)


def load_long(target: int, base: int, offset: int) -> bytes:
    """Load the 64 bits at ``base + offset``, as for a pointer."""
    return instruction(_LOAD_LONG, target, base, offset)


def store_word(base: int, offset: int, source: int) -> bytes:
    """Store the lower 32 bits of a register at ``base + offset``."""
    return instruction(_STORE_WORD, base, source, offset)


def store_number(base: int, offset: int, value: int) -> bytes:
    """Store a number of 32 bits on the stack; a context takes registers only."""
    return instruction(_STORE_NUMBER, base, 0, offset, value)


# --- control --------------------------------------------------------------------------------------
def if_equal(register: int, value: int, piece: bytes) -> bytes:
    """Guard a piece by ``register == value``; a signed number, 64 bits."""
    return instruction(_JUMP_UNEQUAL, register, offset=count(piece), value=value) + piece


def if_unequal(register: int, value: int, piece: bytes) -> bytes:
    """Guard a piece by ``register != value``; a signed number, 64 bits."""
    return instruction(_JUMP_EQUAL, register, offset=count(piece), value=value) + piece


def if_words(words: dict[int, int], piece: bytes) -> bytes:
    """Guard a piece by the lower 32 bits of registers, all of which must be equal."""
    for register, value in reversed(words.items()):
        jump = instruction(_JUMP_UNEQUAL_WORD, register, offset=count(piece), value=value)
        piece = jump + piece
    return piece


def call(helper: int) -> bytes:
    """Call one of the kernel's functions for BPF programs (bpf-helpers(7))."""
    return instruction(_CALL, value=helper)


def leave(result: int) -> bytes:
    """End the program."""
    return move(R0, result) + instruction(_EXIT)


# --- bpf(2) ---------------------------------------------------------------------------------------
BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_F_ALLOW_MULTI = 2  # what is attached to the cgroups above is asked as well

BPF_PROG_TYPE_CGROUP_SKB = 8
BPF_PROG_TYPE_CGROUP_SOCK = 9
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18

BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET_EGRESS, BPF_CGROUP_INET_SOCK_CREATE = 0, 1, 2
BPF_CGROUP_DEVICE = 6
BPF_CGROUP_INET4_BIND, BPF_CGROUP_INET6_BIND = 8, 9
BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT = 10, 11
BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG = 14, 15


class Hook:
    """A kind of program and the place where it is asked, with a name for messages."""

    __slots__ = ("kind", "name", "place")

    def __init__(self, name: str, kind: int, place: int) -> None:
        self.name = name
        self.kind = kind
        self.place = place


def plan_attach(
    lane: Lane, hook: Hook, code: bytes, cgroup_fd: Slot, path: str, *, hint: str = ""
) -> None:
    """Add loading a program and attaching it to a cgroup, with which it goes.

    The program is freed with its last user: the descriptor is closed, the cgroup holds it.
    """
    size = count(code)
    load = Struct(
        pack("<II", hook.kind, size),
        Struct(code, label=f"{size} instructions"),
        Struct(b"GPL\0", label="GPL"),
        # log_level, log_size, log_buf, kern_version, prog_flags, prog_name
        pack("<IIQII16s", 0, 0, 0, 0, 0, f"jailrun_{hook.name}"[:15].encode()),
        pack("<II", 0, hook.place),  # prog_ifindex, expected_attach_type
        label=f"{{{hook.name}, {size} instructions}}",
    )
    what = f"load the program {hook.name} of"
    fd = lane.call("bpf", BPF_PROG_LOAD, load, 72, what=what, object=path, hint=hint, result="bpf")
    attach = Struct(
        pack("<IIII", 0, 0, hook.place, BPF_F_ALLOW_MULTI),
        holes={0: cgroup_fd, 4: fd},
        label=f"{{{hook.name}, allow_multi}}",
    )
    what = f"attach the program {hook.name} to"
    lane.call("bpf", BPF_PROG_ATTACH, attach, 16, what=what, object=path, hint=hint)
    lane.close(fd)
