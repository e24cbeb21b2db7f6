"""Recipes: what an image is made of, as a folder with a ``recipe.toml``.

Owns: where recipes are, their form, its checks, their digest.  Out of scope: following them
(`jailrun.images.builder`).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jailrun.errors import ImageError
from jailrun.images import lookup
from jailrun.images.lookup import MissingImageError

_FORM = 1  # raised when the same recipe comes to mean another tree
_BASES = ("scratch", "debootstrap")
_PACKAGE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-:")
_STRINGS = list[str]
_KEYS: dict[str, dict[str, type | object]] = {
    "image": {"name": str, "description": str},
    "build": {
        "base": str,
        "distribution": str,
        "suite": str,
        "default_suite": str,
        "mirror": str,
        "security_mirror": str,
        "components": _STRINGS,
        "packages": _STRINGS,
        "include": _STRINGS,
        "applets": str,
        "folders": _STRINGS,
        "remove": _STRINGS,
        "empty": _STRINGS,
        "modes": dict,
    },
    "config": {
        "cmd": _STRINGS,
        "entrypoint": _STRINGS,
        "env": _STRINGS,
        "user": str,
        "workdir": str,
        "stop_signal": str,
        "exposed_ports": _STRINGS,
        "labels": dict,
    },
}


@dataclass(frozen=True)
class Recipe:
    """One recipe, checked; ``build`` and ``config`` have the keys that docs/reference lists."""

    folder: Path
    name: str
    description: str
    build: dict[str, Any]
    config: dict[str, Any]
    digest: str

    @property
    def files(self) -> Path:
        """Return the folder whose content is copied into the image; it may be missing."""
        return self.folder / "files"

    def words(self, key: str) -> list[str]:
        """Return a list of the ``build`` table; empty where the recipe does not give it."""
        return list(self.build.get(key, []))


def recipe_folders() -> list[Path]:
    """Return the folders in which recipes are looked for, first match wins.

    ``JAILRUN_RECIPES`` (colon-separated), ``/etc/jailrun/images``, beside the package, and where
    an installed package keeps its data.
    """
    named = [Path(part) for part in os.environ.get("JAILRUN_RECIPES", "").split(":") if part]
    package = Path(__file__).resolve().parents[2]
    shared = Path(sys.prefix) / "share/jailrun"
    return [*named, Path("/etc/jailrun/images"), package / "images", shared / "images"]


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    names: set[str] = set()
    for folder in recipe_folders():
        names.update(path.parent.name for path in folder.glob("*/recipe.toml"))
    return sorted(names)


def find_recipe(name_or_path: str) -> Recipe:
    """Return the recipe of that name, or in that folder.

    Raises `MissingImageError`, with the nearest name, where there is none.
    """
    if lookup.is_path(name_or_path):
        folder = Path(name_or_path)
        if folder.name == "recipe.toml":
            folder = folder.parent
        if not (folder / "recipe.toml").is_file():
            raise MissingImageError(f"there is no recipe.toml in {folder}")
        return read_recipe(folder.absolute())
    name, _ = lookup.parse_name(name_or_path)
    for parent in recipe_folders():
        if (parent / name / "recipe.toml").is_file():
            return read_recipe(parent / name)
    raise unknown(name_or_path, recipe_names(), [])


def unknown(reference: str, recipes: Iterable[str], images: Iterable[str]) -> MissingImageError:
    """Return the error for a name that is neither image nor recipe."""
    recipes, images = list(recipes), list(images)
    near = difflib.get_close_matches(reference, [*recipes, *images], 1)
    known = [f"recipes: {', '.join(recipes) or 'none'}"]
    if images:
        known.append(f"images: {', '.join(images)}")
    guess = f"did you mean {near[0]}? " if near else ""
    if not guess and Path(reference).exists():
        guess = f"for the file or folder {reference} say ./{reference}; "
    return MissingImageError(
        f"there is no image and no recipe {reference}", hint=guess + "; ".join(known)
    )


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe in ``folder``; raise ImageError naming the file and key at fault."""
    path = folder / "recipe.toml"
    try:
        text = path.read_bytes()
        data = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: {error}") from error
    _check_tables(path, data)
    image, build = data.get("image", {}), data.get("build", {})
    name = image.get("name", folder.name)
    lookup.parse_name(name)
    base = build.get("base")
    if base not in _BASES:
        raise ImageError(f"{path}: build.base: {base!r} is not one of {', '.join(_BASES)}")
    if base == "debootstrap" and "mirror" not in build:
        raise ImageError(f"{path}: build.mirror: the base debootstrap needs one")
    for key in ("include", "folders", "remove", "empty", "modes"):
        for entry in build.get(key, []):
            _check_inside(path, f"build.{key}", entry)
    for package in build.get("packages", []):
        if not _PACKAGE.issuperset(package) or package[:1] in {"", "-", "+", "."}:
            raise ImageError(f"{path}: build.packages: {package!r} is not the name of a package")
    for entry, mode in build.get("modes", {}).items():
        if not isinstance(mode, str) or not mode or not set(mode) <= set("01234567"):
            raise ImageError(f'{path}: build.modes: {entry}: an octal mode like "0644" is needed')
    return Recipe(
        folder,
        name,
        image.get("description", ""),
        build,
        data.get("config", {}),
        _digest(folder, text),
    )


def _check_tables(path: Path, data: dict[str, Any]) -> None:
    for table, content in data.items():
        known = _KEYS.get(table)
        if known is None or not isinstance(content, dict):
            raise ImageError(
                f"{path}: {table}: unknown key", hint=f"the tables are {', '.join(_KEYS)}"
            )
        for key, value in content.items():
            if key not in known:
                raise ImageError(
                    f"{path}: {table}.{key}: unknown key", hint=f"known: {', '.join(known)}"
                )
            if not _fits(value, known[key]):
                wanted = {str: "a string", dict: "a table"}.get(
                    known[key],  # type: ignore[call-overload]
                    "a list of strings",
                )
                raise ImageError(f"{path}: {table}.{key}: {wanted} is needed")


def _fits(value: object, kind: type | object) -> bool:
    if kind == _STRINGS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(kind, type) and isinstance(value, kind)


def _check_inside(path: Path, key: str, entry: str) -> None:
    parts = PurePosixPath(entry).parts
    if not parts or entry.startswith("/") or ".." in parts:
        raise ImageError(f"{path}: {key}: {entry!r} is not a path within the image")


def _digest(folder: Path, text: bytes) -> str:
    """Return the digest of all that the recipe consists of."""
    state = hashlib.sha256(b"%d\0" % _FORM + text)
    files = folder / "files"
    for path in sorted(files.rglob("*")) if files.is_dir() else []:
        state.update(b"\0" + os.fsencode(path.relative_to(files)) + b"\0")
        if path.is_symlink():
            state.update(b"l" + os.fsencode(path.readlink()))
        elif path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            state.update((b"x" if executable else b"f") + path.read_bytes())
    return f"sha256:{state.hexdigest()}"
