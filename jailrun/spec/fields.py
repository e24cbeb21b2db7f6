"""What a value may be, as small functions made from a few words: the language of the tables.

Owns: the kinds (text, integer, one of some names, list, map, record) and how a problem reads.
Out of scope: which field is of which kind (`jailrun.spec.tables`).

A kind is a function ``(value, path, problems)`` that appends to ``problems`` what is wrong.  A
path is a chain of ``(path of the parent, key)``, put into words only for a problem: a config
without one is checked without making a string.
"""

from __future__ import annotations

from jailrun.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Path: TypeAlias = "tuple[Any, str | int] | None"
    Problem: TypeAlias = tuple[str, str, str | None]  # JSON path, message, hint
    Kind: TypeAlias = "Callable[[Any, Path, Problems], None]"


class Problems(list["Problem"]):
    """What is wrong; ``has_null`` once a field was met that is there and null."""

    has_null = False


def show_path(path: Path) -> str:
    """Return a path in words: ``mounts[3].type``, ``linux.sysctl["kernel.sem"]``."""
    if path is None:
        return ""
    parent, key = path
    before = show_path(parent)
    if isinstance(key, int):
        return f"{before}[{key}]"
    if parent is not None and not key.replace("_", "").isalnum():
        return f"{before}[{show_value(key)}]"
    return f"{before}.{key}" if before else key


def show_value(value: object) -> str:
    """Return a value as its JSON, shortened."""
    try:
        text = dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}…{text[-8:]}"


def _add(problems: Problems, path: Path, value: object, valid: str) -> None:
    problems.append((show_path(path), f"{show_value(value)} is not {valid}", None))


def boolean(value: Any, path: Path, problems: Problems) -> None:
    """Accept true and false."""
    if value is not True and value is not False:
        _add(problems, path, value, "true or false")


def integer(low: int, high: int, valid: str = "") -> Kind:
    """Accept whole numbers from ``low`` to ``high``."""
    words = valid or f"a whole number from {low} to {high}"

    def check(value: Any, path: Path, problems: Problems) -> None:
        if type(value) is not int or not low <= value <= high:
            _add(problems, path, value, words)

    return check


def text(valid: str = "a string without NUL", test: Callable[[str], bool] | None = None) -> Kind:
    """Accept strings without NUL that pass ``test``, which ``valid`` puts into words."""

    def check(value: Any, path: Path, problems: Problems) -> None:
        if type(value) is not str or "\0" in value or (test is not None and not test(value)):
            _add(problems, path, value, valid)

    return check


def one_of(*names: str, empty: bool = False, valid: str = "") -> Kind:
    """Accept some names, and the empty string for "not set" where ``empty``."""
    known = frozenset((*names, "") if empty else names)
    words = valid or f"one of {', '.join(names)}"

    def check(value: Any, path: Path, problems: Problems) -> None:
        if type(value) is not str or value not in known:
            _add(problems, path, value, words)

    return check


def array(item: Kind, *, least: int = 0) -> Kind:
    """Accept lists of ``item``, with ``least`` of them or more."""

    def check(value: Any, path: Path, problems: Problems) -> None:
        if type(value) is not list or len(value) < least:
            _add(problems, path, value, f"a list of {least} or more" if least else "a list")
            return
        for index, entry in enumerate(value):
            item(entry, (path, index), problems)

    return check


def mapping(item: Kind, valid_key: str = "a name", key: Callable[[str], bool] = bool) -> Kind:
    """Accept objects with any keys that pass ``key``, and ``item`` for values."""

    def check(value: Any, path: Path, problems: Problems) -> None:
        if type(value) is not dict:
            _add(problems, path, value, "an object")
            return
        for name, entry in value.items():
            if type(name) is not str or "\0" in name or not key(name):
                message = f"the key {show_value(name)} is not {valid_key}"
                problems.append((show_path(path), message, None))
            item(entry, (path, name), problems)

    return check


def record(fields: Mapping[str, Kind], *required: str, closed: bool = False) -> Kind:
    """Accept objects with these fields, null being "not set"; others are ignored unless ``closed``.

    To ignore what is unknown is the specification's rule: extensibility, config.md.
    """
    find = fields.get

    def check(value: Any, path: Path, problems: Problems) -> None:
        if type(value) is not dict:
            _add(problems, path, value, "an object")
            return
        for name, entry in value.items():
            kind = find(name)
            if kind is not None:
                if entry is None:
                    problems.has_null = True
                else:
                    kind(entry, (path, name), problems)
            elif closed:
                message = f"there is no such field; there are {', '.join(fields)}"
                problems.append((show_path((path, name)), message, None))
        for name in required:
            if value.get(name) is None:
                problems.append((show_path((path, name)), "is required and not there", None))

    return check
