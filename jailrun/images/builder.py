"""Follow a recipe: from packages to an image in the store.

Owns: `build`, `ensure`, the base ``scratch``.  Out of scope: the base ``debootstrap``
(`jailrun.images.debootstrap`), the store (`jailrun.images.store`).
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from jailrun.errors import ImageError
from jailrun.images import apt, catalog, debootstrap, lookup, store
from jailrun.images.lookup import Image, MissingImageError
from jailrun.images.progress import Progress, Silent
from jailrun.images.recipe import Recipe, find_recipe, recipe_names, unknown
from jailrun.images.seal import seal
from jailrun.images.store import Manifest, Workspace
from jailrun.images.tools import require_tool, run_tool


def ensure(reference: str, progress: Progress | None = None) -> Image:
    """Return the image; build it from its recipe, or import the archive, where it is missing."""
    progress = progress or Silent()
    try:
        return lookup.resolve(reference)
    except MissingImageError:
        pass
    if lookup.is_path(reference):
        from jailrun.images.archive import import_archive

        return import_archive(Path(reference), progress)
    if lookup.is_digest(reference):
        raise MissingImageError(f"there is no image {reference}", hint="see jailrun image ls")
    name = lookup.normalise(reference)
    recipe = _recipe_of(name)
    with store.hold_lock(lookup.file_name(name), lambda: _tell_waiting(progress, name)):
        try:
            return lookup.resolve(reference)
        except MissingImageError:
            return _follow(recipe, name, progress)


def build(name_or_path: str, progress: Progress | None = None) -> Image:
    """Build an image anew from the recipe of that name (with a tag, if it takes one) or folder.

    Where another process builds the same one already, wait for that and return its result.
    """
    progress = progress or Silent()
    recipe = _recipe_of(name_or_path)
    name = recipe.name if lookup.is_path(name_or_path) else lookup.normalise(name_or_path)
    with store.hold_lock(lookup.file_name(name), lambda: _tell_waiting(progress, name)) as waited:
        if waited:
            try:
                image = lookup.resolve(name)
            except MissingImageError:
                pass  # that build failed; this one may fare better
            else:
                if image.recipe == recipe.digest:
                    return image
        return _follow(recipe, name, progress)


def _tell_waiting(progress: Progress, name: str) -> None:
    progress.step(f"wait for another process that builds {name}")


def _recipe_of(name_or_path: str) -> Recipe:
    try:
        recipe = find_recipe(name_or_path)
    except MissingImageError:
        if lookup.is_path(name_or_path):
            raise
        images = {image.reference for image in catalog.list_images()}
        raise unknown(name_or_path, recipe_names(), sorted(images)) from None
    if not lookup.is_path(name_or_path):
        _, tag = lookup.parse_name(name_or_path)
        if tag != "latest" and recipe.build["base"] != "debootstrap":
            raise MissingImageError(
                f"there is no image {name_or_path}, and the recipe {recipe.name} takes no tag",
                hint=f"jailrun image build {recipe.name}",
            )
    return recipe


def _follow(recipe: Recipe, name: str, progress: Progress) -> Image:
    started = time.monotonic()
    try:
        with store.workspace() as space:
            tree = space.path / "tree"
            tree.mkdir(mode=0o755)
            tree.chmod(0o755)
            image = _make(recipe, name, space, tree, progress)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise ImageError(f"cannot build the image {name}:{where} {error.strerror}") from error
    progress.step(f"built {name} in {time.monotonic() - started:.1f} s")
    return image


def _make(recipe: Recipe, name: str, space: Workspace, tree: Path, progress: Progress) -> Image:
    if recipe.build["base"] == "debootstrap":
        _, tag = lookup.parse_name(name)
        newest = debootstrap.make_debootstrap(recipe, tag, space, tree, progress)
        _tidy(tree, debootstrap.LEFTOVERS, debootstrap.EMPTY)
    else:
        newest = _make_scratch(recipe, space, tree, progress)
    _copy_files(recipe, tree)
    _tidy(tree, recipe.words("remove"), recipe.words("empty"))
    _set_modes(recipe, tree)
    progress.step("compute the content address")
    digest, _ = seal(str(tree), newest=newest)
    store.add_layer(space, tree, digest)
    manifest = Manifest(
        layers=(digest,),
        config=dict(recipe.config),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest)),
        architecture=platform.machine(),
        recipe=recipe.digest,
        name=name,
    )
    return store.add_image(manifest, reference=name)


def _make_scratch(recipe: Recipe, space: Workspace, tree: Path, progress: Progress) -> int:
    """Unpack the parts of packages that the recipe names; return the newest package's time."""
    debs = space.path / "debs"
    packages = recipe.words("packages")
    if packages:
        for command, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
            require_tool(command, package, progress)
        _download(packages, debs, space, progress)
    found = sorted(debs.glob("*.deb")) if packages else []
    unpacked = space.path / "unpacked"
    unpacked.mkdir()
    for deb in found:
        what = f"unpack the package {deb.name}"
        run_tool(["dpkg-deb", "--extract", deb, unpacked], what=what, keep_open=[space.lock_fd])
    for folder in ("bin", "sbin", "usr", "etc", "var", *recipe.words("folders")):
        _make_folders(_inside(tree, folder))
    for wanted in recipe.words("include"):
        _include(unpacked, wanted, tree)
    if "applets" in recipe.build:
        _link_applets(tree, recipe.build["applets"])
    return apt.built_at(found) if found else 0


def _download(packages: list[str], debs: Path, space: Workspace, progress: Progress) -> None:
    """Fetch with the lists the host has; where these are missing or stale, refresh our own."""
    try:
        apt.download(packages, debs, progress, lock_fd=space.lock_fd)
    except ImageError:
        progress.step("the host's list of packages is missing or out of date: fetch it anew")
    else:
        return
    host = apt.read_os_release()
    sources = apt.read_host_sources()
    architecture = run_tool(
        ["dpkg", "--print-architecture"], what="find out the architecture"
    ).strip()
    suite = host.get("VERSION_CODENAME", "")
    components = sorted({part for source in sources for part in source.words("components")})
    chosen = apt.choose_sources(sources, suite=suite, host_suite=suite, components=components)
    private = apt.PrivateApt(space, chosen, architecture)
    private.update(progress)
    for deb in private.download(packages, progress).glob("*.deb"):
        deb.replace(debs / deb.name)


def _inside(tree: Path, name: str | Path) -> Path:
    """Return the path of ``name`` in the tree; ImageError where links lead it to the host's files.

    Debian's ``/var/run`` is such a link: to the absolute ``/run``.
    """
    path = tree / name
    if not path.parent.resolve().is_relative_to(tree.resolve()):
        raise ImageError(f"the recipe's {name} leads out of the image, through a link")
    return path


def _make_folders(path: Path) -> None:
    """Make a folder and those above it, 0755 whatever the caller's umask is."""
    missing = [path, *path.parents]
    for folder in reversed([folder for folder in missing if not folder.is_dir()]):
        folder.mkdir()
        folder.chmod(0o755)


def _include(unpacked: Path, wanted: str, tree: Path) -> None:
    source, target = unpacked / wanted, _inside(tree, wanted)
    if not source.exists() and not source.is_symlink():
        raise ImageError(f"the packages hold no {wanted}, which the recipe includes")
    _make_folders(target.parent)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _link_applets(tree: Path, binary: str) -> None:
    """Give each applet of busybox its link; the binary is static and runs on the host."""
    what = f"list the applets of {binary}"
    listed = run_tool([tree / binary, "--list-full"], what=what, isolate=True)
    for line in listed.split():
        applet = _inside(tree, line)
        if applet.exists() or applet.is_symlink():
            continue
        _make_folders(applet.parent)
        applet.symlink_to(os.path.relpath(tree / binary, applet.parent))


def _copy_files(recipe: Recipe, tree: Path) -> None:
    """Copy the recipe's files; owner root, mode 0644 or 0755 as in a version control system."""
    if not recipe.files.is_dir():
        return
    for source in sorted(recipe.files.rglob("*")):
        target = _inside(tree, source.relative_to(recipe.files))
        if source.is_symlink():
            target.unlink(missing_ok=True)
            target.symlink_to(source.readlink())
        elif source.is_dir():
            _make_folders(target)
        else:
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _tidy(tree: Path, remove: Iterable[str], empty: Iterable[str]) -> None:
    """Remove what matches the patterns; make the files in ``empty`` such."""
    for pattern in remove:
        for found in sorted(tree.glob(pattern)):
            path = _inside(tree, found.relative_to(tree))
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for name in empty:
        path = _inside(tree, name)
        path.unlink(missing_ok=True)
        _make_folders(path.parent)
        path.write_bytes(b"")
        path.chmod(0o644)


def _set_modes(recipe: Recipe, tree: Path) -> None:
    for name, mode in recipe.build.get("modes", {}).items():
        path = _inside(tree, name)
        if path.is_symlink():
            raise ImageError(f"the recipe's build.modes: {name} is a link")
        if not path.exists():
            _make_folders(path)
        path.chmod(int(mode, 8))
