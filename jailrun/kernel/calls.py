"""The system calls that a program can make: one method for each, named after it.

Owns: `Calls`.  Arguments are as in the man pages, section 2, but for buffers, whose length is
counted here.  Out of scope: the list that they are added to (`jailrun.kernel.lane`).

Every method takes, by keyword: ``what`` (the purpose in words), ``object`` (what it is about; the
path where there is one), ``allow`` (errno values that are no failure), ``hint`` (what the user
can do where it fails), ``result`` (a name for the slot).  Every method returns its result's slot.
"""

from __future__ import annotations

import os
from _struct import pack

from jailrun.kernel import constants as c
from jailrun.kernel.operation import EXACT, Pointers, Slot, Struct, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypedDict, Unpack

    from jailrun.kernel.operation import Argument

    class Words(TypedDict, total=False):
        """What every method takes by keyword."""

        what: str
        object: str
        allow: tuple[int, ...]
        hint: str
        result: str

    Fd = int | Slot
    Path = str | bytes | Text


class Calls:
    """One method for each system call; `call` adds it to a lane."""

    def call(
        self,
        name: str,
        *args: Argument,
        what: str = "",
        object: str = "",
        allow: tuple[int, ...] = (),
        hint: str = "",
        result: str = "",
        flags: int = 0,
    ) -> Slot:
        """Add the system call ``name``; return the slot of its result."""
        raise NotImplementedError

    # --- files ---------------------------------------------------------------------------------
    def open(self, path: Path, flags: int, mode: int = 0, **words: Unpack[Words]) -> Slot:
        """Open ``path``; the descriptor is close-on-exec."""
        words.setdefault("object", _name(path))
        return self.call("openat", c.AT_FDCWD, path, flags | c.O_CLOEXEC, mode, **words)

    def openat(
        self, dirfd: Fd, path: Path, flags: int, mode: int = 0, **words: Unpack[Words]
    ) -> Slot:
        """Open ``path`` below ``dirfd``; for trusted paths only (`openat2` for the others)."""
        words.setdefault("object", _name(path))
        return self.call("openat", dirfd, path, flags | c.O_CLOEXEC, mode, **words)

    def openat2(
        self,
        dirfd: Fd,
        path: Path,
        flags: int,
        *,
        resolve: int = 0,
        mode: int = 0,
        **words: Unpack[Words],
    ) -> Slot:
        """Open ``path`` with ``resolve`` saying how far it may lead (openat2(2), Linux 5.6)."""
        words.setdefault("object", _name(path))
        how = Struct(
            pack("<QQQ", flags | c.O_CLOEXEC, mode, resolve),
            label=f"{{flags={flags:#x}, resolve={resolve:#x}}}",
        )
        return self.call("openat2", dirfd, path, how, 24, **words)

    def close(self, fd: Fd) -> Slot:
        """Close ``fd``."""
        return self.call("close", fd)

    def write(self, fd: Fd, data: bytes, **words: Unpack[Words]) -> Slot:
        """Write all of ``data`` in one call."""
        return self.call(
            "write", fd, Struct(data, label=_show(data)), len(data), flags=EXACT, **words
        )

    def write_file(self, path: Path, data: bytes, **words: Unpack[Words]) -> Slot:
        """Write ``data`` in one call to the file at ``path``, which exists."""
        words.setdefault("object", _name(path))
        fd = self.call("openat", c.AT_FDCWD, path, os.O_WRONLY | c.O_CLOEXEC, 0, **words)
        written = self.write(fd, data, **words)
        self.close(fd)
        return written

    def read_exact(self, fd: Fd, count: int, **words: Unpack[Words]) -> Slot:
        """Read ``count`` bytes and forget them; an end of file is an error."""
        return self.call("read", fd, Struct(bytes(count), label="…"), count, flags=EXACT, **words)

    def mkdir(self, path: Path, mode: int = 0o755, **words: Unpack[Words]) -> Slot:
        """Make a directory."""
        return self.mkdirat(c.AT_FDCWD, path, mode, **words)

    def mkdirat(self, dirfd: Fd, path: Path, mode: int = 0o755, **words: Unpack[Words]) -> Slot:
        """Make a directory below ``dirfd``."""
        words.setdefault("object", _name(path))
        return self.call("mkdirat", dirfd, path, mode, **words)

    def mknodat(
        self, dirfd: Fd, path: Path, mode: int, device: int = 0, **words: Unpack[Words]
    ) -> Slot:
        """Make a file, FIFO or device node below ``dirfd``."""
        words.setdefault("object", _name(path))
        return self.call("mknodat", dirfd, path, mode, device, **words)

    def symlinkat(self, target: Path, dirfd: Fd, path: Path, **words: Unpack[Words]) -> Slot:
        """Make a symbolic link below ``dirfd``."""
        words.setdefault("object", _name(path))
        return self.call("symlinkat", target, dirfd, path, **words)

    def unlinkat(self, dirfd: Fd, path: Path, flags: int = 0, **words: Unpack[Words]) -> Slot:
        """Remove a file or (AT_REMOVEDIR) a directory below ``dirfd``."""
        words.setdefault("object", _name(path))
        return self.call("unlinkat", dirfd, path, flags, **words)

    def fchownat(
        self, dirfd: Fd, path: Path, uid: int, gid: int, flags: int = 0, **words: Unpack[Words]
    ) -> Slot:
        """Change the owner of a file below ``dirfd``."""
        words.setdefault("object", _name(path))
        return self.call("fchownat", dirfd, path, uid, gid, flags, **words)

    def fchmodat(self, dirfd: Fd, path: Path, mode: int, **words: Unpack[Words]) -> Slot:
        """Change the mode of a file below ``dirfd``."""
        words.setdefault("object", _name(path))
        return self.call("fchmodat", dirfd, path, mode, **words)

    def chdir(self, path: Path, **words: Unpack[Words]) -> Slot:
        """Change the working directory."""
        words.setdefault("object", _name(path))
        return self.call("chdir", path, **words)

    def fchdir(self, fd: Fd, **words: Unpack[Words]) -> Slot:
        """Change the working directory to an open one."""
        return self.call("fchdir", fd, **words)

    def umask(self, mask: int, **words: Unpack[Words]) -> Slot:
        """Set the file mode creation mask."""
        return self.call("umask", mask, **words)

    def dup3(self, fd: Fd, target: int, flags: int = 0, **words: Unpack[Words]) -> Slot:
        """Duplicate ``fd`` as ``target``."""
        return self.call("dup3", fd, target, flags, **words)

    def close_range(self, first: int, last: int, flags: int, **words: Unpack[Words]) -> Slot:
        """Close a range of descriptors, or mark them close-on-exec."""
        return self.call("close_range", first, last, flags, **words)

    def ioctl(self, fd: Fd, request: int, argument: Argument = 0, **words: Unpack[Words]) -> Slot:
        """Control a device."""
        return self.call("ioctl", fd, request, argument, **words)

    def socket(self, family: int, kind: int, protocol: int = 0, **words: Unpack[Words]) -> Slot:
        """Make a socket."""
        return self.call("socket", family, kind | c.SOCK_CLOEXEC, protocol, **words)

    def send_descriptor(self, socket: Fd, fd: Slot, data: bytes, **words: Unpack[Words]) -> Slot:
        """Send ``data`` with one descriptor over a Unix socket (SCM_RIGHTS, unix(7))."""
        control = Struct(
            pack("<QiiiI", 20, c.SOL_SOCKET, c.SCM_RIGHTS, 0, 0), holes={16: fd}, label="SCM_RIGHTS"
        )
        vector = Struct(Struct(data, label=_show(data)), pack("<Q", len(data)))
        message = Struct(
            pack("<QQ", 0, 0), vector, pack("<Q", 1), control, pack("<QQ", 24, 0), label="message"
        )
        return self.call("sendmsg", socket, message, 0, **words)

    # --- mounts --------------------------------------------------------------------------------
    def mount(
        self,
        source: str | int,
        target: Path,
        fstype: str | int,
        flags: int,
        data: str | int = 0,
        **words: Unpack[Words],
    ) -> Slot:
        """Change a mount's propagation; making mounts is `fsmount` and `move_mount`."""
        words.setdefault("object", _name(target))
        return self.call("mount", source, target, fstype, flags, data, **words)

    def umount2(self, target: Path, flags: int, **words: Unpack[Words]) -> Slot:
        """Unmount."""
        words.setdefault("object", _name(target))
        return self.call("umount2", target, flags, **words)

    def pivot_root(self, new: Path, old: Path, **words: Unpack[Words]) -> Slot:
        """Exchange the root mount."""
        return self.call("pivot_root", new, old, **words)

    def open_tree(self, dirfd: Fd, path: Path, flags: int, **words: Unpack[Words]) -> Slot:
        """Pick, or with OPEN_TREE_CLONE copy, a mount (Linux 5.2)."""
        words.setdefault("object", _name(path))
        return self.call("open_tree", dirfd, path, flags | c.OPEN_TREE_CLOEXEC, **words)

    def move_mount(
        self, from_fd: Fd, to_fd: Fd, to_path: Path = "", **words: Unpack[Words]
    ) -> Slot:
        """Attach the mount ``from_fd`` at ``to_fd``, or at ``to_path`` below it."""
        flags = c.MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else c.MOVE_MOUNT_T_EMPTY_PATH)
        words.setdefault("object", _name(to_path))
        return self.call("move_mount", from_fd, "", to_fd, to_path, flags, **words)

    def mount_setattr(
        self,
        fd: Fd,
        *,
        attr_set: int = 0,
        attr_clear: int = 0,
        propagation: int = 0,
        userns_fd: Slot | None = None,
        recursive: bool = False,
        **words: Unpack[Words],
    ) -> Slot:
        """Change the attributes of a mount (Linux 5.12)."""
        attributes = Struct(
            pack("<QQQQ", attr_set, attr_clear, propagation, 0),
            holes={24: userns_fd} if userns_fd else None,
            label=f"{{set={attr_set:#x}, clear={attr_clear:#x}, propagation={propagation:#x}}}",
        )
        flags = c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0)
        return self.call("mount_setattr", fd, "", flags, attributes, 32, **words)

    def fsopen(self, fstype: str, **words: Unpack[Words]) -> Slot:
        """Open a file system of a type, to be configured (Linux 5.2)."""
        words.setdefault("object", fstype)
        return self.call("fsopen", fstype, c.FSOPEN_CLOEXEC, **words)

    def fsconfig_string(self, fs: Fd, key: str, value: Path, **words: Unpack[Words]) -> Slot:
        """Set one option of a file system."""
        return self.call("fsconfig", fs, c.FSCONFIG_SET_STRING, key, value, 0, **words)

    def fsconfig_flag(self, fs: Fd, key: str, **words: Unpack[Words]) -> Slot:
        """Set one option, which has no value."""
        return self.call("fsconfig", fs, c.FSCONFIG_SET_FLAG, key, 0, 0, **words)

    def fsconfig_fd(self, fs: Fd, key: str, fd: Fd, **words: Unpack[Words]) -> Slot:
        """Set one option to a descriptor."""
        return self.call("fsconfig", fs, c.FSCONFIG_SET_FD, key, 0, fd, **words)

    def fsconfig_create(self, fs: Fd, **words: Unpack[Words]) -> Slot:
        """Make the file system as configured."""
        return self.call("fsconfig", fs, c.FSCONFIG_CMD_CREATE, 0, 0, 0, **words)

    def fsmount(self, fs: Fd, attributes: int = 0, **words: Unpack[Words]) -> Slot:
        """Return a mount of the file system, attached nowhere yet."""
        return self.call("fsmount", fs, c.FSMOUNT_CLOEXEC, attributes, **words)

    # --- namespaces ----------------------------------------------------------------------------
    def unshare(self, flags: int, **words: Unpack[Words]) -> Slot:
        """Leave namespaces for new ones."""
        return self.call("unshare", flags, **words)

    def setns(self, fd: Fd, kinds: int, **words: Unpack[Words]) -> Slot:
        """Join the namespace ``fd``, or with a pidfd those ``kinds`` of a process (Linux 5.8)."""
        return self.call("setns", fd, kinds, **words)

    def sethostname(self, name: str, **words: Unpack[Words]) -> Slot:
        """Set the host name."""
        return self.call("sethostname", name, len(name.encode()), **words)

    def setdomainname(self, name: str, **words: Unpack[Words]) -> Slot:
        """Set the NIS domain name."""
        return self.call("setdomainname", name, len(name.encode()), **words)

    # --- credentials and limits ----------------------------------------------------------------
    def prctl(self, option: int, *args: Argument, **words: Unpack[Words]) -> Slot:
        """Operate on the process."""
        return self.call("prctl", option, *args, *(0,) * (4 - len(args)), **words)

    def capset(
        self, effective: int, permitted: int, inheritable: int, **words: Unpack[Words]
    ) -> Slot:
        """Set the capability sets, given as masks (capset(2), version 3)."""
        low = [mask & 0xFFFFFFFF for mask in (effective, permitted, inheritable)]
        high = [mask >> 32 for mask in (effective, permitted, inheritable)]
        header = Struct(pack("<Ii", c.LINUX_CAPABILITY_VERSION_3, 0), label="{version=3, pid=0}")
        sets = Struct(
            pack("<6I", *low, *high), label=f"{{{effective:#x}, {permitted:#x}, {inheritable:#x}}}"
        )
        return self.call("capset", header, sets, **words)

    def setgroups(self, groups: Iterable[int], **words: Unpack[Words]) -> Slot:
        """Set the supplementary groups."""
        ids = list(groups)
        return self.call(
            "setgroups", len(ids), Struct(pack(f"<{len(ids)}I", *ids), label=str(ids)), **words
        )

    def setresuid(self, real: int, effective: int, saved: int, **words: Unpack[Words]) -> Slot:
        """Set the user ids."""
        return self.call("setresuid", real, effective, saved, **words)

    def setresgid(self, real: int, effective: int, saved: int, **words: Unpack[Words]) -> Slot:
        """Set the group ids."""
        return self.call("setresgid", real, effective, saved, **words)

    def prlimit(self, resource: int, soft: int, hard: int, **words: Unpack[Words]) -> Slot:
        """Set a resource limit of the process itself; 2**64 - 1 is none."""
        limit = Struct(pack("<QQ", soft, hard), label=f"{{{soft}, {hard}}}")
        return self.call("prlimit64", 0, resource, limit, 0, **words)

    def personality(self, persona: int, **words: Unpack[Words]) -> Slot:
        """Set the execution domain."""
        return self.call("personality", persona, **words)

    def seccomp(self, filter_bytes: bytes, flags: int = 0, **words: Unpack[Words]) -> Slot:
        """Install a seccomp filter: an array of struct sock_filter, 8 bytes each."""
        count = len(filter_bytes) // 8
        program = Struct(
            pack("<Q", count),
            Struct(filter_bytes, label=f"{count} instructions"),
            label=f"{{{count} instructions}}",
        )
        return self.call("seccomp", c.SECCOMP_SET_MODE_FILTER, flags, program, **words)

    def setsid(self, **words: Unpack[Words]) -> Slot:
        """Become the leader of a new session."""
        return self.call("setsid", **words)

    def execve(
        self,
        path: Path,
        argv: Iterable[str],
        env: Iterable[str],
        *,
        flags: int = 0,
        **words: Unpack[Words],
    ) -> Slot:
        """Execute the program at ``path``."""
        words.setdefault("object", _name(path))
        return self.call("execve", path, Pointers(argv), Pointers(env), flags=flags, **words)


def _name(path: Path) -> str:
    if isinstance(path, str):
        return path
    return path.decode("utf-8", "replace") if isinstance(path, bytes) else str(path)


def _show(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return (
        repr(text)
        if len(data) < 80 and text.replace("\n", "").isprintable()
        else f"<{len(data)} bytes>"
    )
