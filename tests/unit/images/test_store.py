"""The store: names, removal, leftovers, locks."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from jailrun.errors import ConflictError, ImageError, NotFoundError
from jailrun.images import catalog, lookup, store
from jailrun.images.archive import import_archive, import_tar
from jailrun.images.lookup import Image
from tests.unit.images.make import SMALL, Member, write_archive


def nothing() -> set[str]:
    """Return that no layer is in use."""
    return set()


def add(tmp_path: Path, name: str, text: str) -> Image:
    """Add an image whose content is ``text``."""
    path = write_archive(tmp_path / "a.tar", [*SMALL, Member("text", data=text.encode())])
    return import_tar(path, name)


def root() -> Path:
    """Return the store's folder."""
    return Path(lookup.reference_path("x")).parents[1]


def test_folders_can_be_passed_and_not_listed(tmp_path: Path) -> None:
    image = add(tmp_path, "a", "1")
    folder = Path(image.layers[0])
    assert folder.stat().st_mode & 0o777 == 0o755
    while folder != root().parent:
        folder = folder.parent
        assert folder.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_makes_no_difference(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        image = add(tmp_path, "a", "1")
    finally:
        os.umask(before)
    assert Path(image.layers[0]).stat().st_mode & 0o777 == 0o755
    assert Path(lookup.manifest_path(image.digest)).stat().st_mode & 0o777 == 0o644
    assert image.layers == add(tmp_path, "b", "1").layers


def test_equal_content_is_stored_once(tmp_path: Path) -> None:
    first, second = add(tmp_path, "a", "1"), add(tmp_path, "b", "1")
    assert first.layers == second.layers
    assert [image.reference for image in catalog.list_images()] == ["a", "b"]
    usage = catalog.disk_usage(lookup.resolve("a"))
    assert usage.shared_bytes == usage.total_bytes > 0
    assert catalog.disk_usage().total_bytes >= usage.total_bytes
    store.remove("a", nothing)
    assert Path(second.layers[0]).is_dir()
    store.remove("b", nothing)
    assert not Path(second.layers[0]).exists()
    assert list((root() / "manifests").iterdir()) == []
    with pytest.raises(NotFoundError):
        store.remove("b", nothing)


def test_an_image_in_use_stays(tmp_path: Path) -> None:
    image = add(tmp_path, "a", "1")
    with pytest.raises(ConflictError, match="a jail uses it") as caught:
        store.remove("a", lambda: set(image.layers))
    assert caught.value.hint
    assert lookup.resolve("a").digest == image.digest
    store.remove("a", lambda: set(image.layers), force=True)
    assert Path(image.layers[0]).is_dir()
    assert store.prune(lambda: set(image.layers)) == []
    assert len(store.prune(nothing)) == 1
    assert not Path(image.layers[0]).exists()


def test_a_name_can_go_while_another_keeps_the_image_in_use(tmp_path: Path) -> None:
    image = add(tmp_path, "a", "1")
    Path(lookup.reference_path("b")).write_text(f"{image.digest}\n")
    store.remove("a", lambda: set(image.layers))
    assert lookup.resolve("b").layers == image.layers


def test_an_image_that_lost_its_name_is_listed_and_pruned(tmp_path: Path) -> None:
    old, new = add(tmp_path, "a", "1"), add(tmp_path, "a", "2")
    references = [image.reference for image in catalog.list_images()]
    assert references == ["a", old.digest]
    assert catalog.inspect(old.digest[:20])["digest"] == old.digest
    assert catalog.inspect(old.digest[7:17])["names"] == []
    removed = store.prune(nothing)
    assert len(removed) == 2
    assert [image.digest for image in catalog.list_images()] == [new.digest]


def test_removal_by_digest_removes_every_name(tmp_path: Path) -> None:
    image = add(tmp_path, "a", "1")
    Path(lookup.reference_path("b")).write_text(f"{image.digest}\n")
    store.remove(image.digest[:19], nothing)
    assert catalog.list_images() == []


def test_removal_of_an_imported_archive(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar")
    import_archive(path)
    store.remove(str(path), nothing)
    assert catalog.list_images() == []
    import_archive(path)
    path.unlink()
    store.prune(nothing)
    assert catalog.list_images() == []


def test_a_folder_is_not_the_stores_to_remove(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="used in place"):
        store.remove(str(tmp_path), nothing)
    assert tmp_path.is_dir()


def test_leftovers_are_removed_and_work_in_progress_is_not(tmp_path: Path) -> None:
    with store.workspace() as busy:
        (busy.path / "tree").mkdir()
        dead = root() / "tmp/dead"
        (dead / "tree/proc").mkdir(parents=True)
        (root() / "tmp/dead.new").write_text("half")
        (root() / "tmp/link").symlink_to(tmp_path)
        with store.workspace() as other:
            assert sorted((root() / "tmp").iterdir()) == sorted([busy.path, other.path])
    assert list((root() / "tmp").iterdir()) == []
    assert tmp_path.is_dir()


def test_the_tools_of_a_dead_owner_are_waited_for() -> None:
    dead = store.open_store() / "tmp/dead"
    dead.mkdir()
    done = threading.Event()

    def clean() -> None:
        with store.workspace():
            done.set()

    with (dead / "tools.lock").open("w") as tool:
        fcntl.flock(tool, fcntl.LOCK_EX)
        thread = threading.Thread(target=clean)
        thread.start()
        assert dead.exists()
        assert not done.is_set()
    thread.join()
    assert done.is_set()
    assert not dead.exists()


def test_a_lock_tells_who_had_to_wait() -> None:
    told = threading.Event()
    answers = []

    def second() -> None:
        with store.hold_lock("name", told.set) as waited:
            answers.append(waited)

    thread = threading.Thread(target=second)
    with store.hold_lock("name") as waited:
        answers.append(waited)
        thread.start()
        assert told.wait(30)
    thread.join()
    assert answers == [False, True]


def test_a_store_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAILRUN_DATA", str(tmp_path / "file/x"))
    with pytest.raises(ImageError, match="cannot make the image store"):
        store.open_store()


def test_an_ambiguous_digest(tmp_path: Path) -> None:
    add(tmp_path, "a", "1")
    folder = root() / "manifests"
    for digit in "12":
        (folder / f"sha256-{'0' * 63}{digit}.json").write_text("{}")
    with pytest.raises(ImageError, match="start of 2 images"):
        store.find("sha256:00000000")
