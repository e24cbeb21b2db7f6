"""Numbers of the kernel's interface, under the kernel's own names.

Owns: system call numbers for each architecture, flags, limits.  Each group cites its header
below ``include/uapi`` or the man page.  Out of scope: what they are used for.
"""

from __future__ import annotations

import os

# --- system calls: arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h -------------
# Calls that are not listed do not exist for Program: add a row to use one.
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "poll": 7, "ioctl": 16, "socket": 41, "sendmsg": 46,
    "execve": 59, "fchdir": 81, "fchmod": 91, "umask": 95, "ptrace": 101, "syslog": 103,
    "setsid": 112, "setgroups": 116, "setresuid": 117, "setresgid": 119, "capset": 126,
    "personality": 135, "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166,
    "sethostname": 170, "setdomainname": 171, "chdir": 80, "chroot": 161, "fcntl": 72,
    "ioprio_set": 251, "keyctl": 250, "add_key": 248, "openat": 257, "mkdirat": 258,
    "mknodat": 259, "fchownat": 260, "unlinkat": 263, "symlinkat": 266, "fchmodat": 268,
    "unshare": 272, "dup3": 292, "pipe2": 293, "prlimit64": 302, "setns": 308,
    "sched_setattr": 314, "sched_setaffinity": 203, "seccomp": 317, "bpf": 321, "execveat": 322,
    "memfd_create": 319, "set_mempolicy": 238, "getpid": 39, "kill": 62, "exit_group": 231,
    "flock": 73, "fsetxattr": 190, "linkat": 265, "renameat2": 316, "ftruncate": 77, "fchown": 93,
}  # fmt: skip
_GENERIC = {
    "read": 63, "write": 64, "close": 57, "ioctl": 29, "socket": 198, "sendmsg": 211,
    "execve": 221, "fchdir": 50, "fchmod": 52, "umask": 166, "ptrace": 117, "syslog": 116,
    "setsid": 157, "setgroups": 159, "setresuid": 147, "setresgid": 149, "capset": 91,
    "personality": 92, "pivot_root": 41, "prctl": 167, "mount": 40, "umount2": 39,
    "sethostname": 161, "setdomainname": 162, "chdir": 49, "chroot": 51, "fcntl": 25,
    "ioprio_set": 30, "keyctl": 219, "add_key": 217, "openat": 56, "mkdirat": 34,
    "mknodat": 33, "fchownat": 54, "unlinkat": 35, "symlinkat": 36, "fchmodat": 53,
    "unshare": 97, "dup3": 24, "pipe2": 59, "prlimit64": 261, "setns": 268,
    "sched_setattr": 274, "sched_setaffinity": 122, "seccomp": 277, "bpf": 280, "execveat": 281,
    "memfd_create": 279, "set_mempolicy": 237, "getpid": 172, "kill": 129, "exit_group": 94,
    "flock": 32, "fsetxattr": 7, "linkat": 37, "renameat2": 276, "ftruncate": 46, "fchown": 55,
}  # fmt: skip
# The same number on every architecture since Linux 5.0.
_COMMON = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439,
    "mount_setattr": 442,
}  # fmt: skip
MACHINE = os.uname().machine
SYSCALLS: dict[str, int] = (_X86_64 if MACHINE == "x86_64" else _GENERIC) | _COMMON

# --- linux/fcntl.h, linux/openat2.h ----------------------------------------------------------
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
O_PATH = 0o10000000
O_NOFOLLOW = os.O_NOFOLLOW
O_DIRECTORY = os.O_DIRECTORY
O_CLOEXEC = os.O_CLOEXEC
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
CLOSE_RANGE_CLOEXEC = 0x4  # linux/close_range.h, Linux 5.11
FD_MAX = 0xFFFFFFFF

# --- linux/sched.h -----------------------------------------------------------------------------
CLONE_VM = 0x100
CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWTIME = 0x80  # only for clone3 and unshare: it overlaps the exit signal of clone
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000  # Linux 5.5
CLONE_INTO_CGROUP = 0x200000000  # Linux 5.7

# --- linux/mount.h -----------------------------------------------------------------------------
MS_RDONLY = 0x1
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 0x2
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# --- linux/prctl.h, linux/securebits.h, linux/seccomp.h ----------------------------------------
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_SET_MODE_FILTER = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# --- asm-generic/ioctls.h, linux/sockios.h, linux/nsfs.h ---------------------------------------
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
NS_GET_NSTYPE = 0xB703

# --- sys/wait.h, sys/socket.h ------------------------------------------------------------------
WALL = 0x40000000
SOL_SOCKET = 1
SCM_RIGHTS = 1
AF_UNIX = 1
AF_INET = 2
SOCK_DGRAM = 2
SOCK_CLOEXEC = 0o2000000
