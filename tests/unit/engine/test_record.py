"""Records: names, what is written and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun import paths
from jailrun.engine.identity import is_alive, read_stat
from jailrun.engine.record import (
    _FIELDS,
    Record,
    is_name,
    list_names,
    load,
    random_name,
    write_file,
)
from jailrun.errors import ConflictError, JailError, NotFoundError


@pytest.mark.parametrize("name", ["a", "A1", "web-1", "a.b_c-d", "0", "a" * 64])
def test_names(name: str) -> None:
    """What may be a name."""
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", "_a", ".a", "a/b", "a b", "a\n", "a\0", "ä", "a" * 65, "²"]
)
def test_not_names(name: str) -> None:
    """What may not."""
    assert not is_name(name)


@given(st.text(max_size=70))
def test_a_name_is_one_plain_file_name(name: str) -> None:
    """Nothing that is a name can lead anywhere."""
    if is_name(name):
        assert "/" not in name
        assert name not in (".", "..")
        assert name == name.strip()


def test_random_names() -> None:
    """Each is a name, and they differ."""
    names = {random_name() for _ in range(100)}
    assert len(names) == 100
    assert all(map(is_name, names))


def test_written_and_read() -> None:
    """All fields come back."""
    record = Record("web")
    record.claim()
    record.pid, record.start_time, record.labels = 5, 6, {"a": "ü"}
    record.cgroups = {"memory": "/x"}
    record.write()
    again = load("web")
    assert {field: getattr(again, field) for field in _FIELDS} == {
        field: getattr(record, field) for field in _FIELDS
    }
    assert list_names() == ["web"]
    record.remove_folder()
    record.remove_folder()
    assert list_names() == []
    with pytest.raises(NotFoundError):
        load("web")


def test_claim_takes_the_name() -> None:
    """Once."""
    Record("web").claim()
    with pytest.raises(ConflictError, match="the name web is taken"):
        Record("web").claim()


def test_unknown_names() -> None:
    """There is no jail of a name that is none."""
    for name in ("nobody", "../x", ""):
        with pytest.raises(NotFoundError):
            load(name)


def test_files_are_written_whole(tmp_path: Path) -> None:
    """A file is the old one or the new one, and no temporary stays."""
    path = tmp_path / "file"
    write_file(str(path), "one")
    write_file(str(path), "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with pytest.raises(JailError, match="cannot write"):
        write_file(str(tmp_path / "missing" / "file"), "x")


def test_damaged_record() -> None:
    """It is named."""
    record = Record("web")
    record.claim()
    Path(record.folder, "record.json").write_text("{")
    with pytest.raises(JailError, match="damaged"):
        load("web")


def test_folders_are_private() -> None:
    """Others may pass to the roots' meeting place, and see no record."""
    Record("web").claim()
    assert Path(paths.run_dir()).stat().st_mode & 0o777 == 0o711
    assert Path(paths.jails_dir()).stat().st_mode & 0o777 == 0o700


def test_identity() -> None:
    """A process is its pid and its start time, not its pid alone."""
    import os

    state, began = read_stat(os.getpid())
    assert state == "R"
    assert is_alive(os.getpid(), began)
    assert not is_alive(os.getpid(), began + 1)
    assert not is_alive(0, 0)
    assert not is_alive(2**22 + 1, 0)


def test_hooks_of_a_start_that_was_killed() -> None:
    """It has none to run where it was killed before its config was written."""
    record = Record("killed")
    record.has_hooks = True
    Path(record.folder).mkdir(parents=True)
    assert record.read_hooks() == {}
