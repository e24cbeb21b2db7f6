"""The documentation holds together: its links and headings, what is reachable, what is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.source import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# What a fence may say of its block: `console` is for commands with their output.
FENCES = {"console", "console terminal", "sh", "text", "python", "json", "toml", "yaml"}
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")


def name(path: Path) -> str:
    """Return a page's name for the report."""
    return path.relative_to(ROOT).as_posix()


def strip_code(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def read_links(path: Path) -> list[tuple[Path, str]]:
    """Return the pages or files that a page links to, each with its anchor."""
    found = []
    for target in LINK.findall(strip_code(path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found.append(((path.parent / file).resolve() if file else path, anchor))
    return found


def read_anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as hosts of repositories make them."""
    titles = re.findall(r"^#+ (.*)$", strip_code(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_to_pages_and_headings(path: Path) -> None:
    for target, anchor in read_links(path):
        assert target.exists(), f"{name(path)} links to {target}, which is not there"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in read_anchors(target), f"{name(path)} links to #{anchor} of {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    seen = set()
    todo = [DOCS / "index.md"]
    while todo:
        path = todo.pop()
        if path not in seen and path.suffix == ".md" and path.exists():
            seen.add(path)
            todo += [target for target, _ in read_links(path)]
    unreachable = [name(path) for path in DOCS.rglob("*.md") if path not in seen]
    assert not unreachable


def test_readme_leads_to_the_index() -> None:
    assert DOCS / "index.md" in [target for target, _ in read_links(ROOT / "README.md")]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_page_has_one_title_and_known_fences(path: Path) -> None:
    text = path.read_text()
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert set(fences[::2]) <= FENCES
    assert set(fences[1::2]) <= {""}
    titles = re.findall(r"^# .*$", strip_code(text), re.MULTILINE)
    assert len(titles) == 1
    assert text.lstrip().startswith(titles[0])
