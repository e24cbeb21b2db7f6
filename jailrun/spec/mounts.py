"""Mount options: from the words of mount(8) to what the kernel's mount calls take.

Owns: the table of words and `parse_options`.  Out of scope: making the mounts
(`jailrun.rootfs`) and whether a source or target may be used.

Source: "Linux mount options" of config.md (OCI runtime specification), mount(8),
mount_setattr(2).  Some words have no equal in the calls since Linux 5.2 and change nothing:
``iversion`` and ``noiversion`` (ext4 alone has it, always), ``silent`` and ``loud`` (only what the
kernel logs), ``defaults``; ``norelatime`` means the kernel's default, which is relatime.
"""

from __future__ import annotations

from jailrun.kernel.constants import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailrun.spec.model import Mount

# word: attributes of the mount to set, to clear.  The four modes of access times are one field:
# it is cleared as a whole to set any of them.
_ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "relatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "atime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "norelatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "nostrictatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
}
_RECURSIVE_ATTRIBUTES = {f"r{word}": pair for word, pair in _ATTRIBUTES.items()}
_PROPAGATION = {
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "private": MS_PRIVATE,
    "unbindable": MS_UNBINDABLE,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "rprivate": MS_PRIVATE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
# Flags of the file system itself, fs/fs_context.c: given to fsconfig by name.
_FLAGS = frozenset(("sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"))
_OURS = frozenset(("bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"))
_WITHOUT_EFFECT = frozenset(("defaults", "iversion", "noiversion", "silent", "loud"))

# What the file systems that every jail mounts take, Documentation/filesystems; other file systems
# are the kernel's to judge.
_SECURITY_DATA = ("context", "fscontext", "defcontext", "rootcontext")
_DATA = {
    "proc": frozenset(("hidepid", "gid", "subset")),
    "sysfs": frozenset[str](),
    "mqueue": frozenset[str](),
    "devpts": frozenset(("newinstance", "ptmxmode", "mode", "uid", "gid", "max")),
    "tmpfs": frozenset(
        (
            *("size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "mpol"),
            *("inode32", "inode64", "noswap", "acl", "noacl", "quota", "usrquota", "grpquota"),
            *("usrquota_block_hardlimit", "usrquota_inode_hardlimit"),
            *("grpquota_block_hardlimit", "grpquota_inode_hardlimit"),
            *("casefold", "strict_encoding"),
        )
    ),
}


class MountOptions:
    """What a list of options asks for.

    ``attr_set`` and ``attr_clear`` are for mount_setattr(2) on the mount alone, the ``rec_`` pair
    for it with AT_RECURSIVE; ``propagation`` are MS_* flags to apply in order; ``flags`` and
    ``data`` go to fsconfig(2).
    """

    __slots__ = (
        "attr_clear",
        "attr_set",
        "bind",
        "data",
        "flags",
        "idmap",
        "propagation",
        "rbind",
        "rec_attr_clear",
        "rec_attr_set",
        "remount",
        "ridmap",
        "tmpcopyup",
    )

    def __init__(self) -> None:
        self.attr_set = 0
        self.attr_clear = 0
        self.rec_attr_set = 0
        self.rec_attr_clear = 0
        self.propagation: list[int] = []
        self.flags: list[str] = []
        self.data: list[str] = []
        self.bind = False  # true for rbind, too
        self.rbind = False
        self.remount = False
        self.tmpcopyup = False
        self.idmap = False  # true for ridmap, too
        self.ridmap = False

    @property
    def readonly(self) -> bool:
        """Tell whether the mount itself is to be read-only."""
        return bool((self.attr_set | self.rec_attr_set) & MOUNT_ATTR_RDONLY)


def parse_options(options: Iterable[str]) -> MountOptions:
    """Return what ``options`` ask for; the later of two that contradict wins, as in mount(8)."""
    result = MountOptions()
    for option in options:
        if option in _ATTRIBUTES:
            change = _ATTRIBUTES[option]
            result.attr_set, result.attr_clear = _apply(result.attr_set, result.attr_clear, change)
        elif option in _PROPAGATION:
            result.propagation.append(_PROPAGATION[option])
        elif option in _RECURSIVE_ATTRIBUTES:
            result.rec_attr_set, result.rec_attr_clear = _apply(
                result.rec_attr_set, result.rec_attr_clear, _RECURSIVE_ATTRIBUTES[option]
            )
        elif option in _FLAGS:
            result.flags.append(option)
        elif option in _OURS:
            _set_word(result, option)
        elif option not in _WITHOUT_EFFECT:
            # mount(2) joins the options with commas, so that one may hold several; in quotes, or
            # escaped as overlayfs has it, a comma belongs to the value.
            plain = '"' not in option and "\\" not in option
            result.data += [part for part in option.split(",") if part] if plain else [option]
    return result


def _apply(have_set: int, have_clear: int, change: tuple[int, int]) -> tuple[int, int]:
    to_set, to_clear = change
    return have_set & ~to_clear | to_set, have_clear & ~to_set | to_clear


def _set_word(result: MountOptions, word: str) -> None:
    setattr(result, word, True)
    if word == "rbind":
        result.bind = True
    elif word == "ridmap":
        result.idmap = True


def is_bind(mount: Mount, options: MountOptions) -> bool:
    """Tell whether ``mount`` shows a part of the host's files, rather than a new file system."""
    return options.bind or mount.get("type") == "bind"


def known_options() -> list[str]:
    """Return all words that are no file system's own."""
    return sorted(
        {*_ATTRIBUTES, *_RECURSIVE_ATTRIBUTES, *_PROPAGATION, *_FLAGS, *_OURS, *_WITHOUT_EFFECT}
    )


def unknown_data(kind: str, data: Iterable[str]) -> str | None:
    """Return the first option that ``kind`` does not take; None, too, for kinds not known here."""
    known = _DATA.get(kind)
    if known is None:
        return None
    for option in data:
        name = option.partition("=")[0]
        if name not in known and name not in _SECURITY_DATA:
            return option
    return None


def valid_data(kind: str) -> list[str]:
    """Return the options of a file system of ``kind`` that have meaning for it alone."""
    return sorted(_DATA.get(kind, ()))
