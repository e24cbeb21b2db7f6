"""Who may import whom, and what the lean floors may cost.

The floors are in `tests.unit.source`.  Counts, not timings: a lean module that imports something
expensive is found by its name in ``sys.modules``.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.source import FACILITIES, FLOORS, LEAN, ROOT, Module, part_of, read_modules

MODULES = read_modules()
LEAN_PARTS = sorted({module.part for module in MODULES.values()} & LEAN)

# What a lean floor may load of Python's own: each is built in, a small extension, or loaded at
# start-up by every interpreter with the site module.
CHEAP = {
    *("sys", "builtins", "posix", "time", "marshal", "errno", "fcntl", "select", "termios", "math"),
    *("_struct", "_json", "_socket", "_signal", "_thread", "_random", "_weakref", "_imp", "_io"),
    *("os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "abc"),
    *("_abc", "__future__"),
}
# Lean modules that a start loads only in the case named here.
DEFERRED = {
    "jailrun.cgroups.inspect": "cgroupspy's nodes, for inspection; no start does",
    "jailrun.kernel.fallback": "the ctypes executor, where the native one was not built",
    "jailrun.net.bridges": "pyroute2, where a network is made or mended",
    "jailrun.net.model": "types: mypy reads them, no start does",
    "jailrun.net.shaping": "pyroute2, where a rate is limited",
    "jailrun.security.compile": "seccomp profiles, where the cache has no compiled filter",
    "jailrun.spec.extensions": "the config's types: mypy reads them, no start does",
    "jailrun.spec.model": "the config's types: mypy reads them, no start does",
}
# Modules that may be longer than 400 lines, or have functions longer than 60, and why.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {
    "jailrun.cli.run.run": "its parameters are the table of the options, one a line",
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def every_module() -> pytest.MarkDecorator:
    """Run a test for each module of the package."""
    return pytest.mark.parametrize("module", MODULES.values(), ids=str)


def may_import(importer: str, imported: str, *, typing_only: bool) -> bool:
    """Tell whether one part may import another; the root only defers to its parts."""
    if imported in ("", importer):
        return True
    if FLOORS[imported] > FLOORS[importer]:
        return False
    return typing_only or not {importer, imported} <= FACILITIES


@every_module()
def test_module_has_a_floor(module: Module) -> None:
    assert module.part in FLOORS or not module.part, (
        f"{module} is on no floor: add jailrun.{module.part} to FLOORS in tests/unit/source.py"
    )


@every_module()
def test_imports_go_down(module: Module) -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for found in module.imports
        if found.module.split(".")[0] == "jailrun"
        if module.part
        and not may_import(module.part, part_of(found.module), typing_only=found.typing_only)
    ]
    assert not wrong, "an import from a higher floor, or between facilities:\n" + "\n".join(wrong)


@every_module()
def test_root_module_defers_its_imports(module: Module) -> None:
    """`import jailrun.kernel` runs jailrun/__init__.py first."""
    eager = [found for found in module.imports if not (found.deferred or found.typing_only)]
    if not module.part:
        assert {found.module for found in eager} <= CHEAP


def test_no_import_cycles() -> None:
    """Imports inside functions count: a cycle through one is a knot all the same."""
    graph = {
        name: {i.module for i in module.imports if not i.typing_only and i.module in MODULES}
        for name, module in MODULES.items()
        if module.part
    }
    cycles = find_cycles(graph)
    assert not cycles, "import cycles:\n" + "\n".join(" -> ".join(cycle) for cycle in cycles)


def find_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return cycles of a graph, at least one if there is any."""
    cycles: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> None:
        if node in trail:
            cycles.append([*trail[trail.index(node) :], node])
        elif node not in done:
            for following in sorted(graph.get(node, ())):
                visit(following, [*trail, node])
            done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return cycles


def test_cycles_are_found() -> None:
    assert find_cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert find_cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


def test_engine_exists() -> None:
    """The tests below run over what is there: without this one an empty tree would pass."""
    assert "engine" in LEAN_PARTS


@pytest.mark.runs_programs
@pytest.mark.parametrize("part", LEAN_PARTS)
def test_lean_part_loads_only_cheap_modules(part: str) -> None:
    names = [name for name, module in MODULES.items() if module.part == part]
    loaded = load_in_fresh_interpreter([name for name in names if name not in DEFERRED])
    extra = {name for name in loaded if not is_lean(name)}
    assert not extra, f"jailrun.{part} loads {', '.join(sorted(extra))}"


@pytest.mark.runs_programs
def test_what_is_deferred_is_not_loaded_with_the_engine() -> None:
    engine = [name for name, module in MODULES.items() if module.part == "engine"]
    loaded = load_in_fresh_interpreter(engine)
    assert not set(DEFERRED) & set(loaded)


def test_deferred_modules_exist() -> None:
    assert set(DEFERRED) <= set(MODULES)


def is_lean(name: str) -> bool:
    """Tell whether a lean floor may load a module."""
    if name == "jailrun" or name == "jailrun.kernel._execute":
        return True
    if name.startswith("jailrun."):
        return part_of(name) in LEAN and name not in DEFERRED
    return name in CHEAP


def load_in_fresh_interpreter(names: list[str]) -> list[str]:
    """Return the modules that importing some adds to those of a bare interpreter."""
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "before = set(sys.modules)\n"
        f"for name in {names!r}: __import__(name)\n"
        "loaded = sorted(set(sys.modules) - before)\n"
        "import json\n"
        "print(json.dumps(loaded))\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    loaded: list[str] = json.loads(result.stdout)
    return loaded


@every_module()
def test_module_says_what_it_owns(module: Module) -> None:
    assert ast.get_docstring(module.tree), f"{module} has no docstring"


@every_module()
def test_function_is_short(module: Module) -> None:
    long = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = count_lines(node)
            if lines > MAX_FUNCTION_LINES:
                long[f"{module.name}.{node.name}"] = lines
    excused = {name for name in LONG_FUNCTIONS if name.rpartition(".")[0] == module.name}
    assert set(long) == excused, f"functions above {MAX_FUNCTION_LINES} lines: {long}"


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring."""
    end = function.end_lineno or function.lineno
    lines = end - function.lineno + 1
    if ast.get_docstring(function):
        text = function.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


def test_files_are_short() -> None:
    folders = [ROOT / name for name in ("jailrun", "tests", "bench")]
    files = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".py", ".c", ".h")
    ]
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in [*files, Path(ROOT / "setup.py")]
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES
    }
    assert set(long) == set(LONG_FILES), f"files above {MAX_FILE_LINES} lines: {long}"
