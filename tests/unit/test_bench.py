"""The benchmark's tables, on figures that were made up.  Out of scope: measuring."""

from __future__ import annotations

import json

import pytest

from bench.table import (
    Row,
    Table,
    Target,
    as_data,
    check_target,
    find_row,
    format_number,
    format_table,
    read_ratio,
)
from bench.worker import Figure, Plain, _measure

OURS = Row("ours", [4.0, 1.0, 3.0, 2.0, 5.0])
THEIRS = Row("theirs", [10.0, 12.0, 11.0, 30.0, 9.0])
NEVER = Row("never", [0.0])
TARGETS = (
    Target("ours", 0.3, "theirs"),
    Target("ours", 0.2, "theirs"),
    Target("ours", 3.5),
    Target("ours", 1.0, "absent"),
    Target("absent", 1.0),
    Target("theirs", 3.0, "ours", at_least=True),
    Target("theirs", 4.0, "ours", at_least=True),
)
TABLE = Table("key", "a title", "ms", "theirs", [OURS, THEIRS, NEVER], TARGETS, ["absent: gone"])


def test_quartiles() -> None:
    assert OURS.quartiles() == (2.0, 3.0, 4.0)
    assert OURS.median() == 3.0
    assert Row("one", [7.0]).quartiles() == (7.0, 7.0, 7.0)


def test_ratio() -> None:
    assert read_ratio(TABLE, "ours", "theirs") == pytest.approx(3 / 11)
    assert read_ratio(TABLE, "ours", "absent") is None
    assert read_ratio(TABLE, "ours", "never") is None
    assert find_row(TABLE, "absent") is None


def test_targets() -> None:
    results = [check_target(TABLE, target) for target in TARGETS]
    assert [result and result[1] for result in results] == [
        *(True, False, True, None, None),
        *(True, False),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.12"), (9.876, "9.88"), (12.34, "12.3"), (123.4, "123")]
)
def test_numbers(value: float, text: str) -> None:
    assert format_number(value) == text


def test_text() -> None:
    lines = format_table(TABLE)
    assert lines[0] == "a title (ms; n = 5)"
    assert lines[1].split() == ["min", "q1", "median", "q3", "ratio"]
    assert lines[2].split() == ["ours", "1.00", "2.00", "3.00", "4.00", "0.27"]
    assert lines[3].split() == ["theirs", "9.00", "10.0", "11.0", "12.0", "1.00"]
    assert [line.strip() for line in lines[5:]] == [
        "target: ours <= 0.3 x theirs: 0.27, met",
        "target: ours <= 0.2 x theirs: 0.27, MISSED",
        "target: ours <= 3.5 ms: 3.00, met",
        "target: ours <= 1 x absent: not measured",
        "target: absent <= 1 ms: not measured",
        "target: theirs >= 3 x ours: 3.67, met",
        "target: theirs >= 4 x ours: 3.67, MISSED",
        "left out: absent: gone",
    ]
    assert len({len(line) for line in lines[1:5]}) == 1


def test_a_table_of_none() -> None:
    table = Table("key", "nobody", "ms", "theirs", [])
    assert format_table(table)[0] == "nobody (ms; n = 0)"


def test_data() -> None:
    data = json.loads(json.dumps(as_data(TABLE)))
    assert data["rows"][0]["median"] == 3.0
    assert data["rows"][0]["values"] == [4.0, 1.0, 3.0, 2.0, 5.0]
    assert data["targets"][0]["met"] is True
    assert data["targets"][3]["reached"] is None
    assert data["absent"] == ["absent: gone"]


def test_a_worker_times_its_samples() -> None:
    """A sample that has no figure of its own counts the seconds."""
    assert _measure(Figure(lambda: 7.5)) == 7.5
    assert 0 <= _measure(Plain(lambda: None)) < 7.5
