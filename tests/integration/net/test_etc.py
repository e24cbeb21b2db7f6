"""The jail's own files in /etc, on roots that are hostile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution, reap
from jailrun.kernel.operation import OperationError
from jailrun.kernel.program import Program
from jailrun.rootfs.etc import plan_etc
from tests.integration.jails import MakeRoot

FILES = {"hosts": "127.0.0.1\tjail\n", "resolv.conf": "nameserver 192.0.2.1\n", "hostname": "web\n"}
SHOW = "cd /etc && cat hosts resolv.conf hostname; "


def show_etc(root: Path, place: Path, script: str = SHOW, *, read_only: bool = False) -> str:
    """Return what a script prints on a root with our files in its /etc."""
    reader, writer = os.pipe()
    program = Program()
    program.clone_flags = c.CLONE_NEWNS
    before, child = program.before, program.child
    tree = before.open_tree(c.AT_FDCWD, str(root), c.OPEN_TREE_CLONE)
    attributes = c.MOUNT_ATTR_RDONLY if read_only else 0
    before.mount_setattr(tree, attr_set=attributes, propagation=c.MS_PRIVATE)
    child.umask(0)
    child.mount(0, "/", 0, c.MS_REC | c.MS_PRIVATE)
    child.move_mount(tree, c.AT_FDCWD, str(root))
    top = child.open(str(root), c.O_PATH | c.O_DIRECTORY)
    plan_etc(program, top, FILES, str(place))
    child.fchdir(top)
    child.pivot_root(".", ".")
    child.umount2(".", c.MNT_DETACH)
    child.chdir("/")
    child.dup3(writer, 1)
    child.dup3(writer, 2)
    program.keep(writer)
    child.announce_exec()
    child.execve("/bin/sh", ["sh", "-c", script], ["PATH=/bin"])
    execution = Execution(program)
    try:
        execution.run_before()
        execution.spawn()
        execution.wait(30)
        os.close(writer)
        writer = -1
        said = b""
        while part := os.read(reader, 65536):
            said += part
    finally:
        execution.close_opened()
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    reap(execution.pidfd)
    return said.decode()


@pytest.fixture(params=["native", "ctypes"])
def executor(
    request: pytest.FixtureRequest, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run programs with each of the executors."""
    if request.param == "native":
        pytest.importorskip("jailrun.kernel._execute")
    monkeypatch.setenv("JAILRUN_EXECUTOR", request.param)


@pytest.mark.usefixtures("executor")
class TestEtc:
    """What the jail's root has in /etc is not what the jail sees there."""

    @pytest.fixture
    def root(self, make_root: MakeRoot, leaves_host_as_it_was: None) -> Path:
        """Return a folder with busybox, and nothing in its /etc."""
        root = make_root()
        shutil.rmtree(root / "etc", ignore_errors=True)
        (root / "etc").mkdir()
        (root / "proc").mkdir(exist_ok=True)
        return root

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """Return the folder that the file system is put on."""
        place = tmp_path / "place"
        place.mkdir()
        return place

    def test_shown(self, root: Path, place: Path) -> None:
        """Three mounts, of three files, and nothing of where they come from."""
        script = f"{SHOW} mount -t proc proc /proc; cat /proc/self/mountinfo; ls -ln /etc"
        lines = show_etc(root, place, script).splitlines()
        assert lines[:3] == ["127.0.0.1\tjail", "nameserver 192.0.2.1", "web"]
        mounts = {tuple(line.split()[3:5]) for line in lines if " - " in line}
        mounts = {mount for mount in mounts if mount[1] not in ("/", "/proc")}
        assert mounts == {(f"/{name}", f"/etc/{name}") for name in FILES}
        listed = [line.split() for line in lines if line.startswith("-rw")]
        assert [line[0] for line in listed] == ["-rw-r--r--"] * 3
        assert {line[2] for line in listed} == {"0"}
        assert [path.stat().st_size for path in (root / "etc").iterdir()] == [0, 0, 0]

    def test_written_by_the_jail(self, root: Path, place: Path) -> None:
        """As any file, up to a limit, and without a trace in the root."""
        fill = "cat /bin/busybox >/etc/hosts"
        script = f"echo more >>/etc/hosts && cat /etc/hosts; {fill}; ls -ln /etc/hosts"
        said = show_etc(root, place, script).splitlines()
        assert said[1] == "more"
        assert 60_000 < int(said[-1].split()[4]) < 70_000
        assert (root / "etc/hosts").read_text() == ""

    def test_links(self, root: Path, place: Path, tmp_path: Path) -> None:
        """They are covered: to nowhere, out of the root, to a file of the root, in a circle."""
        (tmp_path / "victim").write_text("untouched")
        (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        (root / "etc/hosts").symlink_to(f"/../../../../..{tmp_path}/victim")
        (root / "etc/hostname").symlink_to("hostname")
        script = f"{SHOW} echo x >>/etc/hosts; readlink -f /etc/resolv.conf; ls /run"
        said = show_etc(root, place, script)
        assert said == "".join(FILES.values()) + "/etc/resolv.conf\n"
        assert (tmp_path / "victim").read_text() == "untouched"
        assert (root / "etc/hostname").is_symlink()

    def test_etc_that_leads_elsewhere(self, root: Path, place: Path, tmp_path: Path) -> None:
        """Within the root it is followed; out of it there is no way."""
        (root / "etc").rmdir()
        (root / "usr/etc").mkdir(parents=True)
        (root / "etc").symlink_to("../../../usr/etc")
        assert show_etc(root, place) == "".join(FILES.values())
        (tmp_path / "victim").mkdir()
        (root / "etc").unlink()
        (root / "etc").symlink_to(f"../../../../../..{tmp_path}/victim")
        assert "web" not in show_etc(root, place)
        assert list((tmp_path / "victim").iterdir()) == []

    def test_etc_that_is_missing(self, root: Path, place: Path) -> None:
        """It is made, where that is possible; a read-only root without it shows nothing."""
        (root / "etc").rmdir()
        assert "web" not in show_etc(root, place, read_only=True)
        assert show_etc(root, place) == "".join(FILES.values())
        (root / "etc/hosts").unlink()
        assert show_etc(root, place, read_only=True).endswith("nameserver 192.0.2.1\nweb\n")

    @pytest.mark.parametrize("what", ["etc", "etc/hosts"])
    def test_something_else_there(self, root: Path, place: Path, what: str) -> None:
        """A file for a folder, or a folder for a file: that is an error, with its place."""
        if what == "etc":
            (root / what).rmdir()
            (root / what).touch()
        else:
            (root / what).mkdir()
        with pytest.raises(OperationError, match=f"/{what}: "):
            show_etc(root, place)

    def test_special_files(self, root: Path, place: Path) -> None:
        """They are covered, not opened."""
        os.mkfifo(root / "etc/hosts")
        os.mknod(root / "etc/hostname", 0o600 | 0o020000, os.makedev(5, 0))
        assert show_etc(root, place) == "".join(FILES.values())
