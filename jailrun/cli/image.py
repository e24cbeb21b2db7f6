"""The verbs of images: build, import, ls, inspect, rm, prune.

Owns: their options and what they print.  Out of scope: the store (`jailrun.images`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from jailrun import images
from jailrun.cli import output
from jailrun.cli.complete import complete_image, complete_recipe
from jailrun.engine.record import Lock, list_names
from jailrun.errors import JailError
from jailrun.units import format_size_about

DIGEST_WIDTH = 12  # hexadecimal digits shown in a table; any 8 that are unambiguous name an image

Reference = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Name or digest.", autocompletion=complete_image)
]
References = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE…", help="Names or digests.", autocompletion=complete_image),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the digest alone.")]


def build(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FOLDER",
            help="A recipe's name, or a folder (with / or .) with a recipe.toml.",
            autocompletion=complete_recipe,
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Build an image anew from its recipe.

    Its content comes from the distribution's packages.  It replaces the one of that name; jails
    that run go on with the old one.

    \b
    Examples:
      jailrun image build debian
      jailrun image build ./my-recipe
    """
    _make(lambda progress: images.build(name, progress), quiet=quiet)


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Tar file of a root file system, or .gz, .xz …")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The image's name to be.")],
    devices: Annotated[
        bool, typer.Option("--devices", help="Keep device nodes, which are refused otherwise.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make an image of the tar file of a root file system.

    \b
    Example:
      jailrun image import ./rootfs.tar.xz team/web:1.2
    """
    _make(lambda progress: images.import_tar(file, name, progress, devices=devices), quiet=quiet)


def _make(make: Any, *, quiet: bool) -> None:
    if quiet:
        image = make(images.Silent())
    else:
        with output.ProgressLine() as progress:
            image = make(progress)
    output.write_line(image.digest if quiet else f"{image.reference}  {image.digest}")


def ls(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Names alone.")] = False,
    format: Annotated[
        Literal["table", "json"], typer.Option("--format", help="How to print it.")
    ] = "table",
) -> None:
    """List the images in the store.

    SIZE is what an image takes on the disk; layers that several share are counted for each.

    \b
    Example:
      jailrun image ls
    """
    found = images.list_images()
    if quiet:
        for image in found:
            output.write_line(image.reference)
        return
    sizes = {image.digest: images.disk_usage(image).total_bytes for image in found}
    if format == "json":
        output.write_json(
            [
                {
                    "name": None if image.reference == image.digest else image.reference,
                    "digest": image.digest,
                    "size_bytes": sizes[image.digest],
                    "created": image.created,
                    "architecture": image.architecture,
                }
                for image in found
            ]
        )
        return
    rows = [
        (
            "-" if image.reference == image.digest else image.reference,
            image.digest.removeprefix("sha256:")[:DIGEST_WIDTH],
            format_size_about(sizes[image.digest]),
            image.created[:10] or "-",
        )
        for image in found
    ]
    output.write_table(("NAME", "DIGEST", "SIZE", "CREATED"), rows)


def inspect(references: References) -> None:
    """Print all that is known of images as JSON.

    \b
    Example:
      jailrun image inspect busybox
    """
    found: list[dict[str, Any]] = []
    output.for_each(
        references,
        lambda reference: found.append(images.inspect(reference)),
        show=False,
        after=lambda: output.write_json(found),
    )


def rm(
    references: References,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Even if a jail uses it; prune frees the rest.")
    ] = False,
) -> None:
    """Remove images.

    An image that a jail uses, even a stopped one, is kept, unless it has another name.

    \b
    Example:
      jailrun image rm busybox
    """

    def remove(reference: str) -> None:
        for line in images.remove(reference, layers_in_use, force=force):
            output.write_line(line)

    output.for_each(references, remove, show=False)


def prune() -> None:
    """Remove what no name and no jail refers to.

    That is images that lost their name to a newer one, and layers of no image.

    \b
    Example:
      jailrun image prune
    """
    for line in images.prune(layers_in_use):
        output.write_line(line)


def layers_in_use() -> set[str]:
    """Return the layers of all jails, the stopped ones too."""
    used: set[str] = set()
    for name in list_names():
        try:
            with Lock(name) as record:  # a start in progress has not written its config yet
                config = record.read_config()
        except (JailError, OSError, ValueError):
            continue  # removed meanwhile
        used.update(config.get("jailrun", {}).get("layers", []))
    return used
