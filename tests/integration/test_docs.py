"""The commands that the tutorial and the how-to pages show are run, and print what the pages say.

A ```console block is one for the shell: a line that begins with ``$ `` is a command, ``> `` goes on
with it, and what follows is its output (standard output and error).  All blocks of a page are one
session, in a folder of its own.  In a ```console terminal block the first command takes a terminal,
and the lines after it that begin with the prompt of the jail's shell are typed into it.

``…`` in an output stands for anything within the line, and for any number of lines where it is
alone.  The width of a gap does not count: columns are as wide as what is in them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names
from jailrun.errors import JailError
from jailrun.net import definition, networks
from tests.integration.cli.command import Terminal

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
BLOCK = re.compile(r"^```console( terminal)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMPT = "/ # "
MARK = "status of the command above:"
SECONDS = 50


@pytest.fixture(autouse=True)
def nothing_stays(leaves_host_as_it_was: None) -> Iterator[None]:
    """Remove the jails and networks that a page which failed half-way has left."""
    before = definition.list_names()
    yield
    for left in list_names():
        with contextlib.suppress(JailError):
            lifecycle.delete(left, force=True)
    for made in set(definition.list_names()) - set(before):
        with contextlib.suppress(JailError):
            networks.remove(made)


@dataclass
class Step:
    """A command of a page, and the lines that it prints there."""

    command: str
    line: int
    output: list[str] = field(default_factory=list)
    in_terminal: bool = False


def read_steps(path: Path) -> list[Step]:
    """Return the commands of a page in order."""
    text = path.read_text()
    steps: list[Step] = []
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(2)) + 1
        for number, line in enumerate(block[2].splitlines(), first):
            if line.startswith("$ "):
                steps.append(Step(line[2:], number, in_terminal=bool(block[1])))
            elif line.startswith("> ") and steps and not steps[-1].output:
                steps[-1].command += f"\n{line[2:]}"
            elif steps and steps[-1].line >= first:
                steps[-1].output.append(line)
    return steps


def find_pages(*, in_terminal: bool) -> list[Path]:
    """Return the pages that have commands of this kind."""
    return [
        path for path in PAGES if any(one.in_terminal is in_terminal for one in read_steps(path))
    ]


def is_as_shown(shown: list[str], printed: str) -> bool:
    """Tell whether an output is the one that a page shows."""
    pattern = ""
    for line in shown:
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
            continue
        words = [re.escape(part) for part in " ".join(line.split()).split("…")]
        pattern += ".*?".join(words) + r"\n"
    squeezed = "".join(f"{' '.join(line.split())}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, squeezed) is not None


def run_page(steps: list[Step], folder: Path) -> list[str]:
    """Run the commands in one shell; return what each of them prints."""
    lines = []
    for step in steps:
        # The mark must leave $? as it was, for a page that shows it.
        lines.append(f'{step.command}\nset -- $?; echo "{MARK} $1"; (exit "$1")\n')
    script = folder.parent / f"{folder.name}.sh"
    script.write_text("".join(lines))
    environment = {**os.environ, "PATH": f"{ROOT}/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", str(script)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    return re.split(rf"{MARK} \d+\n", done.stdout.decode())[: len(steps)]


def assert_shown(path: Path, step: Step, command: str, shown: list[str], printed: str) -> None:
    """Fail where a page shows something else than a command prints."""
    if not is_as_shown(shown, printed):
        where = f"{path.relative_to(ROOT)}:{step.line}"
        wanted = "\n".join(shown)
        pytest.fail(f"{where}: {command}\n--- shown\n{wanted}\n--- printed\n{printed}", False)


@pytest.mark.parametrize("path", find_pages(in_terminal=False), ids=lambda path: path.stem)
def test_commands_print_what_is_shown(path: Path, tmp_path: Path) -> None:
    steps = [step for step in read_steps(path) if not step.in_terminal]
    folder = tmp_path / "folder"
    folder.mkdir()
    printed = run_page(steps, folder)
    for step, text in zip(steps, printed, strict=True):
        assert_shown(path, step, step.command, step.output, text)


@pytest.mark.parametrize("path", find_pages(in_terminal=True), ids=lambda path: path.stem)
def test_sessions_in_a_terminal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for step in (one for one in read_steps(path) if one.in_terminal):
        terminal = Terminal(shlex.split(step.command)[1:])
        try:
            typed: list[tuple[str, list[str]]] = []
            for line in step.output:
                if line.startswith(PROMPT):
                    typed.append((line.removeprefix(PROMPT), []))
                else:
                    typed[-1][1].append(line)
            terminal.see(PROMPT)
            for words, shown in typed[:-1]:
                terminal.type(f"{words}\n")
                text = terminal.see(f"\n{PROMPT}").replace("\r", "")
                echoed, _, printed = f"{text}\n".partition("\n")
                assert words in echoed
                assert_shown(path, step, words, shown, printed)
            assert typed[-1] == ("exit", [])
            terminal.type("exit\n")
            terminal.end()
        finally:
            terminal.drop()
