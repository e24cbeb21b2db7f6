"""References, and finding what they mean."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import ImageError, NotFoundError
from jailrun.images import lookup
from jailrun.images.archive import import_tar
from tests.unit.images.make import write_archive

HEAVY = {"pathlib", "subprocess", "json", "re", "typing", "dataclasses", "tarfile", "tomllib"}


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("busybox", "busybox"),
        ("busybox:latest", "busybox"),
        ("team/web:1.2-RC", "team/web:1.2-RC"),
        ("a.b_c-d/e", "a.b_c-d/e"),
    ],
)
def test_normal_form(reference: str, name: str) -> None:
    assert lookup.normalise(reference) == name


@pytest.mark.parametrize(
    "reference",
    [
        *("", " ", "A", "a/../b", "a/./b", "a//b", "a/", "a:", "a:b:c", "a:.b", "a:-b", "a b"),
        *("a\n", "a\0", "_a", "-a", "é", "a%2F", "x" * 201, "a:" + "x" * 200, "a:t/x"),
    ],
)
def test_what_is_no_name(reference: str) -> None:
    with pytest.raises(ImageError, match="not the name of an image"):
        lookup.resolve(reference)


@given(
    st.from_regex(
        r"[a-z0-9][a-z0-9._-]{0,20}(/[a-z0-9][a-z0-9._-]{0,9})?(:[A-Za-z0-9_]{1,9})?",
        fullmatch=True,
    )
)
def test_a_name_and_its_file_stand_for_each_other(reference: str) -> None:
    name = lookup.normalise(reference)
    assert lookup.reference_of(lookup.file_name(name)) == name
    assert "/" not in lookup.file_name(name)
    assert lookup.normalise(name) == name


@given(st.text())
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        name = lookup.normalise(text)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert "/" not in lookup.file_name(name)


def test_a_folder_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    for reference in ("./root", str(tmp_path / "root"), "./x/../root"):
        image = lookup.resolve(reference)
        assert (image.root, image.layers, image.digest) == (str(tmp_path / "root"), (), "")
    assert lookup.resolve(".").root == str(tmp_path)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file"):
        lookup.resolve(str(tmp_path / "missing"))
    with pytest.raises(ImageError, match="neither a folder nor a regular file"):
        lookup.resolve("/dev/null")
    with pytest.raises(ImageError, match="not the path"):
        lookup.resolve("./a\0b")


def test_a_missing_image_names_the_path_it_may_have_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lookup.MissingImageError) as caught:
        lookup.resolve("root")
    assert "./root" in (caught.value.hint or "")


def test_a_stored_image(tmp_path: Path) -> None:
    made = import_tar(write_archive(tmp_path / "a"), "test", config={"cmd": ["sh"]})
    for reference in ("test", "test:latest", made.digest):
        image = lookup.resolve(reference)
        assert image.digest == made.digest
        assert image.config == {"cmd": ["sh"]}
        assert image.root is None
        assert all(Path(layer).is_dir() for layer in image.layers)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"layers": 3}', '{"layers": []}', "\xff", "null"]
)
def test_a_damaged_manifest_is_an_error_in_words(tmp_path: Path, text: str) -> None:
    image = import_tar(write_archive(tmp_path / "a"), "test")
    Path(lookup.manifest_path(image.digest)).write_text(text, encoding="latin-1")
    with pytest.raises(ImageError, match="damaged"):
        lookup.resolve("test")


def test_a_damaged_store(tmp_path: Path) -> None:
    image = import_tar(write_archive(tmp_path / "a"), "test")
    Path(image.layers[0]).rename(tmp_path / "away")
    with pytest.raises(ImageError, match="cannot read its layer"):
        lookup.resolve("test")
    Path(lookup.manifest_path(image.digest)).unlink()
    with pytest.raises(ImageError, match="manifest"):
        lookup.resolve("test")
    Path(lookup.reference_path("test")).write_text("sha256:../../x\n")
    with pytest.raises(ImageError, match="holds no digest"):
        lookup.resolve("test")


@pytest.mark.runs_programs
def test_a_look_up_imports_nothing_heavy(tmp_path: Path) -> None:
    import_tar(write_archive(tmp_path / "a"), "test")
    code = (
        "import sys; from jailrun.images import resolve; resolve('test'); "
        "print('\\n'.join(sys.modules))"
    )
    root = Path(lookup.__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r}); {code}",
        ],
        env={"JAILRUN_DATA": os.environ["JAILRUN_DATA"]},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(HEAVY), sorted(loaded & HEAVY)
    assert {name for name in loaded if name.startswith("jailrun")} == {
        *("jailrun", "jailrun.errors", "jailrun.images", "jailrun.images.lookup"),
        *("jailrun.jsontext", "jailrun.paths"),
    }
