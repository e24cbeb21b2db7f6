"""What an import can only do as root: owners, devices, capabilities."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from jailrun import images
from jailrun.errors import ImageError
from jailrun.images import tarstream
from tests.integration.images.test_recipes import Told
from tests.unit.images.make import Member, folder, hard_link, symlink, write_archive

# cap_net_raw=ep, as `setcap` writes it (VFS_CAP_REVISION_2)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def test_owners_and_set_id_bits(tmp_path: Path) -> None:
    members = [
        folder("d"),
        Member("d/f", owner=(123, 45), mode=0o6755, data=b"x"),
        Member("l", tarfile.SYMTYPE, link="d", owner=(7, 8)),
        Member("far", owner=(3_000_000_000, 70_000)),
    ]
    tree = Path(images.import_tar(write_archive(tmp_path / "a", members), "test").layers[0])
    status = (tree / "d/f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (123, 45, 0o6755)
    status = (tree / "l").lstat()
    assert (status.st_uid, status.st_gid) == (7, 8)
    assert (tree / "far").stat().st_uid == 3_000_000_000


def test_capabilities_survive_and_count(tmp_path: Path) -> None:
    value = CAPABILITY.decode(errors="surrogateescape")
    member = Member("f", data=b"x", mode=0o755, pax={"SCHILY.xattr.security.capability": value})
    image = images.import_tar(write_archive(tmp_path / "a", [member]), "test")
    tree = Path(image.layers[0])
    assert os.getxattr(tree / "f", "security.capability") == CAPABILITY
    os.removexattr(tree / "f", "security.capability")
    digest, _ = tarstream.hash_tree(str(tree))
    assert digest.replace(":", "-") != tree.parent.name


def test_devices_and_fifos(tmp_path: Path) -> None:
    members = [
        folder("dev"),
        Member("dev/null", tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Member("dev/loop0", tarfile.BLKTYPE, device=(7, 0)),
        Member("fifo", tarfile.FIFOTYPE, mode=0o620),
    ]
    path = write_archive(tmp_path / "a", members)
    told = Told()
    tree = Path(images.import_tar(path, "test", told).layers[0])
    assert list((tree / "dev").iterdir()) == []
    assert stat.S_ISFIFO((tree / "fifo").stat().st_mode)
    assert stat.S_IMODE((tree / "fifo").stat().st_mode) == 0o620
    assert told.warnings == ["left out 2 device nodes of /dev: every jail gets its own"]
    tree = Path(images.import_tar(path, "test", devices=True).layers[0])
    status = (tree / "dev/null").stat()
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, os.makedev(1, 3))
    assert stat.S_IMODE(status.st_mode) == 0o666
    whiteout = write_archive(tmp_path / "b", [Member("x", tarfile.CHRTYPE)])
    with pytest.raises(ImageError, match="whiteout"):
        images.import_tar(whiteout, "other", devices=True)


def test_a_hard_link_to_a_symbolic_link(tmp_path: Path) -> None:
    members = [symlink("a", "/etc/shadow"), hard_link("b", "a")]
    tree = Path(images.import_tar(write_archive(tmp_path / "x", members), "test").layers[0])
    assert (tree / "b").readlink() == Path("/etc/shadow")
