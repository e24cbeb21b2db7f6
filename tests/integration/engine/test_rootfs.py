"""The root: layers under a writable one, read-only, or a plain folder; whose files they are."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun import paths
from jailrun.errors import JailError, RootfsError
from jailrun.images import Image
from tests.integration.jails import Build, Jails, MakeRoot, Probe


def bind(source: Path, target: str) -> dict[str, Any]:
    """Return a bind mount."""
    return {"destination": target, "type": "bind", "source": str(source), "options": ["bind"]}


def list_tree(folder: str | Path) -> dict[str, tuple[int, int, int, int]]:
    """Return path → mode, owner, group and size of everything below a folder."""
    found = {}
    for top, folders, files in os.walk(folder):
        for entry in (top, *(f"{top}/{one}" for one in folders + files)):
            status = os.lstat(entry)
            size = 0 if entry == top else status.st_size
            found[entry] = (status.st_mode, status.st_uid, status.st_gid, size)
    return found


@pytest.fixture(autouse=True)
def image_stays(busybox: Image) -> Iterator[None]:
    """Fail a test that changes the shared layers of the image."""
    before = list_tree(busybox.layers[0])
    yield
    assert list_tree(busybox.layers[0]) == before


def test_jails_do_not_see_each_others_files(jails: Jails, config: Build) -> None:
    """What one jail writes, changes or removes, another does not see."""
    command = "rm /bin/ls; echo x >/new; echo changed >/etc/passwd; mkdir /bin/dir; echo ready; cat"
    one = jails.begin(config("sh", "-c", command))
    ended = jails.run(config("sh", "-c", "ls -d /bin/ls /new /bin/dir; cat /etc/passwd"))
    assert "/bin/ls" in ended.lines
    assert "No such file" in ended.stderr
    assert "changed" not in ended.stdout
    one.wait()


def test_whose_files(jails: Jails, config: Build, busybox: Image) -> None:
    """A file of the jail's root belongs to its range, and on disk to what it is in the jail."""
    command = "touch /mine; touch /theirs; chown 5:6 /theirs; stat -c %u:%g /bin/busybox; cat"
    running = jails.begin(config("sh", "-c", command))
    first = int(Path(f"/proc/{running.pid}/uid_map").read_text().split()[1])
    root = Path(f"/proc/{running.pid}/root")
    upper = Path(paths.layers_dir()) / running.name / "upper"
    for name, uid, gid in (("mine", 0, 0), ("theirs", 5, 6)):
        inside, on_disk = (root / name).stat(), (upper / name).stat()
        assert (inside.st_uid, inside.st_gid) == (first + uid, first + gid)
        assert (on_disk.st_uid, on_disk.st_gid) == (uid, gid)
    assert (root / "bin/busybox").stat().st_uid == first
    assert Path(busybox.layers[0], "bin/busybox").stat().st_uid == 0
    running.wait()
    assert not upper.exists()


def test_host_root_file_is_not_the_jails(jails: Jails, config: Build, tmp_path: Path) -> None:
    """A bound file of the host's root cannot be written by the jail's root."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    mount = {"destination": "/x", "type": "bind", "source": str(secret), "options": ["bind"]}
    ended = jails.run(config("sh", "-c", "cat /x; echo y >/x; chmod 777 /x", mounts=[mount]))
    assert ended.stdout == ""
    assert secret.read_text() == "secret"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_layers_stack(jails: Jails, config: Build, busybox: Image, tmp_path: Path) -> None:
    """The first layer is on top; a whiteout in it hides, an opaque folder replaces."""
    middle, top = tmp_path / "middle", tmp_path / "top"
    for layer in (middle, top):
        layer.mkdir(mode=0o755)
    (middle / "word").write_text("middle")
    (middle / "only").write_text("middle")
    (top / "word").write_text("top")
    os.mknod(top / "only", 0o020000, 0)  # a whiteout: character device 0:0
    (top / "etc").mkdir()
    os.setxattr(top / "etc", "user.overlay.opaque", b"y")
    layers = [str(top), str(middle), *busybox.layers]
    ended = jails.run(config("sh", "-c", "cat /word; ls /only; ls -A /etc", layers=layers))
    assert ended.stdout.startswith("top")
    assert "No such file" in ended.stderr
    # Empty, but for what every start puts there.
    assert set(ended.stdout.removeprefix("top").split()) <= {"hostname", "hosts", "resolv.conf"}


def test_many_layers(jails: Jails, config: Build, busybox: Image, tmp_path: Path) -> None:
    """As many layers as images have; more than that is said."""
    layers = []
    for number in range(59):
        layer = tmp_path / str(number)
        layer.mkdir(mode=0o755)
        (layer / f"file{number}").touch()
        layers.append(str(layer))
    ended = jails.run(config("sh", "-c", "ls / | grep -c file", layers=[*layers, *busybox.layers]))
    assert ended.lines == ["59"]
    with pytest.raises(RootfsError, match="layers"):
        jails.run(config("true", layers=[*layers, *layers, *busybox.layers]))


@pytest.mark.parametrize("user", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_read_only_root(
    probe: Probe, jails: Jails, config: Build, busybox: Image, tmp_path: Path, user: bool,
    layers: int,
) -> None:  # fmt: skip
    """Nothing can be written to a read-only root, and making it writes nothing to the image."""
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    (empty / "work").mkdir()
    stack = [*([str(empty)] if layers == 2 else []), *busybox.layers]
    command = "echo x >/new; echo x >/etc/passwd; rm /bin/ls; mkdir /d; touch /tmp/t; id -u; pwd"
    ended = jails.run(
        config(
            *("sh", "-c", command),
            layers=stack,
            root={"readonly": True},
            without=[] if user else ["user"],
            process={"cwd": "/mnt"},
            jailrun={"writable": "none"},
        )
    )
    assert ended.lines == ["0", "/mnt"]
    assert len(ended.stderr.splitlines()) == 5
    assert all("Read-only file system" in line for line in ended.stderr.splitlines())


def test_read_only_root_without_mount_point(jails: Jails, config: Build, tmp_path: Path) -> None:
    """A mount point that a read-only image lacks is an error that names it, not a change of it."""
    mount = bind(tmp_path, "/missing/x")
    changes = {"root": {"readonly": True}, "jailrun": {"writable": "none"}}
    with pytest.raises(RootfsError, match="/missing/x"):
        jails.run(config("true", mounts=[mount], **changes))


def test_read_only_root_with_upper(jails: Jails, config: Build, tmp_path: Path) -> None:
    """With a writable layer below, mount points are made before the root becomes read-only."""
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    mount = bind(tmp_path, "/missing/x")
    command = "ls /missing/x; echo >/y"
    ended = jails.run(config("sh", "-c", command, mounts=[mount], root={"readonly": True}))
    assert "file" in ended.lines
    assert "Read-only file system" in ended.stderr


@pytest.mark.parametrize("user", [True, False])
def test_plain_folder(jails: Jails, config: Build, make_root: MakeRoot, user: bool) -> None:
    """A folder as root is written directly, with the ids that the jail sees."""
    root = make_root()
    command = "echo hello >/file; chown 3:4 /file; stat -c %u /bin/busybox"
    ended = jails.run(
        config("sh", "-c", command, folder=str(root), without=[] if user else ["user"])
    )
    assert (ended.status, ended.lines) == (0, ["0"])
    status = (root / "file").stat()
    assert (root / "file").read_text() == "hello\n"
    assert (status.st_uid, status.st_gid) == (3, 4)


def test_plain_folder_in_a_bundle(jails: Jails, config: Build, make_root: MakeRoot) -> None:
    """A relative root, and a relative source, count from the bundle."""
    root = make_root("rootfs")
    (root.parent / "data").mkdir(mode=0o755)
    (root.parent / "data/file").write_text("hello")
    mount = {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]}
    ended = jails.run(
        config("cat", "/data/file", folder="rootfs", mounts=[mount]), bundle=str(root.parent)
    )
    assert ended.stdout == "hello"


def test_plain_folder_read_only(jails: Jails, config: Build, make_root: MakeRoot) -> None:
    """A read-only folder stays as it is, but for the mount points."""
    root = make_root()
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir(exist_ok=True)
    before = list_tree(root)
    ended = jails.run(config("sh", "-c", "echo >/x", folder=str(root), root={"readonly": True}))
    assert "Read-only file system" in ended.stderr
    assert list_tree(root) == before


def test_shared_ids_without_mapping(jails: Jails, config: Build, make_root: MakeRoot) -> None:
    """Without id mapping a folder shows the ids that are on disk, and nobody for the others."""
    root = make_root()
    ended = jails.run(
        config("sh", "-c", "stat -c %u /bin/busybox; touch /x", folder=str(root),
               jailrun={"id_shift": "none"})
    )  # fmt: skip
    assert ended.lines == ["65534"]
    assert "Permission denied" in ended.stderr


@pytest.mark.parametrize("propagation", ["private", "slave", "shared", "unbindable", "rslave"])
def test_root_propagation(probe: Probe, jails: Jails, config: Build, propagation: str) -> None:
    """The propagation of the root mount is as asked for, and never reaches the host."""
    command = "grep ' / / ' /proc/self/mountinfo | head -n 1; mount -t tmpfs x /mnt"
    sets = ("bounding", "effective", "permitted")
    process = {"capabilities": {kind: ["CAP_SYS_ADMIN"] for kind in sets}}
    ended = jails.run(
        config("sh", "-c", command, process=process, jailrun={"seccomp": None},
               linux={"rootfsPropagation": propagation})
    )  # fmt: skip
    optional = ended.lines[0].split(" - ")[0].split()[6:]
    kinds = {word.split(":")[0] for word in optional}
    expected = {"shared": {"shared"}, "unbindable": {"unbindable"}}.get(propagation, set())
    assert kinds - {"master"} == expected
    assert ended.status == 0


def test_callers_umask(jails: Jails, config: Build, tmp_path: Path) -> None:
    """What is made in the root can be used by others than root, whatever the caller's umask."""
    tmp_path.chmod(0o755)
    mount = {"destination": "/a/b/c", "type": "bind", "source": str(tmp_path), "options": ["bind"]}
    old = os.umask(0o777)
    try:
        ended = jails.run(
            config(
                *(
                    "sh",
                    "-c",
                    "cd /a/b/c && stat -c %a / /a /a/b /dev/shm /proc; echo x >/dev/null",
                ),
                mounts=[mount],
                process={"user": {"uid": 1000, "gid": 1000}},
            )
        )
    finally:
        os.umask(old)
    assert (ended.status, ended.lines) == (0, ["755", "755", "755", "1777", "555"])


def test_working_directory(probe: Probe) -> None:
    """It is made where it is missing."""
    seen = probe("system", process={"cwd": "/srv/new/folder"})
    assert seen["system"]["cwd"] == "/srv/new/folder"


def test_working_directory_is_a_file(jails: Jails, config: Build) -> None:
    """It must be a folder."""
    with pytest.raises(JailError, match="/etc/passwd"):
        jails.run(config("true", process={"cwd": "/etc/passwd"}))


def test_deep_and_strange_files_are_removed(jails: Jails, config: Build) -> None:
    """Whatever a jail leaves in its layer goes with it: depth, names, modes, links, FIFOs."""
    command = (
        "i=0; while [ $i -lt 300 ]; do mkdir d && cd d && i=$((i+1)) || exit 1; done; cd /tmp;"
        "mkdir 0; touch 0/x; chmod 000 0; ln -s / link; ln -s /etc etc; mkfifo fifo;"
        "touch -- '-rf' '*' \"$(printf 'a\\nb')\"; mkdir -p a/b; ln -s ../../../.. a/b/up; echo ok"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        ended = jails.run(config("sh", "-c", command, process={"cwd": "/tmp"}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ended.lines == ["ok"]


def test_what_the_jail_mounted_is_left_alone(jails: Jails, config: Build, tmp_path: Path) -> None:
    """Removing a jail never removes what was mounted into it."""
    (tmp_path / "precious").write_text("precious")
    mount = bind(tmp_path, "/precious")
    jails.run(config("true", mounts=[mount]))
    assert (tmp_path / "precious").read_text() == "precious"


def test_data_folder_is_gone(jails: Jails, config: Build, session_data: Path) -> None:
    """Without the folder of writable layers it is made; a file in its place is an error."""
    scratch = session_data / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    assert jails.run(config("true")).status == 0
    scratch.rmdir()
    scratch.touch()
    try:
        with pytest.raises(JailError, match="scratch"):
            jails.run(config("true"))
    finally:
        scratch.unlink()
