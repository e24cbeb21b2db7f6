"""Recipes: the project's own, and ones that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jailrun.errors import ImageError
from jailrun.images import builder, recipe
from jailrun.images.lookup import MissingImageError

GOOD = """
[image]
name = "mine"
[build]
base = "scratch"
folders = ["a"]
[config]
cmd = ["sh"]
"""


def write(folder: Path, text: str) -> Path:
    """Write a recipe; return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(text)
    return folder


def test_the_projects_own_recipes_are_valid() -> None:
    assert {"busybox", "debian"} <= set(recipe.recipe_names())
    assert recipe.find_recipe("busybox").config["cmd"] == ["sh"]
    assert recipe.find_recipe("debian:trixie").build["base"] == "debootstrap"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[image]", "[image", "recipe.toml"),
        ('base = "scratch"', "", "build.base"),
        ("scratch", "debootstrap", "build.mirror: the base debootstrap needs one"),
        ("scratch", "magic", "scratch, debootstrap"),
        ("folders =", "folder =", "build.folder: unknown key"),
        ('["a"]', '"a"', "build.folders: a list of strings"),
        ('["a"]', '["../a"]', "not a path within the image"),
        ('["a"]', '["/a"]', "not a path within the image"),
        ('["a"]', '[""]', "not a path within the image"),
        ("[config]", "[other]", "other: unknown key"),
        ('["sh"]', "[1]", "config.cmd: a list of strings"),
        ('name = "mine"', 'name = "Mine"', "not the name of an image"),
        ('folders = ["a"]', 'modes = {"a" = "0888"}', "octal"),
        ('folders = ["a"]', 'modes = {"a" = 644}', "octal"),
        ('folders = ["a"]', 'packages = ["-x"]', "package"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    folder = write(tmp_path / "r", GOOD.replace(old, new))
    with pytest.raises(ImageError, match=said):
        recipe.read_recipe(folder)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", "")
    (folder / "recipe.toml").write_bytes(b"\xff")
    with pytest.raises(ImageError, match=r"recipe\.toml"):
        recipe.read_recipe(folder)


def test_the_digest_covers_all_that_counts(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", GOOD)
    digests = {recipe.read_recipe(folder).digest}
    (folder / "files").mkdir()
    (folder / "files/a").write_text("1")
    digests.add(recipe.read_recipe(folder).digest)
    (folder / "files/a").chmod(0o755)
    digests.add(recipe.read_recipe(folder).digest)
    (folder / "files/a").rename(folder / "files/b")
    digests.add(recipe.read_recipe(folder).digest)
    (folder / "files/c").symlink_to("b")
    digests.add(recipe.read_recipe(folder).digest)
    write(folder, GOOD + "\n")
    digests.add(recipe.read_recipe(folder).digest)
    assert len(digests) == 6


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(MissingImageError, match="no image and no recipe busibox") as caught:
        builder.ensure("busibox")
    assert "did you mean busybox" in (caught.value.hint or "")
    assert "debian" in (caught.value.hint or "")
    with pytest.raises(MissingImageError, match="takes no tag"):
        builder.ensure("busybox:1")
    with pytest.raises(MissingImageError, match=r"no recipe\.toml"):
        builder.build("./nowhere")


def test_a_recipe_without_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "mine", GOOD)
    (folder / "files/etc").mkdir(parents=True)
    (folder / "files/etc/motd").write_text("hello")
    monkeypatch.setenv("JAILRUN_RECIPES", str(tmp_path))
    image = builder.ensure("mine")
    tree = Path(image.layers[0])
    assert (tree / "etc/motd").read_text() == "hello"
    assert (tree / "a").is_dir()
    assert image.config == {"cmd": ["sh"]}
    assert builder.build("mine").digest == image.digest
    assert builder.build(str(folder)).digest == image.digest


@pytest.mark.parametrize(
    "key",
    [
        'empty = ["out/kept"]',
        'modes = { "out/kept" = "0777" }',
        'modes = { "out" = "0777" }',
        'remove = ["out/*"]',
        'remove = ["*/kept"]',
        "",  # and a file below files/
    ],
)
def test_a_recipe_cannot_reach_the_hosts_files_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "kept").write_text("kept")
    folder = write(tmp_path / "mine", f'[build]\nbase = "scratch"\n{key}\n')
    (folder / "files").mkdir()
    (folder / "files/out").symlink_to(outside)
    if not key:
        # The link comes first in the order of names, the file below it in a second pass.
        (folder / "files/out").unlink()
        (folder / "files/out").mkdir()
        (folder / "files/out/new").write_text("new")
        monkeypatch.setattr(builder, "_make_scratch", _link_out(outside))
    monkeypatch.setenv("JAILRUN_RECIPES", str(tmp_path))
    with pytest.raises(ImageError, match="link"):
        builder.ensure("mine")
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o700


def _link_out(outside: Path) -> Callable[..., int]:
    def make(_recipe: object, _space: object, tree: Path, _progress: object) -> int:
        (tree / "out").symlink_to(outside)
        return 0

    return make
