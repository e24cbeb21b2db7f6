"""Import of archives, most of them hostile or damaged."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jailrun.errors import ImageError, JailError, UnsupportedError
from jailrun.images import archive, catalog, lookup
from jailrun.images.archive import Limits, import_archive, import_tar
from tests.unit.images.make import SMALL, Member, folder, hard_link, pack, symlink, write_archive


def import_members(tmp_path: Path, *members: Member) -> Path:
    """Import an archive of those members; return its tree."""
    image = import_tar(write_archive(tmp_path / "a.tar", members), "test")
    return Path(image.layers[0])


def left_behind() -> list[str]:
    """Return what an import left in the store besides finished work."""
    root = Path(lookup.layer_path("sha256:0")).parents[2]
    names = ("tmp", "layers", "manifests", "refs", "archives")
    return [str(path) for name in names for path in (root / name).glob("*")]


def test_a_plain_archive_keeps_everything(tmp_path: Path) -> None:
    tree = import_members(tmp_path, *SMALL)
    shell = (tree / "bin/sh").stat()
    assert stat.S_IMODE(shell.st_mode) == 0o4755
    assert shell.st_mtime == 1000
    assert shell.st_ino == (tree / "bin/ash").stat().st_ino
    assert (tree / "lib").readlink() == Path("usr/lib")
    assert (tree / "bin").stat().st_mtime == 1000
    assert (tree / "etc/passwd").read_bytes().startswith(b"root:")


def test_what_the_archive_does_not_say_is_the_same_on_every_day(tmp_path: Path) -> None:
    tree = import_members(tmp_path, Member("deep/er/file"))
    for path in (tree, tree / "deep", tree / "deep/er", tree / "etc", tree / "etc/hosts"):
        assert path.stat().st_mtime == 0


def test_mount_points_are_added(tmp_path: Path) -> None:
    tree = import_members(tmp_path, Member("x"))
    for name in ("proc", "sys", "dev", "run", "tmp", "etc", "root"):
        assert (tree / name).is_dir()
    for name in ("hostname", "hosts", "resolv.conf"):
        assert (tree / "etc" / name).read_bytes() == b""
    assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777


def test_links_in_place_of_mount_points_stay(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = import_members(
        tmp_path, symlink("etc", str(outside)), symlink("proc", "/"), Member("bin/sh")
    )
    assert (tree / "etc").is_symlink()
    assert (tree / "proc").is_symlink()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_compression_makes_no_difference(tmp_path: Path, mode: str) -> None:
    plain = import_tar(write_archive(tmp_path / "a"), "plain")
    packed = import_tar(write_archive(tmp_path / "b", mode=mode), "packed")
    assert packed.layers == plain.layers


HOSTILE = {
    "parent": ([Member("../out")], "leads out of its root"),
    "parent within": ([Member("a/../../out")], "leads out of its root"),
    "parent folder": ([folder("..")], "leads out of its root"),
    "link to outside, then through it": (
        [symlink("a", "OUTSIDE"), Member("a/out")],
        "not a folder",
    ),
    "relative link, then through it": ([symlink("a", ".."), Member("a/out")], "not a folder"),
    "chain of links": ([symlink("a", "b"), symlink("b", "OUTSIDE"), folder("a/x")], "not a folder"),
    "hard link to outside": ([hard_link("a", "/../../../etc/passwd")], "leads out of its root"),
    "hard link through a link": (
        [symlink("d", "OUTSIDE"), hard_link("a", "d/secret")],
        "not a folder",
    ),
    "hard link to nothing": ([hard_link("a", "b")], "does not hold before"),
    "hard link to a folder": ([folder("b"), hard_link("a", "b")], "a folder"),
    "hard link to the root": ([hard_link("a", "./")], "hard link to nothing"),
    "file through a file": ([Member("a"), Member("a/b")], "not a folder"),
    "the root a file": ([Member("./")], "its root is not a folder"),
    "the root a link": ([symlink(".", "/")], "its root is not a folder"),
    "file over a full folder": ([Member("a/b"), Member("a")], "folder with content"),
    "empty link": ([symlink("a", "")], "no valid target"),
    "name too long": ([Member("a" * 256)], "File name too long"),
    "path too long": ([Member("a/" * 2000 + "b")], "too deeply"),
    "too deep": ([Member("a/" * 201 + "b")], "too deeply"),
    "NUL in the name": ([Member("a", pax={"path": "a\0b"})], "NUL in its name"),
    "NUL in a target": ([Member("a", tarfile.SYMTYPE, pax={"linkpath": "a\0"})], "no valid target"),
    "character device": (
        [Member("a", tarfile.CHRTYPE, device=(1, 3))],
        "character device 'a' outside of /dev",
    ),
    "block device": (
        [Member("usr/dev/x", tarfile.BLKTYPE, device=(8, 0))],
        "block device 'usr/dev/x'",
    ),
    "negative size": ([Member("a", pax={"size": "-512"})], "damaged"),
    "enormous size": ([Member("a", pax={"size": str(1 << 62)})], "more than"),
    "impossible owner": ([Member("a", pax={"uid": str((1 << 32) - 1)})], "impossible owner"),
    "impossible group": ([Member("a", pax={"gid": "-5"})], "impossible owner"),
    "sparse map out of order": (
        [
            Member(
                "a",
                data=b"x" * 20,
                pax={"GNU.sparse.map": "10,10,0,10", "GNU.sparse.size": "20"},
            )
        ],
        "map of the sparse file",
    ),
    "sparse map beyond its file": (
        [Member("a", data=b"xy", pax={"GNU.sparse.map": "0,100", "GNU.sparse.size": "2"})],
        "map of the sparse file",
    ),
    "nothing at all": ([], "empty"),
    "only a root": ([folder("./")], "empty"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, name: str) -> None:
    members, said = HOSTILE[name]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for member in members:
        member.info.linkname = member.info.linkname.replace("OUTSIDE", str(outside))
    with pytest.raises(ImageError, match=said):
        import_tar(write_archive(tmp_path / "a.tar", members), "test")
    assert left_behind() == []
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").stat().st_nlink == 1
    assert not (tmp_path / "out").exists()


def test_absolute_names_mean_the_image_root(tmp_path: Path) -> None:
    tree = import_members(tmp_path, Member("/etc/jailrun-test-file", data=b"x"))
    assert (tree / "etc/jailrun-test-file").read_bytes() == b"x"
    assert not Path("/etc/jailrun-test-file").exists()


def test_of_duplicates_the_last_one_counts(tmp_path: Path) -> None:
    tree = import_members(
        tmp_path,
        Member("a", data=b"first"),
        symlink("b", "/etc"),
        folder("c"),
        Member("d", data=b"kept"),
        hard_link("e", "d"),
        Member("a", data=b"second"),
        folder("b"),
        Member("b/inner"),
        symlink("c", "a"),
        Member("d", data=b"new"),
        folder("f", mode=0o700),
        folder("f", mode=0o711),
    )
    assert (tree / "a").read_bytes() == b"second"
    assert (tree / "b/inner").exists()
    assert (tree / "c").readlink() == Path("a")
    assert (tree / "e").read_bytes() == b"kept"
    assert (tree / "d").read_bytes() == b"new"
    assert stat.S_IMODE((tree / "f").stat().st_mode) == 0o711


def test_names_that_are_not_utf8_and_odd_ones(tmp_path: Path) -> None:
    names = ["caf\udce9", "new\nline", "ünïcode", "a" * 255, "-rf", " ", "x/" * 99 + "deep"]
    tree = import_members(
        tmp_path, *[Member(name, data=name.encode(errors="replace")) for name in names]
    )
    for name in names:
        assert os.path.lexists(os.fsencode(tree) + b"/" + os.fsencode(name))


def test_times_that_are_no_times(tmp_path: Path) -> None:
    tree = import_members(
        tmp_path,
        Member("nan", pax={"mtime": "nan"}),
        Member("inf", pax={"mtime": "inf"}),
        Member("past", pax={"mtime": "-1e300"}),
        Member("fraction", pax={"mtime": "1234.9"}),
    )
    assert [(tree / name).stat().st_mtime for name in ("nan", "inf", "past", "fraction")] == [
        *(0, 0, 0),
        1234,
    ]


def test_overlay_attributes_are_left_out(tmp_path: Path) -> None:
    tree = import_members(
        tmp_path,
        Member(
            "a",
            pax={
                "SCHILY.xattr.user.good": "ü\udcff",
                "SCHILY.xattr.user.overlay.redirect": "/etc",
                "SCHILY.xattr.trusted.overlay.opaque": "y",
                "SCHILY.xattr.security.selinux": "x",
            },
        ),
    )
    assert {name for name in os.listxattr(tree / "a") if name.startswith(("user", "trusted"))} == {
        "user.good"
    }
    assert os.getxattr(tree / "a", "user.good") == "ü\udcff".encode(errors="surrogateescape")


def test_a_sparse_file_keeps_its_holes(tmp_path: Path) -> None:
    size = 64 << 20
    tree = import_members(
        tmp_path,
        Member(
            "a",
            data=b"start" + b"end",
            pax={"GNU.sparse.map": f"0,5,{size - 3},3", "GNU.sparse.size": str(size)},
        ),
        Member("b", data=b"after"),
    )
    status = (tree / "a").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20
    with (tree / "a").open("rb") as file:
        assert file.read(6) == b"start\0"
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"\0end"
    assert (tree / "b").read_bytes() == b"after"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.97])
def test_a_truncated_archive_is_refused(tmp_path: Path, mode: str, share: float) -> None:
    members = [Member(f"f{number}", data=os.urandom(3000)) for number in range(20)]
    data = pack(members, mode)
    if mode == "w":  # the end mark and its padding may go
        data = data.rstrip(b"\0")
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"truncated|not a tar"):
        import_tar(tmp_path / "a", "test")
    assert left_behind() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"x" * 5000,
        b"\x1f\x8b" + b"x" * 100,
        b"\xfd7zXZ\0" + b"x" * 100,
        b"BZh9" + b"x" * 99,
        b"\x7fELF" + bytes(2000),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match=r"not a tar|damaged or truncated"):
        import_tar(tmp_path / "a", "test")
    assert left_behind() == []


def test_zeros_are_an_empty_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10240))
    with pytest.raises(ImageError, match="empty"):
        import_tar(tmp_path / "a", "test")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(pack([Member("a"), Member("b"), Member("c")]))
    data[512 + 3] ^= 0xFF
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match="bad checksum"):
        import_tar(tmp_path / "a", "test")


def test_a_checksum_error_of_the_compression_is_seen(tmp_path: Path) -> None:
    data = bytearray(pack(SMALL, "w:gz"))
    data[-6] ^= 0xFF
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match="CRC"):
        import_tar(tmp_path / "a", "test")


def test_limits(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a", [Member(f"{n}", data=b"x" * 1000) for n in range(10)])
    with pytest.raises(ImageError, match="more than 0 MiB") as caught:
        import_tar(path, "test", limits=Limits(9_999, 100))
    assert caught.value.hint is not None
    with pytest.raises(ImageError, match="more than 9 members"):
        import_tar(path, "test", limits=Limits(10_000, 9))
    import_tar(path, "test", limits=Limits(10_000, 10))
    path = write_archive(tmp_path / "a", [Member("implied/" * 9 + "x")])
    with pytest.raises(ImageError, match="more than 9 members"):
        import_tar(path, "test", limits=Limits(10_000, 9))


def test_a_bomb_is_refused_before_it_is_written(tmp_path: Path) -> None:
    free = archive.free_limits(tmp_path).total_bytes
    member = Member("a", pax={"size": str(free + 1)})
    with pytest.raises(ImageError, match="more than"):
        import_tar(write_archive(tmp_path / "a", [member]), "test")
    sparse = Member("a", pax={"GNU.sparse.map": "", "GNU.sparse.size": str(1 << 60)})
    with pytest.raises(ImageError, match=r"more than|damaged"):
        import_tar(write_archive(tmp_path / "a", [sparse]), "test")


def test_a_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a", [Member("a", pax={"comment": "x" * (9 << 20)})], "w:gz")
    with pytest.raises(ImageError, match="header takes more than"):
        import_tar(path, "test")


def test_archives_of_images_are_named_as_such(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a", [Member("manifest.json"), Member("x/layer.tar")])
    with pytest.raises(UnsupportedError, match="archive of images with layers"):
        import_tar(path, "test")


@pytest.mark.parametrize("name", ["Upper", "", "a/../b", "x:", "-x", "a" * 300, "a//b", "ä"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="not the name of an image"):
        import_tar(write_archive(tmp_path / "a"), name)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(ImageError, match="not a regular file"):
            import_tar(path, "test")
    with pytest.raises(ImageError, match="No such file"):
        import_tar(tmp_path / "missing", "test")


def test_an_archive_run_by_its_path_is_imported_once_for_each_state(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a\n\udcff.tar")
    with pytest.raises(lookup.MissingImageError):
        lookup.resolve(str(path))
    image = import_archive(path)
    assert lookup.resolve(str(path)).digest == image.digest
    assert [found.reference for found in catalog.list_images()] == [str(path)]
    write_archive(path, [Member("other")])
    with pytest.raises(lookup.MissingImageError):
        lookup.resolve(str(path))
    other = import_archive(path)
    assert other.digest != image.digest
    assert [found.reference for found in catalog.list_images()] == [str(path), image.digest]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=12)), max_size=6))
def test_random_damage_never_gets_out(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    members = [
        *SMALL,
        Member("long/" * 30 + "x", pax={"SCHILY.xattr.user.x": "1"}),
        Member("sparse", data=b"ab", pax={"GNU.sparse.map": "0,1,9,1", "GNU.sparse.size": "10"}),
    ]
    data = bytearray(pack(members))
    for place, change in changes:
        data[place : place + len(change)] = change
    for start in range(0, 6 * 512, 512):  # headers with right sums get further
        block = data[start : start + 512]
        block[148:156] = b" " * 8
        if any(block):
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    (tmp_path / "a").write_bytes(data)
    before = sorted(path.name for path in tmp_path.iterdir())
    try:
        import_tar(tmp_path / "a", "test", limits=Limits(1 << 20, 100))
    except JailError as error:
        assert "\n" not in str(error)
    after = sorted(path.name for path in tmp_path.iterdir())
    assert set(after) <= {*before, "jailrun-data"}
