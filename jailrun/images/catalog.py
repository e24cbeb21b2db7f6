"""What the image store holds: lists, details, sizes.

Owns: reading for people.  Out of scope: the look-up of a start (`jailrun.images.lookup`), changes
(`jailrun.images.store`).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jailrun.errors import ImageError
from jailrun.images import lookup
from jailrun.images.lookup import Image, MissingImageError
from jailrun.images.store import find, manifest_digests, needed_layers, open_store, read_pointers


@dataclass(frozen=True)
class Usage:
    """Bytes on disk of one image, or of the whole store."""

    total_bytes: int
    shared_bytes: int = 0


def list_images() -> list[Image]:
    """Return every image: by each of its names, and the ones that lost theirs by their digest.

    An image whose manifest is unreadable is left out; `jailrun.images.resolve` says what it lacks.
    """
    pointers = read_pointers().values()
    named = {digest for _, digest in pointers}
    nameless = [(digest, digest) for digest in manifest_digests() if digest not in named]
    images = []
    for reference, digest in [*sorted(pointers), *nameless]:
        with suppress(ImageError, MissingImageError):
            images.append(lookup.load(reference, digest))
    return images


def inspect(reference: str) -> dict[str, Any]:
    """Return all that is known of an image, as plain data for JSON."""
    image = find(reference)
    names = [name for name, digest in read_pointers().values() if digest == image.digest]
    return {
        "reference": image.reference,
        "names": names,
        "digest": image.digest,
        "root": image.root,
        "layers": list(image.layers),
        "config": image.config,
        "architecture": image.architecture,
        "created": image.created,
        "recipe": image.recipe,
        "size_bytes": disk_usage(image).total_bytes,
    }


def disk_usage(image: Image | None = None) -> Usage:
    """Return the bytes on disk of one image (and how many of them others share), or of all."""
    if image is None:
        return Usage(_folder_bytes(open_store()))
    sizes = {layer: _folder_bytes(Path(layer)) for layer in image.layers}
    shared = needed_layers(without=image.digest) if image.digest else set()
    return Usage(sum(sizes.values()), sum(size for layer, size in sizes.items() if layer in shared))


def _folder_bytes(folder: Path) -> int:
    """Return the bytes that a tree takes on its disk; each inode counts once."""
    seen = set()
    total = 0
    for parent, folders, files in os.walk(folder):
        for name in ["", *folders, *files] if parent == str(folder) else [*folders, *files]:
            try:
                status = Path(parent, name).lstat()
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EACCES}:
                    continue
                raise
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total
