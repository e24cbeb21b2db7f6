"""docs/reference/commands.md says what the help says.

``JAILRUN_UPDATE=1 bin/test tests/unit/cli/test_reference.py`` writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import typer.main

from jailrun.cli import app
from tests.unit.source import ROOT

PAGE = ROOT / "docs/reference/commands.md"
WIDTH = 96
HEAD = """# Commands

What `jailrun VERB --help` prints, for every verb. [What the exit statuses mean](exit-status.md) is
the same for all of them, [what to do when something fails](../how-to/troubleshoot.md) has a page of
its own.

A test writes this page; see `tests/unit/cli/test_reference.py`.
"""


def make_page() -> str:
    """Return the page as it should be."""
    command = typer.main.get_command(app.build_app())
    context = make_context(command, "jailrun", None)
    pages = [
        HEAD,
        *(f"## {path}\n\n```text\n{text}\n```\n" for path, text in walk(command, context)),
    ]
    return "\n".join(pages)


def make_context(command: Any, name: str, parent: Any) -> Any:
    """Return the context in which a command formats its help."""
    return command.context_class(command, info_name=name, parent=parent, terminal_width=WIDTH)


def walk(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    """Yield each command's path and help, depth first."""
    text = command.get_help(context)
    yield context.command_path, "\n".join(line.rstrip() for line in text.splitlines())
    for name in getattr(command, "commands", {}):
        child = command.commands[name]
        yield from walk(child, make_context(child, name, context))


def test_page_is_up_to_date() -> None:
    page = make_page()
    if os.environ.get("JAILRUN_UPDATE") == "1":
        PAGE.write_text(page)
    assert page == PAGE.read_text(), "write it anew: see the docstring of this test"
