"""`jailrun.spec.mounts`: options to attributes, flags, propagation and data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.kernel import constants as c
from jailrun.spec.mounts import MountOptions, known_options, parse_options, unknown_data

# "Linux mount options", config.md of the OCI runtime specification 1.2.1
OCI_OPTIONS = """
    async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow
    private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec
    rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave
    rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync
    tmpcopyup unbindable idmap ridmap
""".split()  # noqa: SIM905 - the specification's table, in its order


@pytest.mark.parametrize("option", OCI_OPTIONS)
def test_every_option_of_the_specification_is_known(option: str) -> None:
    assert option in known_options()
    assert parse_options([option]).data == []


ATIME = c.MOUNT_ATTR__ATIME


@pytest.mark.parametrize(
    ("options", "attr_set", "attr_clear"),
    [
        ([], 0, 0),
        (["ro"], c.MOUNT_ATTR_RDONLY, 0),
        (["rw"], 0, c.MOUNT_ATTR_RDONLY),
        (["ro", "rw"], 0, c.MOUNT_ATTR_RDONLY),
        (["rw", "ro"], c.MOUNT_ATTR_RDONLY, 0),
        (["nosuid", "nodev"], c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV, 0),
        (["noatime"], c.MOUNT_ATTR_NOATIME, ATIME),
        (["noatime", "strictatime"], c.MOUNT_ATTR_STRICTATIME, ATIME),
        (["strictatime", "relatime"], 0, ATIME),
        (["nodiratime", "noatime"], c.MOUNT_ATTR_NODIRATIME | c.MOUNT_ATTR_NOATIME, ATIME),
        (["defaults", "silent", "iversion"], 0, 0),
    ],
)
def test_attributes(options: list[str], attr_set: int, attr_clear: int) -> None:
    result = parse_options(options)
    assert (result.attr_set, result.attr_clear) == (attr_set, attr_clear)
    assert (result.rec_attr_set, result.rec_attr_clear) == (0, 0)
    recursive = parse_options([f"r{option}" for option in options if option not in UNIQUE])
    assert (recursive.rec_attr_set, recursive.rec_attr_clear) == (attr_set, attr_clear)
    assert (recursive.attr_set, recursive.attr_clear) == (0, 0)


UNIQUE = ("defaults", "silent", "iversion")


def test_propagation_flags_and_words() -> None:
    result = parse_options(["rbind", "rslave", "shared", "sync", "ridmap", "remount", "tmpcopyup"])
    assert result.propagation == [c.MS_SLAVE | c.MS_REC, c.MS_SHARED]
    assert result.flags == ["sync"]
    assert result.bind
    assert result.rbind
    assert result.idmap
    assert result.ridmap
    assert result.remount
    assert result.tmpcopyup
    assert parse_options(["bind"]).rbind is False


def test_what_is_not_known_is_the_file_systems() -> None:
    result = parse_options(
        ["size=1m,mode=755", "newinstance", 'context="a,b"', "lowerdir=a\\,b", ""]
    )
    assert result.data == ["size=1m", "mode=755", "newinstance", 'context="a,b"', "lowerdir=a\\,b"]


def test_options_of_file_systems() -> None:
    assert unknown_data("tmpfs", ["size=5", "bogus"]) == "bogus"
    assert unknown_data("proc", ["hidepid=2"]) is None
    assert unknown_data("sysfs", ["x"]) == "x"
    assert unknown_data("ext4", ["anything"]) is None


def test_readonly_is_told_for_both_forms() -> None:
    assert parse_options(["ro"]).readonly
    assert parse_options(["rro"]).readonly
    assert not parse_options(["ro", "rw"]).readonly


@given(st.lists(st.text() | st.sampled_from(OCI_OPTIONS)))
def test_no_list_of_options_is_an_error(options: list[str]) -> None:
    result = parse_options(options)
    assert isinstance(result, MountOptions)
    for to_set, to_clear in (
        (result.attr_set, result.attr_clear),
        (result.rec_attr_set, result.rec_attr_clear),
    ):
        assert not to_set & to_clear & ~ATIME, "the kernel refuses to set and clear one attribute"
