"""The content address: what changes it, what does not, and that tar programs read the stream."""

from __future__ import annotations

import errno
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jailrun.images.seal import seal
from jailrun.images.tarstream import format_header, hash_tree, is_kept_xattr, write_stream

NAMES = st.binary(min_size=1, max_size=120).filter(
    lambda name: b"\0" not in name and b"/" not in name and name not in {b".", b".."}
)


def stream_of(root: Path) -> bytes:
    """Return the whole stream of a tree."""
    parts: list[bytes] = []
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_stream(root_fd, parts.append)
    finally:
        os.close(root_fd)
    return b"".join(parts)


def read(stream: bytes) -> tarfile.TarFile:
    """Return the stream as the standard library reads it."""
    return tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8", errors="surrogateescape")


def fill(root: Path) -> Path:
    """Make a tree with one of each kind, all of one time."""
    root.mkdir()
    (root / "b").mkdir()
    (root / "b/file").write_bytes(b"content")
    (root / "b/file").chmod(0o4755)
    (root / "b.c").write_bytes(b"")
    (root / "link").symlink_to("x" * 150)
    os.link(root / "b/file", root / "again")
    (root / ("long" * 40)).write_bytes(b"1" * 513)
    os.setxattr(root / "b/file", "user.note", b"\xff=\n\0")
    seal(str(root), newest=1_000_000)
    return root


def test_the_stream_is_an_archive(tmp_path: Path) -> None:
    root = fill(tmp_path / "root")
    with read(stream_of(root)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        names = [member.name.removeprefix("./") for member in archive.getmembers()]
        assert archive.extractfile("./" + "long" * 40).read() == b"1" * 513  # type: ignore[union-attr]
    ours = [name for name in names if name.startswith(("a", "b", "l"))]
    assert ours == ["again", "b", "b/file", "b.c", "link", "long" * 40]
    assert members["./again"].isreg()
    assert members["./b/file"].islnk()
    assert members["./b/file"].linkname == "./again"
    assert members["./again"].mode == 0o4755
    assert members["./link"].linkname == "x" * 150
    assert (
        members["./again"].pax_headers["SCHILY.xattr.user.note"].encode(errors="surrogateescape")
        == b"\xff=\n\0"
    )
    assert {member.uname for member in members.values()} == {""}
    assert max(member.mtime for member in members.values()) == 1_000_000


def test_equal_trees_have_equal_digests(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "one"), fill(tmp_path / "two")
    assert hash_tree(str(first)) == hash_tree(str(second))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "b/file").write_bytes(b"other"),
        lambda root: (root / "b/file").chmod(0o755),
        lambda root: (root / "new").mkdir(),
        lambda root: os.removexattr(root / "b/file", "user.note"),
        lambda root: (root / "b.c").rename(root / "b.d"),
        lambda root: os.utime(root / "b.c", (1, 1)),
        lambda root: ((root / "again").unlink(), (root / "again").write_bytes(b"content")),
    ],
)
def test_every_change_changes_the_digest(tmp_path: Path, change: object) -> None:
    root = fill(tmp_path / "root")
    before = hash_tree(str(root))
    assert callable(change)
    change(root)
    assert hash_tree(str(root))[0] != before[0]


def test_a_socket_has_no_place_and_seal_removes_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    with pytest.raises(OSError, match="socket") as caught:
        hash_tree(str(root))
    assert caught.value.errno == errno.EINVAL
    seal(str(root))
    assert not (root / "socket").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, target=NAMES, mtime=st.integers(0, 1 << 40), uid=st.integers(0, (1 << 32) - 2))
def test_headers_are_read_back(
    tmp_path: Path, name: bytes, target: bytes, mtime: int, uid: int
) -> None:
    numbers = (0o120777, 0, 0, 1, uid, 3, 0, 0, mtime, 0)
    status = os.stat_result(numbers, {"st_mtime_ns": mtime * 10**9, "st_rdev": 0})
    with read(format_header(b"./" + name, b"2", status, link=target) + bytes(1024)) as archive:
        member = archive.next()
    assert member is not None
    assert os.fsencode(member.name) == b"./" + name.rstrip(b"/")
    assert os.fsencode(member.linkname) == target
    assert (member.uid, member.gid, member.mode) == (uid, 3, 0o777)
    assert member.mtime == mtime


def test_which_attributes_belong_to_an_image() -> None:
    assert is_kept_xattr("security.capability")
    assert is_kept_xattr("user.anything")
    for name in ("user.overlay.redirect", "trusted.overlay.opaque", "security.selinux", "system.x"):
        assert not is_kept_xattr(name)


def test_seal_keeps_older_times_and_sets_later_ones(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "old").write_bytes(b"")
    os.utime(root / "old", ns=(5_900_000_000, 5_900_000_000))
    (root / "dangling").symlink_to("/nowhere")
    seal(str(root), newest=100)
    assert (root / "old").lstat().st_mtime_ns == 5_000_000_000
    for path in root.rglob("*"):
        assert path.lstat().st_mtime <= 100
    assert root.stat().st_mtime == 100


def test_sealing_twice_is_sealing_once(tmp_path: Path) -> None:
    root = fill(tmp_path / "root")
    before = hash_tree(str(root))
    assert seal(str(root)) == before
    assert seal(str(root), newest=1_000_000) == before
