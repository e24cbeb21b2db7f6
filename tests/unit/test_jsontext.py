"""`jailrun.jsontext`: the same values as ``json``, fewer texts, and no import of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.jsontext import dumps, loads

ROOT = Path(__file__).resolve().parents[2]

characters = st.characters(exclude_categories=["Cs"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner),
    max_leaves=20,
)


@given(values)
def test_what_json_writes_is_read_as_json_reads_it(value: Any) -> None:
    for text in (
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        json.dumps(value, indent=3, separators=(" ,", " : ")),
    ):
        assert loads(text) == json.loads(text)
        assert loads(text.encode()) == json.loads(text)


@given(values)
def test_writing_is_what_json_does(value: Any) -> None:
    assert dumps(value) == json.dumps(value)
    assert dumps(value, indent=True) == json.dumps(value, indent=2)


@given(st.text() | st.text('{}[]",:0123456789.eE-+truefalsn \\u\n\t'))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    try:
        mine = loads(text)
    except ValueError as error:
        assert "line " in str(error)
        return
    assert json.loads(text) == mine


@given(st.binary())
def test_any_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    try:
        loads(data)
    except ValueError as error:
        assert "line " in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expecting a value: line 1 column 1"),
        ("  \n ", "expecting a value: line 2 column 2"),
        ('{"a": 1', "expecting ',' delimiter: line 1 column 8"),
        ('{"a": 1,\n "b" 2}', "expecting ':' delimiter: line 2 column 6"),
        ("[1] 2", "unexpected text after the value: line 1 column 5"),
        ('["NaN",\n  NaN]', "NaN is not a number in JSON: line 2 column 3"),
        ("[-Infinity]", "-Infinity is not a number in JSON: line 1 column 2"),
        ('{"\\"1e999": 1e999}', "1e999 is too large a number: line 1 column 13"),
        ("\ufeff1", "a byte order mark is not allowed: line 1 column 1"),
        (b"\xef\xbb\xbf1", "a byte order mark is not allowed: line 1 column 1"),
        (b'["\xc3\xa4",\n"\xff"]', "this is not UTF-8: line 2 column 2"),
        ("1".encode("utf-16"), "this is not UTF-8: line 1 column 1"),
        ('"a\\ud800"', "\\ud800 is half a character: line 1 column 3"),
        ('"a\nb"', "invalid control character at: line 1 column 3"),
        ("[" * 100_000, "nested too deeply: line 1 column 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        loads(text)
    assert str(caught.value) == message


def test_absurdly_long_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has too many digits: line 1 column 2"):
        loads(f"[{'1' * 5000}]")


def test_of_a_key_given_twice_the_last_counts_as_for_go_programs() -> None:
    assert loads('{"a": 1, "a": 2}') == {"a": 2}


def test_pairs_of_surrogates_are_one_character() -> None:
    assert loads(r'"\ud83d\ude00\\ud800"') == "\U0001f600\\ud800"


def test_file_names_that_are_not_utf_8_survive() -> None:
    name = os.fsdecode(b"/srv/\xff\x80")
    assert loads(dumps(name)) == name
    assert loads(dumps([name], indent=True)) == [name]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps([value])


def test_cycles_are_not_written() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    for indent in (False, True):
        with pytest.raises(ValueError, match=r"Circular|contains itself"):
            dumps(cycle, indent=indent)
    assert dumps([[1], [1]]) == "[[1], [1]]"


@pytest.mark.parametrize("value", [{1, 2}, b"x", {1: {(1, 2): 3}}])
def test_what_json_has_no_words_for_is_a_type_error(value: object) -> None:
    for indent in (False, True):
        with pytest.raises(TypeError):
            dumps([value], indent=indent)


BARE = """
import sys
sys.path.insert(0, {root!r})
from jailrun.jsontext import dumps, loads
assert loads('{{"a": [1, 2.5, true, null]}}') == {{"a": [1, 2.5, True, None]}}
assert dumps([1], indent=True) == "[\\n  1\\n]"
assert not {{"json", "re"}} & set(sys.modules), sorted(sys.modules)
try:
    loads('{{"a": 1')
except ValueError as error:
    assert str(error) == "expecting ',' delimiter: line 1 column 8", error
else:
    raise AssertionError
"""
WITHOUT_ACCELERATOR = """
import sys
sys.modules["_json"] = None
sys.path.insert(0, {root!r})
from jailrun.jsontext import dumps, loads
assert loads('{{"a": [1, 2.5, true, null]}}') == {{"a": [1, 2.5, True, None]}}
assert dumps({{"a": [1, "\\u00e4"]}}) == '{{"a": [1, "\\\\u00e4"]}}'
for text, message in (
    ("[NaN]", "NaN is not a number in JSON: line 1 column 2"),
    ("[1", "expecting ',' delimiter: line 1 column 3"),
    ("", "expecting a value: line 1 column 1"),
):
    try:
        loads(text)
    except ValueError as error:
        assert str(error) == message, error
    else:
        raise AssertionError(text)
"""


@pytest.mark.runs_programs
@pytest.mark.parametrize("program", [BARE, WITHOUT_ACCELERATOR])
def test_in_a_fresh_interpreter(program: str) -> None:
    command = [sys.executable, "-I", "-S", "-c", program.format(root=str(ROOT))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
