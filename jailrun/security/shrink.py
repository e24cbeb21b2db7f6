"""Make a compiled seccomp filter smaller and its decisions shorter, without changing any of them.

libseccomp compares a call's number with each number that a profile names.  Here neighbours with
the same answer become one range, and a balanced search finds the range: the default filter shrinks
to a third, and the kernel takes a third of the time to check, translate and install it, which every
start of a jail waits for.  The same is done for each half of an argument, unless single bits of it
are looked at: such checks are copied as they are.  Out of scope: what the answers should be.

A filter that looks different from what libseccomp writes is returned unchanged.
"""

from __future__ import annotations

from _struct import iter_unpack, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    Instruction = tuple[int, int, int, int]  # struct sock_filter: code, jt, jf, k
    Leaf = tuple[bool, int]  # (True, answer), or (False, the place where arguments are looked at)

# linux/bpf_common.h, the codes that libseccomp uses
LOAD, JUMP, EQUAL, GREATER, AT_LEAST, RETURN, AND = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06, 0x54
NUMBER, ARCH = 0, 4  # offsets in struct seccomp_data; arguments are behind
FARTHEST = 255  # of a conditional jump
ALL = 2**32 - 1  # the accumulator has 32 bits


class UnusualError(Exception):
    """The filter does something that is not understood here."""


def shrink_filter(program: bytes) -> bytes:
    """Return a filter with the same answers, or the same filter."""
    instructions = list(iter_unpack("<HBBI", program))
    try:
        result = _rebuild(instructions)
    except UnusualError:
        return program
    return result if len(result) < len(program) else program


def _rebuild(instructions: list[Instruction]) -> bytes:
    compared = {k for code, _, _, k in instructions if code in (EQUAL, GREATER, AT_LEAST)}
    # Between two of these numbers no comparison can change its outcome.
    starts = sorted({0, *compared, *(k + 1 for k in compared if k < 2**32 - 1)})
    architectures = _architectures(instructions)
    other = {_decide(instructions, _absent(architectures), number) for number in starts}
    if len(other) != 1:
        raise UnusualError
    found, answer = other.pop()
    if not found:
        raise UnusualError
    sections = []
    blocks: dict[int, list[Instruction | Leaf]] = {}
    for architecture in architectures:
        ranges: list[tuple[int, Leaf]] = []
        for number in starts:
            _append(ranges, number, _decide(instructions, architecture, number))
        _add_blocks(instructions, ranges, blocks)
        sections.append((architecture, ranges))
    return _assemble(sections, blocks, answer)


def _architectures(instructions: list[Instruction]) -> list[int]:
    """Return what the filter compares the architecture with, in order."""
    found: dict[int, int] = {}
    seen: set[tuple[int, int]] = set()
    waiting = [(0, -1)]  # a place, and what the accumulator holds there
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        place, loaded = state
        code, jt, jf, k = instructions[place]
        if code == EQUAL and loaded == ARCH:
            found[k] = min(place, found.get(k, place))
        elif code in (GREATER, AT_LEAST, AND) and loaded == ARCH:
            raise UnusualError
        waiting += [
            (following, k if code == LOAD else loaded)
            for following in _following(place, code, jt, jf, k)
        ]
    return sorted(found, key=found.__getitem__)


def _following(place: int, code: int, jt: int, jf: int, k: int) -> list[int]:
    """Return where an instruction may lead."""
    if code == RETURN:
        return []
    if code == JUMP:
        return [place + 1 + k]
    if code in (EQUAL, GREATER, AT_LEAST):
        return [place + 1 + jt, place + 1 + jf]
    if code in (LOAD, AND):
        return [place + 1]
    raise UnusualError


def _absent(architectures: list[int]) -> int:
    return next(number for number in range(len(architectures) + 1) if number not in architectures)


def _decide(instructions: list[Instruction], architecture: int, number: int) -> Leaf:
    """Follow a filter for one call as far as its arguments do not matter."""
    place = value = 0
    while True:
        code, jt, jf, k = instructions[place]
        if code == RETURN:
            return True, k
        if code == LOAD:
            if k not in (NUMBER, ARCH):
                return False, place
            value = number if k == NUMBER else architecture
        elif code == JUMP:
            place += k
        elif code in (EQUAL, GREATER, AT_LEAST):
            place += jt if _holds(code, value, k) else jf
        else:
            raise UnusualError
        place += 1


def _holds(code: int, value: int, k: int) -> bool:
    return value == k if code == EQUAL else value > k if code == GREATER else value >= k


def _append(ranges: list[tuple[int, Leaf]], start: int, leaf: Leaf) -> None:
    if not ranges or ranges[-1][1] != leaf:
        ranges.append((start, leaf))


def _add_blocks(
    instructions: list[Instruction],
    ranges: list[tuple[int, Leaf]],
    blocks: dict[int, list[Instruction | Leaf]],
) -> None:
    """Add the blocks that these ranges lead to, and those that they lead to in turn."""
    for _, (found, start) in ranges:
        if found or start in blocks:
            continue
        further = _word_ranges(instructions, start)
        if further is None:
            blocks[start] = _copy_block(instructions, start)
        else:
            load = instructions[start]
            search = _search(further)
            blocks[start] = [load, *search] if len(further) > 1 else search
            _add_blocks(instructions, further, blocks)


def _word_ranges(instructions: list[Instruction], start: int) -> list[tuple[int, Leaf]] | None:
    """Return the ranges of the word loaded at ``start``; None where they do not decide."""
    word = instructions[start][3]
    starts = {0}
    seen: set[tuple[int, int]] = set()
    waiting = [(start, ALL)]  # a place, and which bits of the word the accumulator holds
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        place, mask = state
        code, jt, jf, k = instructions[place]
        if code == LOAD:
            if k in (NUMBER, ARCH):
                raise UnusualError
            if k != word:
                continue
            mask = ALL
        elif code == AND:
            mask &= k
        elif code == EQUAL:
            below = ALL & ~mask
            if below & (below + 1):
                return None  # single bits: no range of numbers
            if k & below == 0:
                starts |= {k, k + below + 1}
        elif code in (GREATER, AT_LEAST):
            if mask != ALL:
                return None
            starts.add(k + 1 if code == GREATER else k)
        waiting += [(following, mask) for following in _following(place, code, jt, jf, k)]
    ranges: list[tuple[int, Leaf]] = []
    for value in sorted(starts):
        if value <= ALL:
            _append(ranges, value, _decide_word(instructions, start, word, value))
    return ranges


def _decide_word(instructions: list[Instruction], place: int, word: int, value: int) -> Leaf:
    """Follow a filter from ``place`` until another word than ``word`` is looked at."""
    held = value
    while True:
        code, jt, jf, k = instructions[place]
        if code == RETURN:
            return True, k
        if code == LOAD:
            if k != word:
                return False, place
            held = value
        elif code == AND:
            held &= k
        elif code == JUMP:
            place += k
        else:
            place += jt if _holds(code, held, k) else jf
        place += 1


def _copy_block(instructions: list[Instruction], start: int) -> list[Instruction | Leaf]:
    """Return all that is reachable from ``start``; only arguments may matter there."""
    reachable: set[int] = set()
    waiting = [start]
    while waiting:
        place = waiting.pop()
        if place in reachable:
            continue
        reachable.add(place)
        code, jt, jf, k = instructions[place]
        if code == LOAD and k in (NUMBER, ARCH):
            raise UnusualError
        waiting += _following(place, code, jt, jf, k)
    # The order stays, so that every distance stays or shrinks.
    order = {place: position for position, place in enumerate(sorted(reachable))}
    block: list[Instruction | Leaf] = []
    for place, position in order.items():
        code, jt, jf, k = instructions[place]
        if code == JUMP:
            k = order[place + 1 + k] - position - 1
        elif code in (EQUAL, GREATER, AT_LEAST):
            jt, jf = (order[place + 1 + each] - position - 1 for each in (jt, jf))
        block.append((code, jt, jf, k))
    return block


def _search(ranges: list[tuple[int, Leaf]]) -> list[Instruction | Leaf]:
    """Return a balanced search for the range of a number; a leaf stands for its own jump."""
    if len(ranges) == 1:
        found, target = ranges[0][1]
        return [(RETURN, 0, 0, target) if found else (False, target)]
    middle = len(ranges) // 2
    lower, upper = _search(ranges[:middle]), _search(ranges[middle:])
    if len(lower) <= FARTHEST:
        return [(AT_LEAST, len(lower), 0, ranges[middle][0]), *lower, *upper]
    return [(AT_LEAST, 0, 1, ranges[middle][0]), (JUMP, 0, 0, len(lower)), *lower, *upper]


def _assemble(
    sections: list[tuple[int, list[tuple[int, Leaf]]]],
    blocks: dict[int, list[Instruction | Leaf]],
    otherwise: int,
) -> bytes:
    program: list[Instruction | Leaf] = [(LOAD, 0, 0, ARCH)]
    for architecture, ranges in sections:
        section: list[Instruction | Leaf] = [(LOAD, 0, 0, NUMBER), *_search(ranges)]
        # The accumulator still holds the architecture where the section is jumped over.
        program += [(EQUAL, 1, 0, architecture), (JUMP, 0, 0, len(section)), *section]
    program.append((RETURN, 0, 0, otherwise))
    places = {}
    # A block leads to later ones only, as every jump of the original does.
    for start, block in sorted(blocks.items()):
        places[start] = len(program)
        program += block
    output = []
    for place, each in enumerate(program):
        if len(each) == 2:
            each = (JUMP, 0, 0, places[each[1]] - place - 1)
        output.append(pack("<HBBI", *each))
    return b"".join(output)
