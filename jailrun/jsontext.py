"""JSON text to values and back, without the price of importing ``json``.

Owns: `loads` and `dumps`.  ``json`` itself imports ``re``, which costs a start 6.5 ms; on CPython
the work is done by its C accelerator ``_json``, a built-in module, which this module uses alone.
Elsewhere ``json`` is used.  Out of scope: what the values mean (`jailrun.spec`).

Stricter than ``json``: UTF-8 only, no byte order mark, no NaN or Infinity, no number beyond a
float's range, no lone surrogate (but those with which Python names files that are not UTF-8).
Of a key given twice the last one counts, as for the Go programs that exchange these files.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SPACE = " \t\n\r"
_LONGEST_NUMBER = 4000  # characters; Python refuses to convert 4300 digits


class _NumberError(Exception):
    """A number (the first argument) that JSON, or we, have no value for."""


def _parse_float(literal: str) -> float:
    number = float(literal)
    if number - number != 0:
        raise _NumberError(literal, "is too large a number")
    return number


def _parse_int(literal: str) -> int:
    if len(literal) > _LONGEST_NUMBER:
        raise _NumberError(literal, "has too many digits")
    return int(literal)


def _parse_constant(literal: str) -> NoReturn:
    raise _NumberError(literal, "is not a number in JSON")


def _make_scanner() -> Callable[[str, int], tuple[Any, int]]:
    """Return the function that reads one value from a text, given the place where it begins."""
    scan: Callable[[str, int], tuple[Any, int]]
    try:
        from _json import make_scanner  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        import json

        decoder: Any = json.JSONDecoder(
            parse_float=_parse_float, parse_int=_parse_int, parse_constant=_parse_constant
        )
        scan = decoder.scan_once
        return scan

    class Options:
        """What ``_json`` asks its caller for, by attribute."""

        strict = True  # no control characters within strings
        object_hook = object_pairs_hook = array_hook = None
        memo: dict[str, str] = {}  # noqa: RUF012 - for the protocol only, never filled
        parse_float = staticmethod(_parse_float)
        parse_int = staticmethod(_parse_int)
        parse_constant = staticmethod(_parse_constant)

    scan = make_scanner(Options)  # type: ignore[arg-type, unused-ignore]
    return scan


_scan = _make_scanner()


def loads(text: str | bytes) -> Any:
    """Return the value that ``text`` describes; ValueError says the line and column at fault."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode("utf-8")
            raise _error("this is not UTF-8", good, len(good)) from None
    if text.startswith("\ufeff"):
        raise _error("a byte order mark is not allowed", text, 0)
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan_value(text, start)
    except StopIteration as error:
        raise _error("expecting a value", text, error.value) from None
    except _NumberError as error:
        literal, why = error.args
        raise _error(f"{_shorten(literal)} {why}", text, _find(text, literal)) from None
    except RecursionError:
        raise ValueError("nested too deeply: line 1 column 1") from None
    except ValueError as error:  # json.JSONDecodeError
        reason, place = getattr(error, "msg", str(error)), getattr(error, "pos", start)
        raise _error(reason[:1].lower() + reason[1:], text, place) from None
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise _error("unexpected text after the value", text, len(text) - len(rest))
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(text)
    return value


def _scan_value(text: str, start: int) -> tuple[Any, int]:
    try:
        return _scan(text, start)
    except SystemError:
        # _json raises json's error class if json is there; where not, it fails without an error.
        import json.decoder  # noqa: F401

        return _scan(text, start)


def _error(reason: str, text: str, place: int) -> ValueError:
    line = text.count("\n", 0, place) + 1
    column = place - text.rfind("\n", 0, place)
    return ValueError(f"{reason}: line {line} column {column}")


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:30]}…{text[-5:]}"


def _find(text: str, literal: str) -> int:
    """Return where ``literal`` stands outside of the strings in ``text``."""
    place = 0
    while True:
        found = text.find(literal, place)
        quote = text.find('"', place)
        if quote < 0 or found < 0 or found < quote:
            return max(found, 0)
        place = _string_end(text, quote + 1)


def _string_end(text: str, place: int) -> int:
    while text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place + 1


def _refuse_surrogates(text: str) -> None:
    r"""Raise for a ``\ud800`` that is not half of a pair, in a text that is otherwise right.

    U+DC80 to U+DCFF stay: with these `os.fsdecode` writes the bytes of a file name that is not
    UTF-8, and records must be able to name such a file.
    """
    place = text.find("\\")
    while place >= 0:
        if text[place + 1] != "u":
            place = text.find("\\", place + 2)
            continue
        code = int(text[place + 2 : place + 6], 16)
        if 0xD800 <= code < 0xDC00 and text[place + 6 : place + 8] == "\\u":
            low = int(text[place + 8 : place + 12], 16)
            if 0xDC00 <= low < 0xE000:
                place = text.find("\\", place + 12)
                continue
        if 0xD800 <= code < 0xE000 and not 0xDC80 <= code < 0xDD00:
            raise _error(f"{text[place : place + 6]} is half a character", text, place)
        place = text.find("\\", place + 6)


def _make_encoder() -> tuple[Callable[[object], str], Callable[[str], str]]:
    """Return what writes a value on one line, and what writes a string, in ASCII."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        import json

        return json.JSONEncoder(allow_nan=False).encode, json.encoder.encode_basestring_ascii

    def refuse(value: object) -> NoReturn:
        raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")

    def encode(value: object) -> str:
        # markers, default, string encoder, indent, key and item separators, sort keys, skip keys,
        # allow NaN: a new encoder for each value, since a failed one leaves its markers behind.
        write = make_encoder(
            {}, refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False
        )
        return "".join(write(value, 0))

    return encode, encode_basestring_ascii


_encode, _encode_string = _make_encoder()


def dumps(value: object, *, indent: bool = False) -> str:
    """Return ``value`` as JSON in ASCII, on one line or indented by two.

    Raises TypeError for what JSON has no words for, ValueError for NaN and for cycles.
    """
    try:
        if not indent:
            return _encode(value)
        parts: list[str] = []
        _write_indented(value, "\n", parts)
        return "".join(parts)
    except RecursionError:
        raise ValueError("nested too deeply, or a value that contains itself") from None


def _write_indented(value: object, newline: str, parts: list[str]) -> None:
    if isinstance(value, dict) and value:
        inner = newline + "  "
        before = "{" + inner
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key of type {type(key).__name__} cannot be written as JSON")
            parts.append(f"{before}{_encode_string(key)}: ")
            _write_indented(item, inner, parts)
            before = "," + inner
        parts.append(newline + "}")
    elif isinstance(value, (list, tuple)) and value:
        inner = newline + "  "
        before = "[" + inner
        for item in value:
            parts.append(before)
            _write_indented(item, inner, parts)
            before = "," + inner
        parts.append(newline + "]")
    else:
        parts.append(_encode(value))
