"""Words to numbers and back: sizes, durations, CPUs, sets, rates, limits, ids, pairs.

Owns: what a user may write for a quantity.  ``parse_*`` raise `JailError` that shows the text and
what would be valid, and nothing else; ``format_*`` write what the parser of the same name reads.
Digits are ASCII, blanks are not skipped, nothing is negative unless its function says so.
Out of scope: which quantity is sensible where (`jailrun.spec`).
"""

from __future__ import annotations

from jailrun.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INT64_MAX = 2**63 - 1
UINT32_MAX = 2**32 - 1
RLIM_INFINITY = 2**64 - 1  # linux/resource.h, as the OCI specification's unsigned JSON number
CPU_MAX = 8192  # CONFIG_NR_CPUS of the largest x86 kernel

_PREFIXES = ("", "k", "m", "g", "t", "p", "e")
# Binary multiples, as docker's: 64k, 64K, 64kb and 64KiB are the same number.
_SIZES = {
    prefix + tail: 1024**power
    for power, prefix in enumerate(_PREFIXES)
    for tail in (("", "b") if not prefix else ("", "b", "ib"))
}
# Decimal multiples of bits, and of bytes ("bps"), as tc(8) has them.
_RATES = {f"{prefix}bit": 1000**power for power, prefix in enumerate(_PREFIXES)} | {
    f"{prefix}bps": 8 * 1000**power for power, prefix in enumerate(_PREFIXES)
}
_USEC = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1000,
    "us": 1,
}

# setrlimit(2) and linux/resource.h: the kernel's name without RLIMIT_, in small letters
RLIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
    *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)

SIZE_HINT = "a size is a number with k, m, g or t, as 64M or 1.5G; a number alone is bytes"
DURATION_HINT = (
    "a duration is numbers with d, h, m, s or ms, as 1h30m or 500ms; a number alone is seconds"
)


def is_digits(text: str) -> bool:
    """Tell whether ``text`` is one or more of the digits 0 to 9, and not absurdly many."""
    return text.isascii() and text.isdigit() and len(text) <= 20


def show(value: object) -> str:
    """Return ``value`` as an error message shows it: quoted, on one line, not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-10:]}"


def _scaled(text: str, scale: int) -> int | None:
    """Return the decimal number ``text`` times ``scale``, rounded down; None if it is none."""
    whole, point, fraction = text.partition(".")
    if not is_digits(whole) or (point and not is_digits(fraction)):
        return None
    divisor: int = 10 ** len(fraction)
    return int(whole + fraction) * scale // divisor


def _split_suffix(text: str) -> tuple[str, str]:
    end = len(text)
    while end and not ("0" <= text[end - 1] <= "9"):
        end -= 1
    return text[:end], text[end:]


def parse_size(value: str | int, what: str = "the size") -> int:
    """Return a size in bytes, 0 to 2^63-1, from ``64M``, ``1.5G``, ``512k`` or a plain number."""
    if isinstance(value, str):
        number, suffix = _split_suffix(value)
        # str.lower would turn the Kelvin sign into a k
        scale = _SIZES.get(suffix.lower()) if suffix.isascii() else None
        size = None if scale is None or (scale == 1 and "." in number) else _scaled(number, scale)
    else:
        size = value if type(value) is int else None
    if size is None or size < 0:
        raise JailError(f"{what} {show(value)} is not a size", hint=SIZE_HINT)
    if size > INT64_MAX:
        raise JailError(f"{what} {show(value)} is too large", hint="the largest size is 8E less 1")
    return size


def format_size(size: int) -> str:
    """Return ``size`` bytes with the largest suffix that loses nothing: 67108864 is 64M."""
    for power in range(len(_PREFIXES) - 1, 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_PREFIXES[power].upper()}"
    return str(size)


def format_size_about(size: float) -> str:
    """Return ``size`` bytes in three or four characters and a suffix, for people: ``63.4M``."""
    power = 0
    while size >= 1000 and power < len(_PREFIXES) - 1:
        size /= 1024
        power += 1
    if power == 0:
        return f"{size:.0f}B"
    return f"{size:.{0 if size >= 99.5 else 1}f}{_PREFIXES[power].upper()}"


def parse_duration(value: str | int | float, what: str = "the duration") -> int:
    """Return a duration in microseconds from ``5s``, ``1h30m``, ``500ms`` or a count of seconds."""
    usec = _duration_usec(value)
    if usec is None:
        raise JailError(f"{what} {show(value)} is not a duration", hint=DURATION_HINT)
    if usec > INT64_MAX:
        raise JailError(f"{what} {show(value)} is too long", hint="the longest is 106751991d")
    return usec


def _duration_usec(value: str | int | float) -> int | None:
    if isinstance(value, bool):
        return None
    if not isinstance(value, str):
        usec = value * 1_000_000
        # the comparison is false for NaN
        return int(usec) if 0 <= usec <= 2.0**64 else None
    if not value:
        return None
    if (plain := _scaled(value, 1_000_000)) is not None:
        return plain
    total, last, start = 0, INT64_MAX, 0
    while start < len(value):
        middle = start
        while middle < len(value) and value[middle] in "0123456789.":
            middle += 1
        end = middle
        while end < len(value) and "a" <= value[end] <= "z":
            end += 1
        scale = _USEC.get(value[middle:end])
        part = _scaled(value[start:middle], scale) if scale else None
        if scale is None or part is None or scale >= last:
            return None  # larger units come first, each once
        total, last, start = total + part, scale, end
    return total


def format_duration(usec: int) -> str:
    """Return ``usec`` microseconds in words without loss: 5400000000 is 1h30m."""
    parts = []
    for suffix, scale in _USEC.items():
        count, usec = divmod(usec, scale)
        if count:
            parts.append(f"{count}{suffix}")
    return "".join(parts) or "0s"


def parse_cpus(value: str | int | float, what: str = "the number of CPUs") -> float:
    """Return a number of CPUs, possibly a fraction, from 0 to a million."""
    cpus: float | None = None
    if isinstance(value, str):
        millionths = _scaled(value, 1_000_000)
        cpus = None if millionths is None else millionths / 1_000_000
    elif not isinstance(value, bool):
        cpus = float(value) if 0 <= value <= INT64_MAX else None
    if cpus is None or not cpus <= 1_000_000:
        raise JailError(
            f"{what} {show(value)} is not a number of CPUs", hint="write a number, as 2 or 0.5"
        )
    return cpus


def parse_cpuset(text: str, what: str = "the CPU set", limit: int = CPU_MAX) -> list[int]:
    """Return the numbers, sorted and each once, of a list as ``0-1,3``; cpuset(7) "List format"."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not is_digits(first) or (dash and not is_digits(last)):
            raise JailError(
                f"{what} {show(text)} is not a list of numbers",
                hint="write numbers and ranges with commas, as 0-1,3",
            )
        low, high = int(first), int(last or first)
        if low > high or high >= limit:
            raise JailError(
                f"{what} {show(text)} has no valid range at {show(part)}",
                hint=f"a range goes up, and its last number is below {limit}",
            )
        numbers.update(range(low, high + 1))
    return sorted(numbers)


def format_cpuset(numbers: Iterable[int]) -> str:
    """Return numbers in the kernel's list format, the shortest way: [0, 1, 3] is 0-1,3."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in ranges)


def parse_rate(value: str | int, what: str = "the rate") -> int:
    """Return bits per second from ``100mbit`` or ``1.5gbit``, or from bytes as ``10mbps``."""
    rate = value if type(value) is int else None
    if isinstance(value, str):
        number, suffix = _split_suffix(value)
        scale = _RATES.get(suffix.lower()) if suffix.isascii() else None
        rate = _scaled(number, scale) if scale else None
    if rate == 0 or value == "0":
        raise JailError(
            f"{what} {show(value)} is not possible: a rate of 0 lets nothing pass",
            hint="leave it out for no limit, or write one above 0, as 100mbit",
        )
    if rate is None or not 0 < rate <= INT64_MAX:
        raise JailError(
            f"{what} {show(value)} is not a rate",
            hint="write bits per second as 100mbit or 1gbit, bytes per second as 10mbps",
        )
    return rate


def format_rate(rate: int) -> str:
    """Return ``rate`` bits per second with the largest suffix that loses nothing: 100mbit."""
    power = len(_PREFIXES) - 1
    while power and rate % 1000**power:
        power -= 1
    return f"{rate // 1000**power}{_PREFIXES[power]}bit"


def parse_integer(
    value: str | int, what: str, *, low: int = 0, high: int = INT64_MAX, unit: str = ""
) -> int:
    """Return a whole number from ``low`` to ``high``."""
    number = value if type(value) is int else None
    if isinstance(value, str):
        sign = -1 if low < 0 and value.startswith("-") else 1
        digits = value[1:] if sign < 0 else value
        number = sign * int(digits) if is_digits(digits) else None
    if number is None or not low <= number <= high:
        upto = f"at least {low}" if high >= INT64_MAX else f"from {low} to {high}"
        raise JailError(f"{what} {show(value)} is not valid", hint=f"write a number {upto}{unit}")
    return number


def parse_ulimit(text: str, what: str = "the limit") -> tuple[str, int, int]:
    """Return the OCI type, soft and hard value from ``nofile=1024:2048`` or ``core=unlimited``."""
    name, equals, values = text.partition("=")
    soft_text, colon, hard_text = values.partition(":")
    if not equals or not soft_text or (colon and not hard_text):
        raise JailError(
            f"{what} {show(text)} is not a limit",
            hint="write NAME=SOFT[:HARD], as nofile=1024:2048",
        )
    if name not in RLIMITS:
        raise JailError(
            f"{what} {show(text)} names no limit that Linux knows",
            hint=f"valid names: {', '.join(RLIMITS)}",
        )
    soft = _parse_rlimit(soft_text, what)
    hard = _parse_rlimit(hard_text, what) if colon else soft
    if soft > hard:
        raise JailError(
            f"{what} {show(text)} has a soft value above the hard one",
            hint=f"write {name}={hard_text}:{soft_text} to exchange them",
        )
    return f"RLIMIT_{name.upper()}", soft, hard


def _parse_rlimit(text: str, what: str) -> int:
    if text in ("unlimited", "-1"):
        return RLIM_INFINITY
    if not is_digits(text) or int(text) > RLIM_INFINITY:
        raise JailError(f"{what} {show(text)} is not a value", hint="write a number, or unlimited")
    return int(text)


def format_ulimit(kind: str, soft: int, hard: int) -> str:
    """Return the words for an OCI rlimit: RLIMIT_NOFILE, 1024, 2048 is nofile=1024:2048."""
    words = ["unlimited" if value == RLIM_INFINITY else str(value) for value in (soft, hard)]
    return f"{kind.removeprefix('RLIMIT_').lower()}={words[0]}:{words[1]}"


def parse_user_ids(text: str | int, what: str = "the user") -> tuple[int, int | None]:
    """Return uid and gid (None if not said) from ``uid`` or ``uid:gid``, both numbers."""
    uid, colon, gid = str(text).partition(":")
    numbers = [uid, gid] if colon else [uid]
    # 2^32-1 is "no id" to the kernel, setresuid(2)
    if not all(is_digits(number) and int(number) < UINT32_MAX for number in numbers):
        raise JailError(
            f"{what} {show(text)} is not a pair of ids",
            hint="write UID or UID:GID, numbers from 0 to 4294967294",
        )
    return int(uid), int(gid) if colon else None


def parse_id_range(text: str, what: str = "the id range") -> tuple[int, int, int]:
    """Return first id inside, first id outside and count from ``0:100000:65536``."""
    parts = text.split(":")
    if len(parts) != 3 or not all(is_digits(part) for part in parts):
        raise JailError(
            f"{what} {show(text)} is not a range of ids",
            hint="write INSIDE:OUTSIDE:COUNT, as 0:100000:65536",
        )
    inside, outside, count = (int(part) for part in parts)
    if not count or max(inside, outside) + count > UINT32_MAX:
        raise JailError(
            f"{what} {show(text)} is empty or goes beyond the largest id",
            hint="COUNT is at least 1, and the last id at most 4294967294",
        )
    return inside, outside, count


def format_id_range(mapping: Mapping[str, int]) -> str:
    """Return the words for an OCI id mapping: 0:100000:65536."""
    return f"{mapping['containerID']}:{mapping['hostID']}:{mapping['size']}"


def parse_pair(text: str, what: str = "the setting") -> tuple[str, str]:
    """Return key and value from ``key=value``; the value may be empty and may hold ``=``."""
    key, equals, value = text.partition("=")
    if not key or not equals or "\0" in text:
        raise JailError(f"{what} {show(text)} is not a pair", hint="write KEY=VALUE")
    return key, value
