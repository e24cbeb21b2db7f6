"""Hosts in trouble: a full disk, folders that cannot be written, file systems that cannot do it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names
from jailrun.errors import JailError, RootfsError
from tests.integration.jails import Build, Jails


@pytest.fixture
def mount_at(session_run: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return what mounts a file system on a new folder; unmounted after the test."""
    mounted: list[Path] = []

    def mount(kind: str, *options: str, source: str = "x") -> Path:
        point = session_run / f"{tmp_path.name}-{len(mounted)}"  # a jail's ids can pass there
        point.mkdir()
        subprocess.run(["mount", "-t", kind, *options, source, str(point)], check=True)
        mounted.append(point)
        return point

    yield mount
    for point in reversed(mounted):
        subprocess.run(["umount", str(point)], check=True)
        point.rmdir()


def fill(folder: Path) -> Path:
    """Fill a file system; return the file that does it."""
    file = folder / "full"
    with file.open("wb") as stream:
        try:
            while True:
                stream.write(bytes(65536))
                stream.flush()
        except OSError:
            return file


def test_data_on_tmpfs(
    jails: Jails, config: Build, mount_at: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writable layers may lie on a tmpfs where the kernel can map its ids."""
    monkeypatch.setenv("JAILRUN_DATA", str(mount_at("tmpfs")))
    ended = jails.run(config("sh", "-c", "echo x >/x; cat /x"))
    assert ended.stdout == "x\n"


def test_full_data(
    jails: Jails, config: Build, mount_at: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the writable layer is the jail's ENOSPC; a later jail runs again."""
    data = mount_at("tmpfs", "-o", "size=1m")
    monkeypatch.setenv("JAILRUN_DATA", str(data))
    ended = jails.run(config("sh", "-c", "dd if=/dev/zero of=/x bs=1k count=4k; echo $?"))
    assert "No space left" in ended.stderr
    file = fill(data)
    try:
        ended = jails.run(config("echo", "runs"))
        assert ended.stdout in ("runs\n", "")
    except JailError as error:
        assert "No space left" in str(error)
    file.unlink()
    assert jails.run(config("echo", "runs")).stdout == "runs\n"


def test_no_inodes_in_data(
    jails: Jails, config: Build, mount_at: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even a folder can be made, the start fails with the folder's name."""
    data = mount_at("tmpfs", "-o", "nr_inodes=4")
    (data / "scratch").mkdir()
    monkeypatch.setenv("JAILRUN_DATA", str(data))
    with pytest.raises(JailError, match="No space left") as caught:
        jails.run(config("true"))
    assert str(data) in str(caught.value)


def test_full_run_folder(
    jails: Jails, config: Build, mount_at: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that cannot be written is an error, and nothing of the jail is left."""
    run = mount_at("tmpfs", "-o", "size=64k")
    monkeypatch.setenv("JAILRUN_RUN", str(run))
    file = fill(run)
    with pytest.raises(JailError, match="No space left"):
        jails.run(config("true"))
    assert list_names() == []
    file.unlink()
    assert jails.run(config("true")).status == 0


@pytest.mark.parametrize("variable", ["JAILRUN_RUN", "JAILRUN_DATA"])
def test_read_only_folder(
    jails: Jails, config: Build, mount_at: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:  # fmt: skip
    """A read-only folder is named."""
    folder = mount_at("tmpfs", "-o", "ro")
    monkeypatch.setenv(variable, str(folder))
    with pytest.raises(JailError, match="Read-only file system") as caught:
        jails.run(config("true"))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", ["ramfs", "overlay"])
def test_data_where_ids_cannot_be_mapped(
    jails: Jails, config: Build, mount_at: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, kind: str,
) -> None:  # fmt: skip
    """A file system without id-mapped mounts is an error with a way out, or it just works."""
    options = []
    if kind == "overlay":
        for name in ("lower", "upper", "work"):
            (tmp_path / name).mkdir()
        folders = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        options = ["-o", folders]
    monkeypatch.setenv("JAILRUN_DATA", str(mount_at(kind, *options)))
    try:
        ended = jails.run(config("echo", "runs"))
    except RootfsError as error:
        assert error.hint
        assert "JAILRUN_DATA" in error.hint or "file system" in error.hint
    else:
        assert ended.stdout == "runs\n"


def test_run_folder_is_a_file(
    jails: Jails, config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the place of a folder of ours is named."""
    (tmp_path / "run").touch()
    monkeypatch.setenv("JAILRUN_RUN", str(tmp_path / "run"))
    with pytest.raises(JailError, match=str(tmp_path / "run")):
        jails.run(config("true"))


def test_release_is_tried_again(jails: Jails, config: Build, session_data: Path) -> None:
    """What could not be removed the first time is by the next command."""
    running = jails.start(config("true"), remove=False)
    running.wait()
    upper = session_data / "scratch" / running.name / "upper"
    subprocess.run(["chattr", "+i", str(upper)], check=True)
    with pytest.raises(JailError, match="cannot remove all of jail"):
        lifecycle.delete(running.name)
    assert list_names() == [running.name]
    subprocess.run(["chattr", "-i", str(upper)], check=True)
    lifecycle.delete(running.name)
    assert list_names() == []
