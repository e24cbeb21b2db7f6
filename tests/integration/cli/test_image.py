"""The verbs of images, on the store of the session."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailrun import images
from jailrun.images import Image
from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.cli.test_servers import start_detached

pytestmark = pytest.mark.usefixtures("no_jails_stay")


@pytest.fixture
def archive(tmp_path: Path, busybox: Image) -> Iterator[Path]:
    """Return the tar file of a root; images made of it go at the end of the test."""
    (tmp_path / "only-here").write_text(str(tmp_path))
    path = tmp_path / "root.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(Path(busybox.layers[0]) / "bin/busybox", "bin/busybox")
        tar.add(tmp_path / "only-here", "only-here")
    yield path
    for image in images.list_images():
        if image.reference != "busybox":
            images.remove(image.reference, lambda: set())
    images.prune(lambda: set())


def test_list(busybox: Image) -> None:
    heading, line = output_of("image", "ls").splitlines()
    assert heading.split() == ["NAME", "DIGEST", "SIZE", "CREATED"]
    assert line.split()[:2] == ["busybox", busybox.digest[7:19]]
    (found,) = json.loads(output_of("image", "ls", "--format", "json"))
    assert found["name"] == "busybox"
    assert found["digest"] == busybox.digest
    assert 1 << 20 < found["size_bytes"] < 1 << 24
    assert output_of("image", "ls", "-q") == "busybox\n"


def test_inspect(busybox: Image) -> None:
    (found,) = json.loads(output_of("image", "inspect", "busybox"))
    assert found["layers"] == list(busybox.layers)
    assert_refused_with_list(jailrun("image", "inspect", "nope"))
    assert json.loads(output_of("image", "inspect", busybox.digest))[0]["names"] == ["busybox"]


def assert_refused_with_list(done: object) -> None:
    """Assert that what was not found is said, and that the list of the rest is JSON."""
    assert done.returncode == 125  # type: ignore[attr-defined]
    assert "there is no image nope" in done.stderr  # type: ignore[attr-defined]
    assert json.loads(done.stdout) == []  # type: ignore[attr-defined]


def test_import_run_and_remove(archive: Path, name: str) -> None:
    done = jailrun("image", "import", str(archive), "team/own:1.2")
    assert done.returncode == 0
    assert done.stdout.startswith("team/own:1.2  sha256:")
    assert "jailrun: unpack root.tar.gz\n" in done.stderr
    assert "\r" not in done.stderr
    start_detached(name, "/bin/busybox", "sleep", "1000", image="team/own:1.2")
    assert_refused(jailrun("image", "rm", "team/own:1.2"), "a jail uses it")
    output_of("stop", name)
    assert_refused(jailrun("image", "rm", "team/own:1.2"), "a jail uses it")
    assert "untagged team/own:1.2" in output_of("image", "rm", "--force", "team/own:1.2")
    assert output_of("image", "prune") == ""  # the jail still has the layer
    output_of("rm", name)
    assert output_of("image", "prune").startswith("deleted layer sha256-")
    assert output_of("image", "ls", "-q") == "busybox\n"
    assert_refused(jailrun("image", "rm", "team/own:1.2"), "there is no image")


def test_quiet_import(archive: Path) -> None:
    said = output_of("image", "import", "--quiet", str(archive), "own")
    assert said.startswith("sha256:")
    assert len(said) == 72


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("build", "nope"), "no image and no recipe nope"),
        (("build", "./nope"), "no recipe.toml"),
        (("build", "../"), "no recipe.toml"),
        (("build", ""), "is not the name of an image"),
        (("import", "/nope.tar", "own"), "No such file"),
        (("import", "/etc/passwd", "own"), "/etc/passwd"),
        (("import", "/etc/passwd", "../own"), "is not the name of an image"),
        (("import", "/proc", "own"), "not a regular file"),
        (("rm", "nope"), "there is no image"),
        (("rm", ".."), "folder used in place"),
        (("rm", "Nope"), "is not the name of an image"),
    ],
)
def test_bad_words(words: tuple[str, ...], text: str) -> None:
    done = jailrun("image", *words)
    assert done.returncode == 125
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
