"""Classic BPF as the kernel runs it over struct seccomp_data, for tests of compiled filters.

Out of scope: instructions that seccomp does not allow (kernel/seccomp.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import iter_unpack, pack

X86_64, X86, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7  # linux/audit.h
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def run(program: bytes, number: int, args: Sequence[int] = (), arch: int = X86_64) -> int:
    """Return what the filter answers to one system call."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(arg % 2**64 for arg in padded))
    instructions = list(iter_unpack("<HBBI", program))
    accumulator = place = 0
    while True:
        code, jt, jf, k = instructions[place]
        place += 1
        if code == 0x20:  # ld [k]
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif code == 0x06:  # ret k
            return int(k)
        elif code == 0x05:  # ja
            place += k
        elif code == 0x54:  # and
            accumulator &= k
        elif code in (0x15, 0x25, 0x35, 0x45):
            taken = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[code]
            place += jt if taken else jf
        else:
            raise AssertionError(f"instruction {code:#x} at {place - 1}")


def answer(program: bytes, number: int, args: Sequence[int] = (), arch: int = X86_64) -> object:
    """Return "allow", an errno, or the raw action of the filter for one call."""
    action = run(program, number, args, arch)
    if action == ALLOW:
        return "allow"
    if action & 0xFFFF0000 == ERRNO:
        return action & 0xFFFF
    return action
