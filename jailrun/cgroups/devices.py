"""The device allow-list: OCI rules as lines for v1 and as a BPF program for v2.

Owns: the rules every jail has, what a list of rules means, and both encodings.  Pure.
Out of scope: writing or loading them (`plan`), making device nodes (the root file system).

The rules are applied in order and the last word on a device counts, for each kind of access by
itself.  v1 knows one default and exceptions to it: a list that has an exception to an exception
cannot be said there and is refused.
"""

from __future__ import annotations

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeAlias

    # allow, kind ("a", "b", "c"), major, minor, access; -1 is any number
    Rule: TypeAlias = tuple[bool, str, int, int, int]

PATH = "linux.resources.devices"
ANY = -1
MKNOD, READ, WRITE = 1, 2, 4  # linux/bpf.h, BPF_DEVCG_ACC_*
ALL = MKNOD | READ | WRITE
BLOCK, CHAR = 1, 2  # linux/bpf.h, BPF_DEVCG_DEV_*
_ACCESS = (("r", READ), ("w", WRITE), ("m", MKNOD))

# What a jail always has: the default devices of config-linux.md, its terminals, and the making of
# any node (which says nothing about opening it; user namespaces refuse it in any case).
DEFAULTS: tuple[Rule, ...] = (
    (True, "c", ANY, ANY, MKNOD),
    (True, "b", ANY, ANY, MKNOD),
    (True, "c", 1, 3, ALL),  # /dev/null
    (True, "c", 1, 5, ALL),  # /dev/zero
    (True, "c", 1, 7, ALL),  # /dev/full
    (True, "c", 1, 8, ALL),  # /dev/random
    (True, "c", 1, 9, ALL),  # /dev/urandom
    (True, "c", 5, 0, ALL),  # /dev/tty
    (True, "c", 5, 2, ALL),  # /dev/ptmx
    (True, "c", 136, ANY, ALL),  # /dev/pts/*
)


def parse_rules(devices: Iterable[Mapping[str, Any]] | None) -> list[Rule]:
    """Return the rules of a jail: nothing but the defaults, after what the configuration says.

    A rule for all types with less than all numbers and accesses is returned as two rules.
    """
    rules: list[Rule] = []
    for index, entry in enumerate(devices or ()):
        kind = entry.get("type") or "a"
        if kind == "u":  # mknod's other name of "c"
            kind = "c"
        letters = entry.get("access") or "rwm"
        access = sum(bit for letter, bit in _ACCESS if letter in letters)
        if kind not in ("a", "b", "c") or set(letters) - set("rwm"):
            raise SpecError(
                f"{PATH}[{index}]",
                f"type {kind!r} with access {letters!r} is not valid",
                hint="type is a, b or c, access some of the letters r, w and m",
            )
        numbers = []
        for key in ("major", "minor"):
            value = entry.get(key)
            numbers.append(ANY if value is None or value < 0 else int(value))
        major, minor = numbers
        whole = kind == "a" and (major, minor, access) == (ANY, ANY, ALL)
        kinds = "a" if whole else "bc" if kind == "a" else kind
        rules += [(bool(entry["allow"]), one, major, minor, access) for one in kinds]
    rules += DEFAULTS
    return rules


def _covers(outer: tuple[str, int, int], inner: tuple[str, int, int]) -> bool:
    return outer[0] == inner[0] and all(outer[i] in (ANY, inner[i]) for i in (1, 2))


def _overlaps(one: tuple[str, int, int], two: tuple[str, int, int]) -> bool:
    return one[0] == two[0] and all(one[i] == two[i] or ANY in (one[i], two[i]) for i in (1, 2))


def exceptions(rules: Iterable[Rule]) -> tuple[bool, dict[tuple[str, int, int], int]]:
    """Return v1's form: whether all is allowed, and what is otherwise: (kind, numbers) → access."""
    default = False
    found: dict[tuple[str, int, int], int] = {}
    for allow, kind, major, minor, access in rules:
        key = (kind, major, minor)
        if kind == "a":
            default, found = allow, {}
        elif allow != default:
            found[key] = found.get(key, 0) | access
        else:
            for other in list(found):
                if _covers(key, other):
                    found[other] &= ~access
                    if not found[other]:
                        del found[other]
                elif _overlaps(key, other) and found[other] & access:
                    line = format_line(key, access)
                    raise UnsupportedError(
                        f"{PATH}: {'allow' if allow else 'deny'} {line} is a part of the earlier "
                        f"{format_line(other, found[other])}: cgroup v1 has no such exception",
                        hint="name the devices one by one, or boot with cgroup v2",
                    )
    return default, found


def is_everything(rules: Iterable[Rule]) -> bool:
    """Tell whether ``rules`` allow every access to every device."""
    rules = list(rules)
    last = max((i for i, rule in enumerate(rules) if rule[1] == "a"), default=-1)
    return last >= 0 and rules[last][0] and all(rule[0] for rule in rules[last:])


def format_line(key: tuple[str, int, int], access: int) -> str:
    """Return one line of v1's devices.allow and devices.deny: ``c 1:3 rwm``."""
    kind, major, minor = key
    numbers = ":".join("*" if number == ANY else str(number) for number in (major, minor))
    return f"{kind} {numbers} {''.join(letter for letter, bit in _ACCESS if access & bit)}"


def plan_lines(rules: Iterable[Rule]) -> list[tuple[str, str]]:
    """Return the writes for v1, (file, line), the first of which forgets the parent's list."""
    default, found = exceptions(rules)
    first, then = ("devices.allow", "devices.deny")[:: 1 if default else -1]
    return [(first, "a"), *((then, format_line(key, access)) for key, access in found.items())]


# --- BPF ------------------------------------------------------------------------------------------
def plan_bpf(rules: Iterable[Rule]) -> bytes:
    """Return the instructions of a BPF_PROG_TYPE_CGROUP_DEVICE program, 8 bytes each.

    It looks at the rules from the last to the first: a matching rule that denies any access still
    wanted ends it, one that allows takes its accesses off what is wanted until nothing is.
    """
    context, wanted, kind_of, major_of, minor_of = bpf.R1, bpf.R2, bpf.R3, bpf.R4, bpf.R5
    parts = [
        # struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor
        bpf.load_word(wanted, context, 0),
        bpf.copy(kind_of, wanted),
        bpf.mask(kind_of, 0xFFFF),
        bpf.shift_right(wanted, 16),
        bpf.load_word(major_of, context, 4),
        bpf.load_word(minor_of, context, 8),
    ]
    for allow, kind, major, minor, access in reversed(list(rules)):
        if kind == "a":  # with everything: nothing before it counts
            parts.append(bpf.leave(int(allow)))
            break
        body = bpf.leave(int(allow))
        if allow and access != ALL:
            body = bpf.mask(wanted, ~access) + bpf.if_equal(wanted, 0, body)
        elif not allow and access != ALL:
            body = (
                bpf.copy(bpf.R0, wanted)
                + bpf.mask(bpf.R0, access)
                + bpf.if_unequal(bpf.R0, 0, body)
            )
        tests = [(kind_of, BLOCK if kind == "b" else CHAR), (major_of, major), (minor_of, minor)]
        for register, value in reversed(tests):
            if value != ANY:
                body = bpf.if_equal(register, value, body)
        parts.append(body)
    else:
        parts.append(bpf.leave(0))
    return b"".join(parts)
