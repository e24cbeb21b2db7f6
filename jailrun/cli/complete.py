"""What the shell can complete: names of jails, images and networks.

Owns: the functions that the verbs' arguments name.  They never fail: at worst there is nothing to
complete, as for users who may not read the records.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from jailrun.engine.record import list_names
from jailrun.engine.state import ALIVE, list_records
from jailrun.errors import JailError

if TYPE_CHECKING:
    from collections.abc import Iterable


def _starting(names: Iterable[str], start: str) -> list[str]:
    return sorted({name for name in names if name.startswith(start)})


def complete_any(incomplete: str) -> list[str]:
    """Return the names of all jails."""
    with suppress(JailError, OSError):
        return _starting(list_names(), incomplete)
    return []


def complete_running(incomplete: str) -> list[str]:
    """Return the names of the jails that are not stopped."""
    with suppress(JailError, OSError):
        running = (record.name for record, status in list_records() if status in ALIVE)
        return _starting(running, incomplete)
    return []


def complete_image(incomplete: str) -> list[str]:
    """Return the names of the images in the store."""
    from jailrun.images.catalog import list_images

    with suppress(JailError, OSError):
        return _starting((image.reference for image in list_images()), incomplete)
    return []


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names of the recipes."""
    from jailrun.images.recipe import recipe_names

    with suppress(JailError, OSError):
        return _starting(recipe_names(), incomplete)
    return []


def complete_network(incomplete: str) -> list[str]:
    """Return the names of the networks."""
    from jailrun.net.definition import list_names as list_networks

    with suppress(JailError, OSError):
        return _starting(list_networks(), incomplete)
    return []


def complete_net(incomplete: str) -> list[str]:
    """Return what --net can be: its words, the networks, and jails whose network to share."""
    words = ["none", "host", "default", "shared:", "device:", "ns:"]
    return _starting(
        [*words, *complete_network(""), *(f"jail:{name}" for name in complete_running(""))],
        incomplete,
    )
