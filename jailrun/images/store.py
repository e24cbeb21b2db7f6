"""The image store's writing side: commits, locks, temporary folders, removal.

Owns: everything that changes what `jailrun.images.lookup` reads.  Out of scope: where the content
comes from (`jailrun.images.builder`, `jailrun.images.archive`).

Every change is a rename of something complete and synced, made under the store's lock, so that a
SIGKILL at any point leaves the old state or the new.  What it can also leave is a folder in
``tmp/``: its owner holds a lock on the folder itself while it works, and the next change to the
store removes each one that nobody owns.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jailrun import jsontext, paths
from jailrun.errors import ConflictError, ImageError
from jailrun.images import lookup
from jailrun.images.lookup import Image

_SHORTEST_DIGEST = 8
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TOOLS_LOCK = "tools.lock"
_FOLDERS = ("layers", "manifests", "refs", "archives", "tmp", "locks")

InUse = Callable[[], Collection[str]]
"""Returns the tree paths of the layers that jails use now (``Image.layers`` of each)."""


@dataclass(frozen=True)
class Workspace:
    """A private folder on the store's file system; gone at the end, whatever happens.

    ``lock_fd`` is for the tools that work in it: they inherit it, so that the folder outlives its
    owner's death until the last of them is gone.
    """

    path: Path
    lock_fd: int


@dataclass(frozen=True)
class Manifest:
    """What a new image says of itself; ``layers`` are digests, top first."""

    layers: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    architecture: str = ""
    recipe: str = ""
    name: str = ""


def _root() -> Path:
    return Path(paths.images_dir())


def open_store() -> Path:
    """Return the store's folder, made where it is missing."""
    root = _root()
    try:
        for folder in (Path(paths.data_dir()), root, *(root / name for name in _FOLDERS)):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o711)
    except OSError as error:
        raise ImageError(
            f"cannot make the image store {root}: {error.strerror}",
            hint="run as root, or set JAILRUN_DATA to a folder that can be written",
        ) from error
    return root


@contextmanager
def hold_lock(name: str, on_wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock ``name``; yield whether another held it first."""
    path = open_store() / "locks" / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waited = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield waited
    finally:
        os.close(descriptor)


def _store_lock() -> Any:
    return hold_lock("store")


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Yield a `Workspace`; what earlier ones left behind is removed first."""
    with _store_lock():
        clean()
        path = open_store() / "tmp" / secrets.token_hex(8)
        path.mkdir(mode=0o711)
        path.chmod(0o711)
        owner_fd = os.open(path, _FOLDER)
        fcntl.flock(owner_fd, fcntl.LOCK_EX)
    try:
        tools_fd = os.open(path / _TOOLS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(tools_fd, fcntl.LOCK_EX)
            yield Workspace(path, tools_fd)
        finally:
            os.close(tools_fd)
    finally:
        _await_tools(path)
        _remove_tree(path)
        os.close(owner_fd)


def clean() -> int:
    """Remove temporary folders whose owner is dead; return how many.  Under the store's lock."""
    removed = 0
    for path in sorted((open_store() / "tmp").iterdir()):
        try:
            owner_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            with suppress(OSError):
                path.unlink()
            continue
        try:
            fcntl.flock(owner_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            _await_tools(path)
            _remove_tree(path)
            removed += 1
        finally:
            os.close(owner_fd)
    return removed


def _await_tools(path: Path) -> None:
    """Wait for the tools of a folder whose owner ends; all were killed, and end any moment."""
    try:
        tools_fd = os.open(path / _TOOLS_LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(tools_fd, fcntl.LOCK_EX)
    finally:
        os.close(tools_fd)


def _remove_tree(path: Path) -> None:
    """Remove a folder or a file; one that cannot be removed stays for the next `clean`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # follows no links (CPython, Linux)
    else:
        with suppress(OSError):
            path.unlink()


def _write_file(path: Path, text: str) -> None:
    """Put ``text`` at ``path``, whole or not at all.  Under the lock."""
    temporary = _root() / "tmp" / f"{secrets.token_hex(8)}.new"
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # whatever the caller's umask is
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def add_layer(space: Workspace, tree: Path, digest: str) -> None:
    """Move ``tree``, sealed, from the workspace into the store as the layer ``digest``."""
    target = Path(lookup.layer_path(digest)).parent
    with _store_lock():
        if target.is_dir():
            return
        holder = space.path / "layer"
        holder.mkdir(mode=0o711)
        holder.chmod(0o711)
        tree.rename(holder / "tree")
        _sync_folder(holder)
        holder.rename(target)
        _sync_folder(target.parent)


def add_image(
    manifest: Manifest, *, reference: str | None = None, archive: tuple[str, Path] | None = None
) -> Image:
    """Write the manifest, let its name or the identity of its archive point at it."""
    text = jsontext.dumps(
        {
            "schema": 1,
            "name": manifest.name,
            "layers": list(manifest.layers),
            "config": manifest.config,
            "architecture": manifest.architecture,
            "created": manifest.created,
            "recipe": manifest.recipe,
        },
        indent=True,
    )
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    with _store_lock():
        path = Path(lookup.manifest_path(digest))
        if not path.exists():
            _write_file(path, text)
        if reference is not None:
            _write_file(Path(lookup.reference_path(reference)), f"{digest}\n")
        if archive is not None:
            _forget_archive(archive[1])
            _write_file(Path(archive[0]), f"{digest}\n{archive[1]}\n")
    shown = reference or (str(archive[1]) if archive else digest)
    return lookup.load(shown, digest)


def _forget_archive(path: Path) -> None:
    """Drop what is known of the earlier states of an archive.  Under the lock."""
    for pointer, (reference, _) in read_pointers().items():
        if pointer.parent.name == "archives" and reference == str(path):
            pointer.unlink(missing_ok=True)


def read_pointers() -> dict[Path, tuple[str, str]]:
    """Return each file that points at a manifest, with the reference and the digest."""
    root = open_store()
    found = {}
    for path in sorted((root / "refs").iterdir()):
        digest = lookup.read_pointer(str(path))
        if digest is not None:
            found[path] = (lookup.reference_of(path.name), digest)
    for path in sorted((root / "archives").iterdir()):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        digest, _, archive = text.removesuffix("\n").partition("\n")
        if lookup.is_digest(digest) and archive:
            found[path] = (archive, digest)
    return found


def manifest_digests() -> list[str]:
    names = sorted(path.stem for path in (open_store() / "manifests").iterdir())
    return [name.replace("-", ":", 1) for name in names]


def find(reference: str) -> Image:
    """Return a stored image by name, archive path, digest, or an unambiguous start of a digest."""
    short = reference.removeprefix("sha256:")
    if len(short) >= _SHORTEST_DIGEST and set(short) <= set("0123456789abcdef"):
        matches = [digest for digest in manifest_digests() if digest[7:].startswith(short)]
        if len(matches) > 1:
            raise ImageError(f"{reference} is the start of {len(matches)} images")
        if matches and not (reference == short and _is_named(reference)):
            return lookup.load(matches[0], matches[0])
    return lookup.resolve(reference)


def _is_named(reference: str) -> bool:
    return Path(lookup.reference_path(reference)).exists()


def remove(reference: str, in_use: InUse, *, force: bool = False) -> list[str]:
    """Remove a name; with the last name also the image and the layers that no other image has.

    Returns what was removed, in words.  Raises ConflictError while ``in_use`` names one of the
    layers that would go; with ``force`` the image goes and those layers stay until `prune`.
    """
    image = find(reference)
    if image.root is not None:
        raise ImageError(f"{reference} is a folder used in place; the store holds nothing of it")
    with _store_lock():
        clean()
        pointers = read_pointers()
        here = [path for path, (_, digest) in pointers.items() if digest == image.digest]
        if lookup.is_digest(image.reference):
            doomed = here
        elif lookup.is_path(image.reference):
            absolute = str(Path(image.reference).absolute())
            doomed = [path for path in here if pointers[path][1] and pointers[path][0] == absolute]
        else:
            doomed = [path for path in here if pointers[path][0] == image.reference]
        last = len(doomed) == len(here)
        used = set(in_use()) if last else set()
        going = set(image.layers) - needed_layers(without=image.digest) if last else set()
        if going & used and not force:
            raise ConflictError(
                f"cannot remove the image {reference}: a jail uses it",
                hint="remove the jail first (jailrun ls --all shows them), or use --force",
            )
        for path in doomed:
            path.unlink(missing_ok=True)
        removed = [f"untagged {pointers[path][0]}" for path in doomed]
        if last:
            Path(lookup.manifest_path(image.digest)).unlink(missing_ok=True)
            removed.append(f"deleted {image.digest}")
            for layer in sorted(going - used):
                _remove_layer(Path(layer).parent)
                removed.append(f"deleted layer {Path(layer).parent.name}")
    return removed


def prune(in_use: InUse) -> list[str]:
    """Remove images without a name, and layers without an image, that no jail uses."""
    removed = []
    with _store_lock():
        clean()
        used = set(in_use())
        pointers = read_pointers()
        for path, (reference, _) in list(pointers.items()):
            if path.parent.name == "archives" and not Path(reference).exists():
                path.unlink(missing_ok=True)
                del pointers[path]
        named = {digest for _, digest in pointers.values()}
        for digest in manifest_digests():
            if digest in named or used & set(_layers_of(digest)):
                continue
            Path(lookup.manifest_path(digest)).unlink(missing_ok=True)
            removed.append(f"deleted {digest}")
        kept = needed_layers() | used
        for folder in sorted((_root() / "layers").iterdir()):
            if str(folder / "tree") not in kept:
                _remove_layer(folder)
                removed.append(f"deleted layer {folder.name}")
    return removed


def _remove_layer(folder: Path) -> None:
    """Move a layer out of the way in one step, then delete it."""
    doomed = _root() / "tmp" / secrets.token_hex(8)
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        _sync_folder(folder.parent)
    _remove_tree(doomed)


def _layers_of(digest: str) -> tuple[str, ...]:
    try:
        text = Path(lookup.manifest_path(digest)).read_bytes()
        return tuple(lookup.layer_path(layer) for layer in jsontext.loads(text)["layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"cannot read the manifest {digest}: {error}") from error


def needed_layers(without: str = "") -> set[str]:
    digests = [digest for digest in manifest_digests() if digest != without]
    return {layer for digest in digests for layer in _layers_of(digest)}
