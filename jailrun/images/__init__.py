"""Images: the root file systems that jails share read-only.

Owns: the store, recipes, import of archives.  Out of scope: mounting (`jailrun.rootfs`).

Importing this package costs only `lookup`, which every start needs; the rest is imported when it
is first used.

==================  ==============================================================
`resolve`           find an image that is there (well under a millisecond)
`ensure`            the same, and build or import it where it is not
`build`             follow a recipe
`import_tar`        take the tar file of a root file system into the store
`list_images`, `inspect`, `remove`, `prune`, `disk_usage`    keep the store
==================  ==============================================================
"""

from __future__ import annotations

from jailrun.images.lookup import Image, MissingImageError, is_path, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.images.archive import import_tar as import_tar
    from jailrun.images.builder import build as build
    from jailrun.images.builder import ensure as ensure
    from jailrun.images.catalog import disk_usage as disk_usage
    from jailrun.images.catalog import inspect as inspect
    from jailrun.images.catalog import list_images as list_images
    from jailrun.images.progress import Progress as Progress
    from jailrun.images.progress import Silent as Silent
    from jailrun.images.recipe import recipe_names as recipe_names
    from jailrun.images.store import prune as prune
    from jailrun.images.store import remove as remove

_HOMES = {
    "build": "builder",
    "ensure": "builder",
    "import_tar": "archive",
    "Progress": "progress",
    "Silent": "progress",
    "recipe_names": "recipe",
    "disk_usage": "catalog",
    "inspect": "catalog",
    "list_images": "catalog",
    "prune": "store",
    "remove": "store",
}

__all__ = [
    "Image",
    "MissingImageError",
    "Progress",
    "Silent",
    "build",
    "disk_usage",
    "ensure",
    "import_tar",
    "inspect",
    "is_path",
    "list_images",
    "prune",
    "recipe_names",
    "remove",
    "resolve",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{home}", fromlist=[name])
    value = getattr(module, name)
    globals()[name] = value
    return value
