"""Definitions of networks: names, what is written and read again, damaged files, locks."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun import paths
from jailrun.errors import ConflictError, NetworkError, NotFoundError
from jailrun.net import definition
from jailrun.net.definition import Lock, check_name, load, lock, lock_all, make_empty, save
from jailrun.spec.names import is_network_name


@pytest.mark.parametrize("name", ["default", "a", "0", "a-b_c", "a" * 15])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "letters a to z"),
        ("", "letters a to z"),
        (".a", "letters a to z"),
        ("-a", "letters a to z"),
        ("a.b", "letters a to z"),
        ("ä", "letters a to z"),
        ("a\n", "letters a to z"),
        ("a" * 16, "it has 16 characters, 15 are possible"),
        ("Web", "capital letters"),
        ("none", "a meaning of its own for --net"),
        ("host", "a meaning of its own for --net"),
        ("private", "a meaning of its own for --net"),
    ],
)
def test_not_names(name: str, why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        check_name(name)
    with pytest.raises(NetworkError, match=why):
        load(name)


@given(st.text(max_size=20))
def test_a_name_is_one_plain_file_name(name: str) -> None:
    if is_network_name(name):
        assert "/" not in name
        assert name.strip(".") == name
        assert name.isascii()


def test_what_is_saved_is_loaded() -> None:
    new = make_empty("web")
    new["subnet"], new["mtu"], new["created"] = "10.9.0.0/24", 1400, 12.5
    save(new)
    assert load("web") == new
    assert definition.list_names() == ["web"]
    assert definition.load_all() == [new]
    assert list_files() == ["web.json"]
    assert read_mode(paths.networks_dir()) == 0o700
    assert read_mode(definition.definition_path("web")) == 0o600


def test_removed_twice() -> None:
    save(make_empty("web"))
    definition.remove("web")
    definition.remove("web")
    assert definition.list_names() == []


def test_missing_network_says_what_to_type() -> None:
    with pytest.raises(NotFoundError, match="there is no network 'web'") as caught:
        load("web")
    assert "jailrun net ls" in str(caught.value.hint)
    assert "jailrun net create web" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expecting a value"),
        ('{"name": "web"', "line 1"),
        ("[]", "not a JSON object"),
        ('{"name": "db"}', "that of 'db'"),
        ("{}", "that of ''"),
        ('{"name": "web", "mtu": "x"}', "mtu is 'x'"),
        ('{"name": "web", "mtu": true}', "mtu is True"),
        ('{"name": "web", "internal": 1}', "internal is 1"),
        ('{"name": "web", "subnet": null}', "subnet is None"),
        ('{"name": "web", "driver": "vlan"}', "none of bridge, macvlan"),
    ],
)
def test_damaged_definition_names_the_file(text: str, why: str) -> None:
    save(make_empty("web"))
    path = Path(definition.definition_path("web"))
    path.write_text(text)
    with pytest.raises(NetworkError, match=why) as caught:
        load("web")
    assert str(path) in caught.value.message
    assert str(path) in str(caught.value.hint)
    assert definition.exists("web")
    assert definition.load_all() == []


def test_fields_that_a_file_lacks_are_empty() -> None:
    save(make_empty("web"))
    Path(definition.definition_path("web")).write_text('{"name": "web", "later": 1}')
    found = load("web")
    assert found == make_empty("web")
    found["reserved"].append("10.0.0.1")
    assert make_empty("db")["reserved"] == []


def test_names_of_other_files_are_passed_over() -> None:
    save(make_empty("web"))
    for name in (".web.new", "Web.json", "notes", "none.json"):
        Path(paths.networks_dir(), name).touch()
    assert definition.list_names() == ["web"]
    definition.remove_remains()
    assert list_files() == [
        "Web.json",
        "none.json",
        "notes",
        "web.json",
    ]


def test_taken_name() -> None:
    definition.refuse_taken("web")
    save(make_empty("web"))
    with pytest.raises(ConflictError, match="there is a network web already"):
        definition.refuse_taken("web")


def test_lock_is_on_the_run_folder_whatever_the_umask() -> None:
    before = os.umask(0o077)
    try:
        with lock("web"):
            folder = definition.run_folder("web")
            assert read_mode(folder) == 0o711
            assert read_mode(paths.network_runs_dir()) == 0o711
            assert is_locked(folder)
            assert not is_locked(paths.network_runs_dir())
        assert not is_locked(folder)
    finally:
        os.umask(before)
    assert definition.list_run_folders() == ["web"]
    with lock_all():
        assert is_locked(paths.network_runs_dir())


def test_folder_that_was_removed_while_we_waited_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = fcntl.flock
    seen: list[int] = []

    def removed_meanwhile(fd: int, operation: int) -> None:
        real(fd, operation)
        if not seen:
            Path(definition.run_folder("web")).rmdir()
        seen.append(fd)

    monkeypatch.setattr(definition, "flock", removed_meanwhile)
    with lock("web"):
        assert len(seen) == 2
        assert Path(definition.run_folder("web")).is_dir()
        assert is_locked(definition.run_folder("web"))


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(NetworkError, match="cannot lock"),
        Lock(str(tmp_path / "file" / "web")),
    ):
        pass


def list_files() -> list[str]:
    """Return the names of the files beside the definitions."""
    return sorted(path.name for path in Path(paths.networks_dir()).iterdir())


def read_mode(path: str) -> int:
    """Return the permissions of a file."""
    return Path(path).stat().st_mode & 0o777


def is_locked(folder: str) -> bool:
    """Tell whether somebody holds the lock of a folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
