"""Roots made to trap the start: links, files and FIFOs where it must mount or make something.

Whatever the image holds, nothing outside the root is reached: the start works inside, or fails
with an error that names the path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailrun.errors import CommandNotFoundError, JailError, RootfsError
from tests.integration.jails import Build, Config, Jails, MakeRoot


def bind(source: Path, target: str) -> Config:
    """Return a bind mount."""
    return {"destination": target, "type": "bind", "source": str(source), "options": ["bind"]}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Return a folder of the host's that nobody may touch."""
    folder = tmp_path / "outside"
    (folder / "proc").mkdir(parents=True)
    (folder / "file").write_text("untouched")
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))
    yield folder
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*")) == before


def replace(path: Path, target: str | Path | None = None, *, fifo: bool = False) -> None:
    """Put a link, an empty file or a FIFO in the place of something."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    if target is not None:
        path.symlink_to(target)
    elif fifo:
        os.mkfifo(path)
    else:
        path.touch()


@pytest.fixture(params=["folder", "layer"])
def attempt(
    request: pytest.FixtureRequest, jails: Jails, config: Build, make_root: MakeRoot
) -> Callable[..., str]:
    """Return what runs ``command`` in a root after ``spoil``, as a folder and as a layer."""

    def run(spoil: Callable[[Path], None], command: str, *mounts: Config) -> str:
        root = make_root()
        spoil(root)
        place = {"folder": str(root)} if request.param == "folder" else {"layers": [str(root)]}
        ended = jails.run(config("sh", "-c", command, mounts=mounts, **place))
        return ended.stdout + ended.stderr

    return run


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
@pytest.mark.parametrize("target", ["/", "..", "../outside", "/tmp", "missing", "self"])
def test_link_in_place_of_a_system_folder(
    attempt: Callable[..., str], outside: Path, name: str, target: str
) -> None:
    """/proc, /dev and /sys must be folders: who reads them trusts them."""
    with pytest.raises(RootfsError, match=f"/{name}"):
        attempt(lambda root: replace(root / name, name if target == "self" else target), "true")


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
@pytest.mark.parametrize("fifo", [True, False])
def test_file_in_place_of_a_system_folder(
    attempt: Callable[..., str], name: str, fifo: bool
) -> None:
    """A file or FIFO there is said, and nobody waits for the FIFO's other end."""
    with pytest.raises(RootfsError, match=f"/{name}"):
        attempt(lambda root: replace(root / name, fifo=fifo), "true")


def test_links_in_dev(attempt: Callable[..., str], outside: Path, make_root: MakeRoot) -> None:
    """What the image has in /dev does not matter: a tmpfs lies on it."""

    def spoil(root: Path) -> None:
        for name in ("null", "zero", "pts", "shm", "fd", "ptmx", "console"):
            (root / "dev").mkdir(exist_ok=True)
            replace(root / "dev" / name, outside / "file")

    said = attempt(spoil, "echo x >/dev/null; ls -ld /dev/null; readlink /dev/fd")
    assert said.startswith("c")
    assert said.endswith("/proc/self/fd\n")


def test_etc_is_a_link_out(attempt: Callable[..., str], outside: Path) -> None:
    """A mount below a link lands where the link leads inside the root, or nowhere."""
    mount = {"destination": "/etc/new", "type": "tmpfs", "source": "x"}
    with pytest.raises(RootfsError, match="/etc/new"):
        attempt(lambda root: replace(root / "etc", outside), "true", mount)
    command = "grep -c ' /var/new ' /proc/self/mountinfo"
    assert attempt(lambda root: replace(root / "etc", "/var"), command, mount) == "1\n"


@pytest.mark.parametrize(
    ("link", "target", "destination"),
    [
        ("link", "/", "/link/x"),
        ("link", "../../../..", "/link/x"),
        ("link", "/proc/1/root", "/link/x"),
        ("link", "/proc/self/cwd", "/link/x"),
        ("mnt", "/tmp", "/mnt/../mnt/x"),
    ],
)
def test_target_through_a_link(
    attempt: Callable[..., str], outside: Path, link: str, target: str, destination: str
) -> None:
    """Links are resolved as the jail would, or refused; never as the host would."""
    mount = bind(outside / "file", destination)
    try:
        said = attempt(lambda root: replace(root / link, target), f"cat {destination}", mount)
    except RootfsError as error:
        assert destination in str(error) or link in str(error)
    else:
        assert said == "untouched"
    assert not Path("/x").exists()
    assert not Path("/tmp/x").exists()


def test_target_is_a_link_to_a_host_file(attempt: Callable[..., str], outside: Path) -> None:
    """The last name of a target is resolved inside, too."""
    mount = bind(outside / "file", "/etc/hosts")
    victim = outside / "file"
    with pytest.raises(JailError, match="/etc/hosts"):
        attempt(lambda root: replace(root / "etc/hosts", victim), "cat /etc/hosts", mount)


def test_dangling_target(attempt: Callable[..., str], tmp_path: Path) -> None:
    """A dangling link as target makes nothing on the host."""
    mount = {"destination": "/data", "type": "tmpfs", "source": "x"}
    with pytest.raises(JailError, match="/data"):
        attempt(lambda root: replace(root / "data", tmp_path / "made"), "true", mount)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("fifo", [True, False])
def test_folder_on_a_file(attempt: Callable[..., str], tmp_path: Path, fifo: bool) -> None:
    """A folder cannot be mounted on a file or FIFO, and this is said."""
    mount = {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["bind"]}
    with pytest.raises(RootfsError, match="/data"):
        attempt(lambda root: replace(root / "data", fifo=fifo), "true", mount)


def test_file_on_a_fifo(attempt: Callable[..., str], outside: Path) -> None:
    """A file covers a FIFO without opening it."""
    mount = bind(outside / "file", "/data")
    said = attempt(lambda root: replace(root / "data", fifo=True), "cat /data", mount)
    assert said == "untouched"


def test_file_on_a_folder(attempt: Callable[..., str], outside: Path) -> None:
    """A file cannot be mounted on a folder."""
    mount = bind(outside / "file", "/var")
    with pytest.raises(RootfsError, match="/var"):
        attempt(lambda root: None, "true", mount)


def test_component_is_a_file(attempt: Callable[..., str], outside: Path) -> None:
    """A file in the middle of a target is said."""
    mount = {"destination": "/etc/passwd/x/y", "type": "tmpfs", "source": "x"}
    with pytest.raises(RootfsError, match="/etc/passwd/x"):
        attempt(lambda root: None, "true", mount)


def test_masked_path_is_a_link(
    jails: Jails, config: Build, make_root: MakeRoot, outside: Path
) -> None:
    """A masked path that is a link out of the root masks nothing of the host's."""
    root = make_root()
    replace(root / "secret", outside / "file")
    linux = {"maskedPaths": ["/secret"], "readonlyPaths": ["/secret"]}
    ended = jails.run(config("cat", "/secret", folder=str(root), linux=linux))
    assert ended.stdout == ""


def test_working_directory_is_a_link_out(
    jails: Jails, config: Build, make_root: MakeRoot, outside: Path
) -> None:
    """The working directory is looked up inside."""
    root = make_root()
    (root / "out").symlink_to(outside)
    with pytest.raises(JailError, match="/out"):
        jails.run(config("true", folder=str(root), process={"cwd": "/out"}))
    (root / "up").symlink_to("../../..")
    ended = jails.run(
        config("sh", "-c", "ls -d bin && pwd", folder=str(root), process={"cwd": "/up"})
    )
    assert ended.lines[0] == "bin"


def test_program_is_a_link_out(jails: Jails, config: Build, make_root: MakeRoot) -> None:
    """The program is the one in the root."""
    root = make_root()
    (root / "other").symlink_to("/usr/bin/python3")
    with pytest.raises(CommandNotFoundError):
        jails.run(config("/other", folder=str(root)))


def test_image_swaps_while_it_starts(
    jails: Jails, config: Build, make_root: MakeRoot, outside: Path
) -> None:
    """A second jail that shares a plain folder cannot win a race for a mount target."""
    root = make_root()
    turn = "rm -rf /data; ln -s /proc/1/root/tmp /data; rm /data; mkdir /data"
    command = f"echo ready; while :; do {turn}; done"
    racer = jails.begin(config("sh", "-c", command, folder=str(root)))
    mount = {"destination": "/data/x/y", "type": "tmpfs", "source": "x"}
    for _ in range(20):
        try:
            jails.run(config("true", folder=str(root), mounts=[mount]))
        except RootfsError as error:
            assert "/data" in str(error)
    racer.execution.executor.syscall(424, racer.execution.pidfd, 9, 0, 0)
    racer.wait()
    assert not Path("/tmp/x").exists()
