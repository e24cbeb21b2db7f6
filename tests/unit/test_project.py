"""The project's own files agree with one another: versions, locks, documentation, commands."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import jailrun
from tests.unit.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def each(items: list[Path]) -> pytest.MarkDecorator:
    """Run a test for each of some files."""
    return pytest.mark.parametrize(
        "path", items, ids=lambda path: path.relative_to(ROOT).as_posix()
    )


# ------------------------------------------------------------------ versions and locks


def test_version_has_one_source() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jailrun.__version__"}
    Version(jailrun.__version__)


def test_changelog_knows_the_version() -> None:
    version = Version(jailrun.__version__)
    released = [
        Version(text) for text in re.findall(r"^## \[(\d[^\]]*)\]", CHANGELOG, re.MULTILINE)
    ]
    assert released == sorted(released, reverse=True)
    if version.is_devrelease:
        assert version not in released
        assert all(version > other for other in released)
    else:
        assert released[:1] == [version]


def test_changelog_has_the_usual_form() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    sections = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[[\d.]+\] - \d{4}-\d\d-\d\d", title) for title in sections[1:])
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= KINDS


def read_lock(name: str) -> dict[str, Version]:
    """Return the pinned versions of a lock file."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    pins = re.findall(r"^([\w.-]+)==([\w.!+]+)", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[\w]", text, re.MULTILINE)), "every line pins a version"
    return {package: Version(version) for package, version in pins}


@pytest.mark.parametrize(("lock", "extra"), [("runtime", ""), ("test", ""), ("test", "test")])
def test_lock_satisfies_the_requirements(lock: str, extra: str) -> None:
    table = PROJECT["project"]
    wanted = table["optional-dependencies"][extra] if extra else table["dependencies"]
    pins = read_lock(lock)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name], prereleases=True), requirement


def test_locks_agree() -> None:
    pins = read_lock("test")
    for lock in ("build", "runtime"):
        for package, version in read_lock(lock).items():
            assert pins.get(package, version) == version, f"{package} in {lock}.lock and test.lock"


def test_packages_are_listed_by_name_probe_need_and_reason() -> None:
    lines = (ROOT / "bin/packages").read_text().splitlines()
    rows = [line.split(maxsplit=3) for line in lines if line and not line.startswith("#")]
    for package, probe, need, reason in rows:
        assert re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package)
        assert re.fullmatch(r"python|(command|header|library|module|file):\S+", probe)
        assert need in ("run", "test"), package
        assert reason
    names = [package for package, *_ in rows]
    assert len(names) == len(set(names))


# ------------------------------------------------------------------ documentation


@each(PAGES)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def read_commands(path: Path) -> list[str]:
    """Return the commands of a page's shell blocks, without their output."""
    blocks = re.findall(
        r"^```(?:sh|console)\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"^\s*[#$] ", "", line).strip() for line in lines]


def test_readme_shows_commands() -> None:
    assert any(line.startswith("bin/jailrun run ") for line in read_commands(ROOT / "README.md"))


@each(PAGES)
def test_commands_of_the_tree_exist(path: Path) -> None:
    for line in read_commands(path):
        for name in re.findall(r"(?:^|[|;&] *|sudo )((?:bin|\.ci)/[\w-]+)", line):
            assert os.access(ROOT / name, os.X_OK), f"{path.name}: {line}"


JAILRUN_LINES = [
    pytest.param(found.group(1), id=f"{path.name}: {found.group(1)}")
    for path in PAGES
    for line in read_commands(path)
    if (found := re.search(r"\bbin/jailrun ((?:image )?[a-z]+(?: .*)?)$", line))
]


@functools.cache
def read_help(verb: str) -> str:
    """Return what `jailrun VERB --help` prints."""
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    command = [str(ROOT / "bin/jailrun"), *verb.split(), "--help"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


@pytest.mark.runs_programs
@pytest.mark.parametrize("line", JAILRUN_LINES)
def test_verbs_and_options_of_examples_exist(line: str) -> None:
    """An example's own options come before its first word without a dash and its value."""
    words = line.split()
    count = 2 if words[0] in ("image", "net") else 1
    page = read_help(" ".join(words[:count]))
    for word in words[count:]:
        if re.fullmatch(r"--[a-z][a-z-]+(=.*)?", word):
            option = word.split("=")[0]
            assert re.search(rf"{option}\b(?!-)", page), f"{option} is not in the help: {line}"


# ------------------------------------------------------------------ the guard of this suite


@pytest.mark.parametrize("call", ["fork", "kill", "chroot", "system", "posix_spawn"])
def test_unit_tests_cannot_reach_the_kernel(call: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"called os.{call}"):
        getattr(os, call)()


def test_unit_tests_cannot_start_programs_unasked() -> None:
    with pytest.raises(pytest.fail.Exception, match="runs_programs"):
        subprocess.run(["true"], check=True)


def test_unit_tests_cannot_make_jails() -> None:
    from jailrun.kernel import execute

    with pytest.raises(pytest.fail.Exception, match=r"a unit test called jailrun\.kernel"):
        execute.load_executor().spawn()
