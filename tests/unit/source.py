"""The source tree as data: its modules, what each imports, on which floor it lives."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "jailrun"

# docs/design.md draws them.  A module imports from its own floor or a lower one.
FLOORS = {
    "kernel": 0,
    "errors": 1,
    "units": 1,
    "paths": 1,
    "jsontext": 1,
    "spec": 2,
    "namespaces": 3,
    "cgroups": 3,
    "rootfs": 3,
    "net": 3,
    "security": 3,
    "engine": 4,
    "images": 5,
    "assemble": 6,
    "server": 6,
    "api": 6,
    "pytest_plugin": 6,
    "cli": 7,
    "oci": 7,
}
FACILITIES = {name for name, floor in FLOORS.items() if floor == 3}
LEAN = {name for name, floor in FLOORS.items() if floor <= 4} | {"oci"}


@dataclass(frozen=True)
class Import:
    """One imported module of ours or of others."""

    module: str
    line: int
    typing_only: bool  # under `if TYPE_CHECKING`
    deferred: bool  # inside a function: run when that is called


@dataclass
class Module:
    """One file of the package."""

    name: str
    path: Path
    tree: ast.Module
    imports: list[Import] = field(default_factory=list)

    @property
    def part(self) -> str:
        """The facility, package or top module that it belongs to; empty for jailrun itself."""
        return part_of(self.name)

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


def part_of(name: str) -> str:
    """Return the second word of a module's dotted name."""
    return name.split(".")[1] if "." in name else ""


def name_module(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def read_modules() -> dict[str, Module]:
    """Parse the whole package."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = name_module(path)
        modules[name] = Module(name, path, ast.parse(path.read_bytes(), str(path)))
    for module in modules.values():
        collect_imports(module.tree, module, set(modules), typing_only=False, deferred=False)
    return modules


def collect_imports(
    node: ast.AST, module: Module, known: set[str], *, typing_only: bool, deferred: bool
) -> None:
    """Add the imports below a node of the syntax tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for name in dict.fromkeys(name_imports(child, known)):
                module.imports.append(Import(name, child.lineno, typing_only, deferred))
        if isinstance(child, ast.If) and is_type_checking(child.test):
            branch = ast.Module(body=child.body, type_ignores=[])
            collect_imports(branch, module, known, typing_only=True, deferred=deferred)
            rest = ast.Module(body=child.orelse, type_ignores=[])
            collect_imports(rest, module, known, typing_only=typing_only, deferred=deferred)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            collect_imports(
                child, module, known, typing_only=typing_only, deferred=deferred or inside
            )


def name_imports(statement: ast.Import | ast.ImportFrom, known: set[str]) -> list[str]:
    """Return the modules that an import statement names."""
    names = [alias.name for alias in statement.names]
    if isinstance(statement, ast.Import):
        return names
    source = "." * statement.level + (statement.module or "")
    # `from package import module` imports that module, `from module import name` does not.
    return [full if (full := f"{source}.{name}") in known else source for name in names]


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is TYPE_CHECKING or typing.TYPE_CHECKING."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
