"""The verb check: whether this host can run jails.

Owns: how the findings are shown.  Out of scope: finding them (`jailrun.server.check`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from jailrun.cli import output
from jailrun.server.check import can_run, check_host

MARKS = {"ok": "ok", "warning": "warning", "missing": "MISSING"}


def check(
    format: Annotated[
        Literal["table", "json"], typer.Option("--format", help="How to print it.")
    ] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what is not ok.")] = False,
) -> int:
    """Find out whether this host can run jails.

    Where it cannot, or lacks something, the line below says what to type.

    Most of it is found out by doing: a child in each kind of namespace, a cgroup in each
    hierarchy, in the end a whole jail.  Nothing of it stays.  The exit status is 0 if jails can
    run, 1 if not.

    \b
    Example:
      jailrun check
    """
    findings = check_host()
    able = can_run(findings)
    shown = [one for one in findings if not quiet or one.state != "ok"]
    if format == "json":
        output.write_json({"can_run": able, "findings": [asdict(one) for one in shown]})
        return 0 if able else 1
    width = max((len(one.subject) for one in shown), default=0)
    for one in shown:
        output.write_line(
            f"{MARKS[one.state]:7}  {one.subject:{width}}  {output.clean(one.detail)}"
        )
        if one.hint:
            output.write_line(f"{'':9}{'':{width}}  → {output.clean(one.hint)}")
    output.write_line("This host can run jails." if able else "This host cannot run jails.")
    return 0 if able else 1
