"""Users and groups by name, from the text of a jail's own passwd and group files.

The text is hostile: the image wrote it.  Lines that are no entries are skipped, numbers out of
range are none, nothing is ever an error but what the caller asked for and the files do not have.
Out of scope: reading the files (below the jail's root, with openat2, at most `MAX_BYTES`).
"""

from __future__ import annotations

from jailrun.errors import SecurityError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BYTES = 1 << 20  # what a caller should read of a file: 20,000 users
MAX_ID = 2**32 - 2  # 2**32 - 1 is "no id" for setresuid and chown
MAX_GROUPS = 65536  # NGROUPS_MAX, limits.h


class User:
    """What a process needs to know of who it is."""

    __slots__ = ("additional_gids", "gid", "home", "name", "uid")

    def __init__(
        self,
        uid: int,
        gid: int,
        additional_gids: Sequence[int] = (),
        home: str = "/",
        name: str = "",
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.additional_gids = list(additional_gids)
        self.home = home
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and self._all() == other._all()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"User{self._all()}"

    def _all(self) -> tuple[object, ...]:
        return self.uid, self.gid, self.additional_gids, self.home, self.name


def parse_passwd(text: bytes) -> Iterator[tuple[str, int, int, str]]:
    """Yield (name, uid, gid, home) for each entry of a passwd file."""
    for fields in _entries(text, 4):
        uid, gid = parse_id(fields[2]), parse_id(fields[3])
        if uid is not None and gid is not None:
            yield fields[0], uid, gid, fields[5] if len(fields) > 5 else ""


def parse_group(text: bytes) -> Iterator[tuple[str, int, list[str]]]:
    """Yield (name, gid, members) for each entry of a group file."""
    for fields in _entries(text, 3):
        gid = parse_id(fields[2])
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield fields[0], gid, [member.strip() for member in members if member.strip()]


def _entries(text: bytes, least: int) -> Iterator[list[str]]:
    for line in text[:MAX_BYTES].split(b"\n"):
        fields = line.decode("utf-8", "replace").strip().split(":")
        # "+" and "-" begin an entry of NIS, which is nobody's name.
        if (
            len(fields) >= least
            and fields[0]
            and fields[0][0] not in "+-#"
            and "\0" not in fields[0]
        ):
            yield fields


def parse_id(text: str) -> int | None:
    """Return a user or group id, None where the text is none."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    number = int(text)
    return number if number <= MAX_ID else None


def resolve_user(
    wanted: str, passwd: bytes, group: bytes, additional_groups: Sequence[str] = ()
) -> User:
    """Return who ``user[:group]`` is: names as the files have them, or numbers.

    As docker does: a number needs no entry and then has gid 0; a group that is given leaves the
    user without the additional groups of the files; an empty user is 0.
    """
    user_text, colon, group_text = wanted.partition(":")
    if colon and not group_text:
        raise SecurityError(f"cannot use {wanted!r} as a user: there is no group after the colon")
    found = _find_user(user_text or "0", passwd)
    if found is None:
        uid = parse_id(user_text or "0")
        if uid is None:
            raise SecurityError(
                f"cannot find user {user_text!r} in the jail's /etc/passwd",
                hint="give a user of the image, or a number",
            )
        found = User(uid, 0)
    if colon:
        found.gid = find_group(group_text, group)
    elif found.name:
        found.additional_gids = _groups_of(found, group)
    for name in additional_groups:
        gid = find_group(name, group)
        if gid not in found.additional_gids:
            found.additional_gids.append(gid)
    return found


def _find_user(text: str, passwd: bytes) -> User | None:
    """Return the first entry of that name, or else of that number."""
    number = parse_id(text)
    by_number: User | None = None
    for name, uid, gid, home in parse_passwd(passwd):
        if name == text:
            return User(uid, gid, (), home_path(home), name)
        if uid == number and by_number is None:
            by_number = User(uid, gid, (), home_path(home), name)
    return by_number


def home_path(home: str) -> str:
    """Return a home that is a path, and / for what is none."""
    return home if home.startswith("/") and "\0" not in home and "\n" not in home else "/"


def _groups_of(user: User, group: bytes) -> list[int]:
    gids: list[int] = []
    seen = {user.gid}
    for _, gid, members in parse_group(group):
        if user.name in members and gid not in seen and len(gids) < MAX_GROUPS:
            seen.add(gid)
            gids.append(gid)
    return gids


def find_group(text: str, group: bytes) -> int:
    """Return the id of a group given by name or number."""
    for name, gid, _ in parse_group(group):
        if name == text:
            return gid
    number = parse_id(text)
    if number is None:
        raise SecurityError(
            f"cannot find group {text!r} in the jail's /etc/group",
            hint="give a group of the image, or a number",
        )
    return number
