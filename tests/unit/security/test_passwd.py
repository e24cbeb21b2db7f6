"""Users and groups by name, from files that an enemy wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import SecurityError
from jailrun.security.passwd import (
    MAX_BYTES,
    MAX_ID,
    User,
    home_path,
    parse_group,
    parse_id,
    parse_passwd,
    resolve_user,
)

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
# a comment:x:1:1
web:x:33:34:Web:/var/www:/bin/sh
1000:x:7:8:a name of digits:/seven:/bin/sh
user:x:1000:1000::/home/user:
short:x:44:45
bad:x:-1:0::/:
huge:x:4294967295:0::/:
relative:x:50:50::home:
+nis:x:60:60::/:
+:::::
broken
\xff\xfe:x:70:70::/:
"""
GROUP = b"""\
root:x:0:
web:x:34:user
video:x:44:web,user
audio:x:45: user ,
nobody:x:-1:user
user:x:1000:user
+:::
"""


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("", User(0, 0, [], "/root", "root")),
        ("root", User(0, 0, [], "/root", "root")),
        ("0", User(0, 0, [], "/root", "root")),
        ("web", User(33, 34, [44], "/var/www", "web")),
        ("33", User(33, 34, [44], "/var/www", "web")),
        ("web:video", User(33, 44, [], "/var/www", "web")),
        ("web:7", User(33, 7, [], "/var/www", "web")),
        ("user", User(1000, 1000, [34, 44, 45], "/home/user", "user")),
        ("1000", User(7, 8, [], "/seven", "1000")),  # the name wins, as in docker
        ("1234", User(1234, 0, [], "/", "")),
        ("1234:5", User(1234, 5, [], "/", "")),
        (":video", User(0, 44, [], "/root", "root")),
        ("short", User(44, 45, [], "/", "short")),
        ("relative", User(50, 50, [], "/", "relative")),
    ],
)
def test_resolve(wanted: str, user: User) -> None:
    assert resolve_user(wanted, PASSWD, GROUP) == user


@pytest.mark.parametrize(
    "wanted", ["nobody", "bad", "huge", "+nis", "broken", "-1", "4294967295", "٣"]
)
def test_unknown_user(wanted: str) -> None:
    with pytest.raises(SecurityError, match="cannot find user"):
        resolve_user(wanted, PASSWD, GROUP)


@pytest.mark.parametrize("wanted", ["web:staff", "web:nobody", "0:-1", "0:1:2"])
def test_unknown_group(wanted: str) -> None:
    with pytest.raises(SecurityError, match="cannot find group"):
        resolve_user(wanted, PASSWD, GROUP)


def test_no_group_after_the_colon() -> None:
    with pytest.raises(SecurityError, match="no group after the colon"):
        resolve_user("web:", PASSWD, GROUP)


def test_additional_groups() -> None:
    user = resolve_user("web", PASSWD, GROUP, ["audio", "99", "video"])
    assert user.additional_gids == [44, 45, 99]


def test_image_without_files() -> None:
    assert resolve_user("", b"", b"") == User(0, 0)
    assert resolve_user("5:6", b"", b"") == User(5, 6)


def test_huge_files_are_read_to_a_bound() -> None:
    filler = b"x" * 70 + b"\n"
    text = filler * (MAX_BYTES // len(filler) + 1) + b"late:x:1:1::/:\n"
    assert list(parse_passwd(text)) == []
    assert list(parse_passwd(b"a:" * MAX_BYTES)) == []


def test_homes() -> None:
    assert [home_path(path) for path in ("/a", "", "a", "/a\0b")] == ["/a", "/", "/", "/"]


@given(st.text())
def test_ids(text: str) -> None:
    number = parse_id(text)
    assert number is None or (0 <= number <= MAX_ID and int(text) == number)


LINE = st.lists(st.sampled_from(["", "0", "1", "root", "x", "+", "-1", "99999999999", "\x00", "é"]))
FILE = st.binary(max_size=200) | st.lists(LINE).map(
    lambda lines: "\n".join(":".join(fields) for fields in lines).encode()
)


@given(FILE, FILE, st.sampled_from(["", "root", "0", "x:1", "1:x", "+", "é"]) | st.text(max_size=9))
def test_any_file_gives_a_user_or_a_clear_error(passwd: bytes, group: bytes, wanted: str) -> None:
    try:
        user = resolve_user(wanted, passwd, group)
    except SecurityError as error:
        assert str(error).startswith("cannot ")
        return
    for number in (user.uid, user.gid, *user.additional_gids):
        assert 0 <= number <= MAX_ID
    assert user.home.startswith("/") and "\0" not in user.home
    assert all(0 <= gid <= MAX_ID for _, gid, _ in parse_group(group))
