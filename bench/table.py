"""The results of a benchmark: figures of one contestant, tables of several, and how they print.

Owns: `Row`, `Target`, `Table`, and the text and JSON of them.  Out of scope: measuring.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_WIDTH = 44
COLUMNS = ("min", "q1", "median", "q3", "ratio")


class Row(NamedTuple):
    """The values of one contestant, in the unit of its table, in the order of the rounds."""

    name: str
    values: Sequence[float]

    def quartiles(self) -> tuple[float, float, float]:
        """Return the first quartile, the median and the third quartile."""
        if len(self.values) == 1:
            return (self.values[0],) * 3
        first, median, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return first, median, third

    def median(self) -> float:
        """Return the median."""
        return self.quartiles()[1]


class Target(NamedTuple):
    """What is to hold: the median of ``name`` is at most ``limit``, or at least.

    The limit counts in medians of ``against`` where that is given, else in the table's unit.
    """

    name: str
    limit: float
    against: str = ""
    at_least: bool = False


class Table(NamedTuple):
    """One comparison; ratios are between the medians and that of ``reference``."""

    key: str
    title: str
    unit: str
    reference: str
    rows: Sequence[Row]
    targets: Sequence[Target] = ()
    absent: Sequence[str] = ()  # why a contestant is not among the rows


def find_row(table: Table, name: str) -> Row | None:
    """Return the row of a contestant, None where it did not take part."""
    return next((row for row in table.rows if row.name == name), None)


def read_ratio(table: Table, name: str, against: str) -> float | None:
    """Return how the medians of two contestants relate, None where one did not take part."""
    row, other = find_row(table, name), find_row(table, against)
    if row is None or other is None or other.median() == 0:
        return None
    return row.median() / other.median()


def check_target(table: Table, target: Target) -> tuple[float, bool] | None:
    """Return what was reached and whether that is enough, None where it could not be measured."""
    row = find_row(table, target.name)
    if target.against:
        reached = read_ratio(table, target.name, target.against)
    else:
        reached = row.median() if row else None
    if reached is None:
        return None
    met = reached >= target.limit if target.at_least else reached <= target.limit
    return reached, met


def format_number(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_table(table: Table) -> list[str]:
    """Return the lines of a table, what was aimed at, and who was missing."""
    rounds = max((len(row.values) for row in table.rows), default=0)
    lines = [f"{table.title} ({table.unit}; n = {rounds})"]
    lines.append("  " + " " * NAME_WIDTH + "".join(f"{column:>9}" for column in COLUMNS))
    for row in table.rows:
        cells = [format_number(value) for value in (min(row.values), *row.quartiles())]
        ratio = read_ratio(table, row.name, table.reference)
        cells.append("-" if ratio is None else f"{ratio:.2f}")
        lines.append(f"  {row.name:<{NAME_WIDTH}}" + "".join(f"{cell:>9}" for cell in cells))
    for target in table.targets:
        lines.append("  " + format_target(table, target))
    lines += [f"  left out: {reason}" for reason in table.absent]
    return lines


def format_target(table: Table, target: Target) -> str:
    """Return what was aimed at and what was reached, as text."""
    unit = f" x {target.against}" if target.against else f" {table.unit}"
    sign = ">=" if target.at_least else "<="
    text = f"target: {target.name} {sign} {target.limit:g}{unit}"
    result = check_target(table, target)
    if result is None:
        return f"{text}: not measured"
    reached, met = result
    return f"{text}: {reached:.2f}, {'met' if met else 'MISSED'}"


def as_data(table: Table) -> dict[str, object]:
    """Return a table as what json can write, the single values included."""
    rows = []
    for row in table.rows:
        first, median, third = row.quartiles()
        figures = {"min": min(row.values), "q1": first, "median": median, "q3": third}
        ratio = read_ratio(table, row.name, table.reference)
        rows.append({"name": row.name, **figures, "ratio": ratio, "values": list(row.values)})
    targets = []
    for target in table.targets:
        result = check_target(table, target)
        reached, met = result if result else (None, None)
        targets.append({**target._asdict(), "reached": reached, "met": met})
    return {
        "key": table.key,
        "title": table.title,
        "unit": table.unit,
        "reference": table.reference,
        "rows": rows,
        "targets": targets,
        "absent": list(table.absent),
    }
