"""Find the image that a reference means: the one part of the image store that every start runs.

Owns: what a reference is, where the store keeps what, `Image` and `resolve`.  Lean: it reads one
small file for the reference and one for the manifest, and imports nothing that costs time.
Out of scope: everything that writes (`jailrun.images.store`), and making an image that is missing
(`jailrun.images.ensure`).

The store, below ``paths.images_dir()`` (each folder 0711: an overlay of a jail reaches its layers
by descriptor, and nobody lists what is there)::

    layers/sha256-<hex>/tree/      one read-only tree, named by the digest of its content
    manifests/sha256-<hex>.json    one image: its layers, top first, and its configuration
    refs/<name>                    the digest of the manifest that a name stands for
    archives/<file identity>       the same for a tar file that was run by its path
    tmp/                           work in progress, each folder locked by its owner
    locks/                         one lock for each name being built, one for the store
"""
# Every start runs this, and importing pathlib costs more than the look-up.
# ruff: noqa: PTH100, PTH110, PTH116, PTH123

from __future__ import annotations

import os
import stat

from jailrun import jsontext, paths
from jailrun.errors import ImageError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT_TAG = ":latest"
_LONGEST_NAME = 200  # characters; a name is also the name of a file
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALLOWED = _FIRST | frozenset("._-/")
_ALLOWED_IN_TAG = _FIRST | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ._-")
_HEX = frozenset("0123456789abcdef")


class Image:
    """One image, ready to be the root of a jail.

    ``reference``  what it was asked for by, in its normal form
    ``digest``     ``sha256:<hex>`` of its manifest; empty for a plain folder
    ``layers``     absolute paths of the read-only trees, top first; empty for a plain folder
    ``root``       absolute path of a plain folder that is used in place; None for a stored image
    ``config``     ``env``, ``entrypoint``, ``cmd`` (lists of strings), ``user``, ``workdir``,
                   ``stop_signal``, ``exposed_ports``, ``labels``; a key is absent where the
                   image does not say
    ``created``, ``architecture``, ``recipe``  from the manifest; empty where unknown
    """

    __slots__ = (
        "architecture",
        "config",
        "created",
        "digest",
        "layers",
        "recipe",
        "reference",
        "root",
    )

    def __init__(
        self,
        reference: str,
        *,
        digest: str = "",
        layers: tuple[str, ...] = (),
        root: str | None = None,
        config: dict[str, Any] | None = None,
        created: str = "",
        architecture: str = "",
        recipe: str = "",
    ) -> None:
        self.reference = reference
        self.digest = digest
        self.layers = layers
        self.root = root
        self.config: dict[str, Any] = config or {}
        self.created = created
        self.architecture = architecture
        self.recipe = recipe

    def __repr__(self) -> str:
        return f"Image({self.reference!r}, digest={self.digest!r}, root={self.root!r})"


class MissingImageError(NotFoundError):
    """The reference is well formed and the store holds nothing for it (yet)."""


def is_path(reference: str) -> bool:
    """Tell whether ``reference`` means a folder or a file, rather than a name in the store."""
    return reference.startswith(("/", "."))


def parse_name(reference: str) -> tuple[str, str]:
    """Split the name of an image into name and tag (``latest`` where none is given).

    Raises ImageError for anything but ``[a-z0-9][a-z0-9._/-]*(:tag)?``; a component may be
    neither empty nor ``.`` nor ``..``.
    """
    name, colon, tag = reference.partition(":")
    valid = (
        name[:1] in _FIRST
        and _ALLOWED.issuperset(name)
        and not any(part in {"", ".", ".."} for part in name.split("/"))
        and len(reference) <= _LONGEST_NAME
        and (not colon or (tag[:1] not in {"", ".", "-"} and _ALLOWED_IN_TAG.issuperset(tag)))
    )
    if not valid:
        shown = reference if len(reference) <= 60 else reference[:57] + "…"
        raise ImageError(
            f"{shown!r} is not the name of an image",
            hint="a name is like busybox or team/web:1.2; a path starts with / or ./",
        )
    return name, tag or _DEFAULT_TAG[1:]


def normalise(reference: str) -> str:
    """Return the name under which the store keeps ``reference``: without the tag ``latest``."""
    name, tag = parse_name(reference)
    return name if tag == _DEFAULT_TAG[1:] else f"{name}:{tag}"


def file_name(reference: str) -> str:
    """Return the file name that stands for a normalised reference."""
    return reference.replace("/", "%2F").replace(":", "%3A")


def reference_of(name: str) -> str:
    """Return the reference for which `file_name` returned ``name``."""
    return name.replace("%3A", ":").replace("%2F", "/")


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is a whole digest, ``sha256:`` and 64 hexadecimal digits."""
    return len(text) == 71 and text.startswith("sha256:") and _HEX.issuperset(text[7:])


def manifest_path(digest: str) -> str:
    """Return the path of the manifest with that digest."""
    return f"{paths.images_dir()}/manifests/{digest.replace(':', '-')}.json"


def layer_path(digest: str) -> str:
    """Return the path of the tree of the layer with that digest."""
    return f"{paths.images_dir()}/layers/{digest.replace(':', '-')}/tree"


def reference_path(reference: str) -> str:
    """Return the path of the file that says which manifest a normalised reference means."""
    return f"{paths.images_dir()}/refs/{file_name(reference)}"


def archive_path(status: os.stat_result) -> str:
    """Return the path of the file that says as which manifest an archive was imported.

    The archive is known by device, inode, size and both times: changed in any way, it is another.
    """
    identity = (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    return f"{paths.images_dir()}/archives/{'-'.join([f'{number:x}' for number in identity])}"


def resolve(reference: str) -> Image:
    """Return the image that ``reference`` means.

    A path of a folder is used in place, a path of a file is a root file system archive; anything
    else is a name in the store, or a whole digest.  Raises `MissingImageError` where the image
    could exist but has to be made first (see `jailrun.images.ensure`), ImageError otherwise.
    """
    if is_path(reference):
        return _resolve_path(reference)
    if is_digest(reference):
        return load(reference, reference)
    name = normalise(reference)
    digest = read_pointer(reference_path(name))
    if digest is None:
        hint = None
        if os.path.exists(reference):
            hint = f"to use the file or folder {reference} of the current folder, say ./{reference}"
        raise MissingImageError(f"there is no image {name}", hint=hint)
    return load(name, digest)


def _resolve_path(reference: str) -> Image:
    path = os.path.abspath(reference)
    try:
        status = os.stat(path)
    except OSError as error:
        raise NotFoundError(
            f"cannot use {reference} as an image: {os.strerror(error.errno or 0)}",
            hint="give the path of a folder with a root file system, or of its tar file",
        ) from error
    except ValueError:  # a NUL within the path
        raise ImageError(f"{reference!r} is not the path of an image") from None
    if stat.S_ISDIR(status.st_mode):
        return Image(reference, root=path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(
            f"cannot use {reference} as an image: it is neither a folder nor a regular file"
        )
    digest = read_pointer(archive_path(status))
    if digest is None:
        raise MissingImageError(f"the archive {reference} has not been imported")
    return load(reference, digest)


def read_pointer(path: str) -> str | None:
    """Return the digest that the file at ``path`` holds in its first line; None without it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            digest = file.readline().rstrip("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    if not is_digest(digest):
        raise ImageError(f"the image store is damaged: {path} holds no digest", hint=_REPAIR)
    return digest


_REPAIR = "remove that file and build or import the image again"


def load(reference: str, digest: str) -> Image:
    """Return the image whose manifest has that digest, under the name ``reference``."""
    path = manifest_path(digest)
    try:
        with open(path, "rb") as file:
            manifest = jsontext.loads(file.read())
        layers = tuple([layer_path(layer) for layer in manifest["layers"]])
        image = Image(
            reference,
            digest=digest,
            layers=layers,
            config=manifest["config"],
            created=manifest["created"],
            architecture=manifest["architecture"],
            recipe=manifest["recipe"],
        )
    except FileNotFoundError:
        if reference == digest:
            raise MissingImageError(f"there is no image {digest}") from None
        raise ImageError(
            f"the image {reference} is damaged: its manifest {digest} is missing",
            hint=f"jailrun image rm {reference}, then build or import it again",
        ) from None
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the image store is damaged: {path}: {error}", hint=_REPAIR) from error
    for layer in layers:
        try:
            os.stat(layer)
        except OSError as error:
            raise ImageError(
                f"the image {reference} is damaged: cannot read its layer {layer}: "
                f"{error.strerror}",
                hint=f"jailrun image rm {reference}, then build or import it again",
            ) from error
    return image
