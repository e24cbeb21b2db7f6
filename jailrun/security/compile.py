"""From a seccomp profile in OCI form to the filter that the kernel runs, through libseccomp.

Owns: the checks of a profile, and the compiler.  It is imported only where a filter is not in the
cache, and ctypes only when it compiles.  Out of scope: the cache (`jailrun.security.seccomp`).

Read as runc reads it: a name that no architecture knows is skipped, a rule that says what the
default says is none, several conditions on one argument are alternatives.  Of two rules for the
same call libseccomp keeps the more general one alone.
"""

from __future__ import annotations

import os
from _struct import pack
from errno import EEXIST, ENOSYS, EPERM

from jailrun.errors import SecurityError, SpecError
from jailrun.security.shrink import shrink_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from ctypes import CDLL, c_void_p
    from typing import Any

    Condition = tuple[int, int, int, int]  # argument, comparison, datum a, datum b

# seccomp.h, SCMP_ACT_*; the errno or trace message goes into the low 16 bits.
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
MAX_ERRNO = 4095
# seccomp.h, enum scmp_compare
COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
# The architectures of OCI config-linux.md, under the names that libseccomp resolves.
ARCHITECTURES = {
    f"SCMP_ARCH_{name.upper()}": name
    for name in (
        "x86", "x86_64", "x32", "arm", "aarch64", "mips", "mips64", "mips64n32", "mipsel",
        "mipsel64", "mipsel64n32", "ppc", "ppc64", "ppc64le", "s390", "s390x", "parisc",
        "parisc64", "riscv64", "loongarch64", "m68k", "sh", "sheb",
    )
}  # fmt: skip
SCMP_FLTATR_ACT_BADARCH = 2
SCMP_FLTATR_CTL_OPTIMIZE = 8  # libseccomp 2.5; 2 is a binary tree by number
NR_SCMP_ERROR = -1
ARCH_X86_64 = 0xC000003E  # linux/audit.h
X32_SYSCALL_BIT = 0x40000000  # asm/unistd.h
RET_ENOSYS = 0x00050000 | ENOSYS
MAX_INSTRUCTIONS = 4096  # linux/bpf_common.h, BPF_MAXINSNS
PATH = "linux.seccomp"


class Rule:
    """One checked entry of ``syscalls``: an action for these names under these conditions."""

    __slots__ = ("action", "alternatives", "names")

    def __init__(self, names: list[str], action: int, alternatives: list[list[Condition]]) -> None:
        self.names = names
        self.action = action
        self.alternatives = alternatives


# --- checks --------------------------------------------------------------------------------------
def parse_action(entry: Mapping[str, Any], key: str, errno_key: str, path: str) -> int:
    """Return the kernel's number for an action and its errno."""
    name = entry.get(key)
    if not isinstance(name, str) or name not in ACTIONS:
        valid = ", ".join(sorted(ACTIONS))
        raise SpecError(f"{path}.{key}", f"{name!r} is not an action", hint=f"one of: {valid}")
    number = entry.get(errno_key)
    if name not in WITH_ERRNO:
        if number is not None:
            raise SpecError(f"{path}.{errno_key}", f"{name} does not take an errno")
        return ACTIONS[name]
    if number is None:
        number = EPERM
    if type(number) is not int or not 0 <= number <= MAX_ERRNO:
        raise SpecError(
            f"{path}.{errno_key}", f"{number!r} is not an errno", hint=f"0 to {MAX_ERRNO}"
        )
    return ACTIONS[name] | number


def parse_condition(arg: Any, path: str) -> Condition:
    """Return one condition as libseccomp takes it."""
    if not isinstance(arg, dict):
        raise SpecError(path, f"{arg!r} is not a condition", hint='{"index":, "value":, "op":}')
    index = _integer(arg, "index", path, 5)
    op = arg.get("op")
    if not isinstance(op, str) or op not in COMPARISONS:
        valid = ", ".join(COMPARISONS)
        raise SpecError(f"{path}.op", f"{op!r} is not a comparison", hint=f"one of: {valid}")
    value = _integer(arg, "value", path, 2**64 - 1)
    two = _integer(arg, "valueTwo", path, 2**64 - 1) if "valueTwo" in arg else 0
    return index, COMPARISONS[op], value, two


def parse_profile(seccomp: Mapping[str, Any]) -> tuple[int, list[str], list[Rule]]:
    """Return default action, libseccomp's names of the architectures and rules; or `SpecError`."""
    if not isinstance(seccomp, dict):
        raise SpecError(PATH, f"{seccomp!r} is not a seccomp profile")
    default = parse_action(seccomp, "defaultAction", "defaultErrnoRet", PATH)
    architectures = []
    for index, name in enumerate(_list(seccomp, "architectures", PATH)):
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise SpecError(f"{PATH}.architectures[{index}]", f"{name!r} is not an architecture")
        architectures.append(ARCHITECTURES[name])
    rules = []
    for index, entry in enumerate(_list(seccomp, "syscalls", PATH)):
        path = f"{PATH}.syscalls[{index}]"
        if not isinstance(entry, dict):
            raise SpecError(path, f"{entry!r} is not a rule")
        names = _list(entry, "names", path)
        if not names:
            raise SpecError(f"{path}.names", "a rule needs at least one system call")
        for place, name in enumerate(names):
            if not isinstance(name, str) or not name.isascii() or not name.isprintable():
                raise SpecError(f"{path}.names[{place}]", f"{name!r} is not a system call's name")
        action = parse_action(entry, "action", "errnoRet", path)
        conditions = [
            parse_condition(arg, f"{path}.args[{place}]")
            for place, arg in enumerate(_list(entry, "args", path))
        ]
        indices = [condition[0] for condition in conditions]
        alternatives = [conditions]
        if len(set(indices)) < len(indices):
            alternatives = [[condition] for condition in conditions]
        rules.append(Rule(names, action, alternatives))
    return default, architectures, rules


def _list(entry: Mapping[str, Any], key: str, path: str) -> list[Any]:
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError(f"{path}.{key}", f"{value!r} is not a list")
    return value


def _integer(entry: Mapping[str, Any], key: str, path: str, maximum: int) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 <= value <= maximum:
        raise SpecError(f"{path}.{key}", f"{value!r} is not a number from 0 to {maximum}")
    return value


# --- libseccomp ----------------------------------------------------------------------------------
def load_library() -> CDLL:
    """Return libseccomp with the prototypes of what is used here."""
    from ctypes import CDLL, POINTER, c_char_p, c_int, c_uint32, c_void_p

    try:
        library = CDLL("libseccomp.so.2")
    except OSError as error:
        raise SecurityError(
            "cannot compile a seccomp filter: libseccomp is not installed",
            hint="apt-get install libseccomp2",
        ) from error
    condition = condition_type()
    prototypes: dict[str, tuple[Any, list[Any]]] = {
        "seccomp_init": (c_void_p, [c_uint32]),
        "seccomp_release": (None, [c_void_p]),
        "seccomp_attr_set": (c_int, [c_void_p, c_int, c_uint32]),
        "seccomp_arch_native": (c_uint32, []),
        "seccomp_arch_resolve_name": (c_uint32, [c_char_p]),
        "seccomp_arch_add": (c_int, [c_void_p, c_uint32]),
        "seccomp_syscall_resolve_name": (c_int, [c_char_p]),
        "seccomp_syscall_resolve_name_arch": (c_int, [c_uint32, c_char_p]),
        "seccomp_rule_add_array": (
            c_int,
            [c_void_p, c_uint32, c_int, c_uint32, POINTER(condition)],
        ),
        "seccomp_export_bpf": (c_int, [c_void_p, c_int]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


_condition: Any = None


def condition_type() -> Any:
    """Return struct scmp_arg_cmp (seccomp.h) as a ctypes class, the same one each time."""
    global _condition
    if _condition is None:
        from ctypes import Structure, c_int, c_uint, c_uint64

        fields = [("arg", c_uint), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64)]
        _condition = type("ScmpArgCmp", (Structure,), {"_fields_": fields})
    return _condition


def compile_profile(seccomp: Mapping[str, Any]) -> bytes:
    """Return the filter of an OCI profile: an array of struct sock_filter."""
    default, architectures, rules = parse_profile(seccomp)
    library = load_library()
    context = library.seccomp_init(default)
    if not context:
        raise SecurityError("cannot make a seccomp filter: libseccomp refused the default action")
    try:
        tokens = _add_architectures(library, context, architectures)
        # A call through an interface that the profile does not list is one that does not exist.
        library.seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, RET_ENOSYS)
        library.seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)  # may be missing
        for index, rule in enumerate(rules):
            if rule.action != default:
                _add_rule(library, context, rule, f"{PATH}.syscalls[{index}]")
        body = _export(library, context)
    finally:
        library.seccomp_release(context)
    if needs_prologue(default):
        names = {name for rule in rules for name in rule.names}
        body = plan_prologue(newest_calls(library, tokens, names)) + body
    body = shrink_filter(body)
    if len(body) // 8 > MAX_INSTRUCTIONS:
        raise SecurityError(
            f"the seccomp profile makes a filter of {len(body) // 8} instructions, "
            f"the kernel takes {MAX_INSTRUCTIONS}",
            hint="list fewer architectures or rules",
        )
    return body


def unknown_names(seccomp: Mapping[str, Any]) -> list[str]:
    """Return the names in a profile that libseccomp knows on no architecture: typing errors."""
    _, _, rules = parse_profile(seccomp)
    library = load_library()
    names = {name for rule in rules for name in rule.names}
    return sorted(
        name
        for name in names
        if library.seccomp_syscall_resolve_name(name.encode()) == NR_SCMP_ERROR
    )


def _add_architectures(library: CDLL, context: c_void_p, names: list[str]) -> list[int]:
    tokens = [library.seccomp_arch_native()]
    for index, name in enumerate(names):
        token = library.seccomp_arch_resolve_name(name.encode())
        if not token:
            continue  # a libseccomp that does not know it runs on no such machine
        error = -library.seccomp_arch_add(context, token)
        if error not in (0, EEXIST):
            raise SpecError(
                f"{PATH}.architectures[{index}]",
                f"{names[index]} cannot be in one filter with the others: {os.strerror(error)}",
            )
        if token not in tokens:
            tokens.append(token)
    return tokens


def _add_rule(library: CDLL, context: c_void_p, rule: Rule, path: str) -> None:
    condition = condition_type()
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == NR_SCMP_ERROR:
            continue
        for conditions in rule.alternatives:
            array = (condition * max(1, len(conditions)))(*(condition(*c) for c in conditions))
            error = -library.seccomp_rule_add_array(
                context, rule.action, number, len(conditions), array
            )
            if error not in (0, EEXIST):  # a rule that is there already
                raise SpecError(path, f"libseccomp refuses {name}: {os.strerror(error)}")


def _export(library: CDLL, context: c_void_p) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        error = -library.seccomp_export_bpf(context, fd)
        if error:
            raise SecurityError(f"cannot compile the seccomp profile: {os.strerror(error)}")
        return os.pread(fd, 8 * MAX_INSTRUCTIONS + 8, 0)
    finally:
        os.close(fd)


# --- calls newer than the profile ----------------------------------------------------------------
# A profile that refuses with EPERM what it does not list breaks programs on a kernel newer than
# the profile: libc takes EPERM for an answer, and only ENOSYS for "try the older call".  So, as
# runc does, calls with a number above all that the profile names get ENOSYS.
def needs_prologue(default: int) -> bool:
    """Tell whether newer calls would get another answer than ENOSYS or success."""
    permissive = (ACTIONS["SCMP_ACT_ALLOW"], ACTIONS["SCMP_ACT_LOG"])
    return default != RET_ENOSYS and default not in permissive


def newest_calls(library: CDLL, tokens: Iterable[int], names: Iterable[str]) -> dict[int, int]:
    """Return architecture token → the highest call number that the profile names there."""
    newest = {}
    for token in tokens:
        numbers = [
            library.seccomp_syscall_resolve_name_arch(token, name.encode()) for name in names
        ]
        known = [number for number in numbers if number >= 0]
        if known and token & 0x80000000 | token & 0x40000000:  # x32 has no audit number of its own
            newest[token] = max(known)
    return newest


def plan_prologue(newest: Mapping[int, int]) -> bytes:
    """Return instructions, to be put before a filter, that answer ENOSYS to newer calls."""

    def instruction(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
        return pack("<HBBI", code, jt, jf, k)

    load, jump, equal, greater, at_least, answer = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
    blocks = []
    for token, number in newest.items():
        block = [instruction(load, 0)]  # struct seccomp_data: nr at 0, arch at 4
        if token == ARCH_X86_64:
            block.append(instruction(at_least, X32_SYSCALL_BIT, jt=2))
        block.append(instruction(greater, number, jf=1))
        block.append(instruction(answer, RET_ENOSYS))
        blocks.append((token, block))
    total = sum(len(block) + 2 for _, block in blocks)
    program = [instruction(load, 4)]
    done = 0
    for token, block in blocks:
        done += len(block) + 2
        program.append(instruction(equal, token, jf=len(block) + 1))
        program += [*block, instruction(jump, total - done)]
    return b"".join(program)
