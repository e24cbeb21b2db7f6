"""The ctypes executor: the same programs, results and errors where the native one is missing.

Owns: the same functions as ``_execute.c``.  It is slower, since the child is a copy of the caller.

`spawn` forks twice: the first child, forked by Python with its precautions, has one thread only
and may therefore clone from Python; it makes the child that counts as one more child of the
caller (CLONE_PARENT) and is gone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from _struct import Struct as Layout
from _struct import pack, pack_into, unpack, unpack_from

from jailrun.kernel import constants as c
from jailrun.kernel.encode import HEADER, OPERATION
from jailrun.kernel.operation import (
    ANY_ERROR,
    DROP,
    EXACT,
    FORMAT,
    KEEP,
    NETLINK,
    NOTE,
    SIGNALS,
    SPLIT,
    STORE32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SHARES_MEMORY = False
FAILED, NOTED, MOVED = 1, 2, 3
_NSIG = 64
_UNBLOCKABLE = (9, 19)
_RT_SIGACTION, _RT_SIGPROCMASK = (13, 14) if c.MACHINE == "x86_64" else (134, 135)
_SENDTO, _RECVFROM = (44, 45) if c.MACHINE == "x86_64" else (206, 207)
_MSG_DONTWAIT = 0x40
_NLMSG_ERROR, _RTM_NEWLINK = 2, 16
_ANSWER = Layout("<IHHIIiiii")  # struct nlmsghdr, then an error, or in second place an index

# PyDLL keeps the interpreter's lock: after a clone the child holds it, as its only thread.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_int64] * 6
# The caller's may block, as flock does: another thread of ours may be the one to end that.
_unlocked = ctypes.CDLL(None, use_errno=True)
_unlocked.syscall.restype = ctypes.c_long
_unlocked.syscall.argtypes = [ctypes.c_long] + [ctypes.c_int64] * 6


def address(buffer: bytearray) -> int:
    """Return where the buffer lies in memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def syscall(number: int, *args: int) -> int:
    """Make one raw system call; return its result, or minus errno."""
    result: int = _libc.syscall(number, *args, *(0,) * (6 - len(args)))
    return result if result >= 0 else -ctypes.get_errno()


def _waiting_syscall(number: int, *args: int) -> int:
    """Make one raw system call while other threads go on."""
    result: int = _unlocked.syscall(number, *args, *(0,) * (6 - len(args)))
    return result if result >= 0 else -ctypes.get_errno()


def run(buffer: bytearray, first: int, last: int) -> tuple[int, int]:
    """Run operations in the caller; return (errno or 0, number of the operation)."""
    return _Run(buffer, in_child=False).interpret(first, last)


def spawn(
    buffer: bytearray, first: int, last: int, flags: int, cgroup_fd: int, go_slot: int
) -> tuple[int, int, int, int]:
    """Run operations in a new child; return (pid, pidfd, reports, word to go on)."""
    child = _Run(buffer, in_child=True)
    report_read, report_write = map(_above_standard, os.pipe2(os.O_CLOEXEC))
    go_read, go_write = map(_above_standard, os.pipe2(os.O_CLOEXEC))
    pid_read, pid_write = os.pipe2(os.O_CLOEXEC)
    child.write_slot(child.report_slot, report_write)
    child.write_slot(go_slot, go_read)
    pid = os.fork()
    if pid == 0:
        _block_signals()
        cloned = _clone(flags | c.CLONE_PARENT, cgroup_fd)
        if cloned == 0:
            child.main(first, last)
        os.write(pid_write, pack("<i", cloned))
        os._exit(0)
    for fd in (report_write, go_read, pid_write):
        os.close(fd)
    answer = os.read(pid_read, 4)
    os.close(pid_read)
    os.waitpid(pid, 0)
    cloned = unpack("<i", answer)[0] if len(answer) == 4 else -errno.ECHILD
    if cloned < 0:
        os.close(report_read)
        os.close(go_write)
        raise OSError(-cloned, os.strerror(-cloned))
    return cloned, os.pidfd_open(cloned), report_read, go_write


def _above_standard(fd: int) -> int:
    """Move a descriptor out of the way of the child's standard streams."""
    if fd > 9:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


def _clone(flags: int, cgroup_fd: int) -> int:
    """Make clone3 as a fork would: a copy of the memory, going on here twice."""
    flags |= c.CLONE_CLEAR_SIGHAND
    if cgroup_fd >= 0:
        flags |= c.CLONE_INTO_CGROUP
    exit_signal = 0 if flags & c.CLONE_PARENT else 17
    args = ctypes.create_string_buffer(
        pack("<11Q", flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0))
    )
    return syscall(c.SYSCALLS["clone3"], ctypes.addressof(args), 88)


def _block_signals() -> None:
    mask = ctypes.c_uint64(2**64 - 1)
    syscall(_RT_SIGPROCMASK, 2, ctypes.addressof(mask), 0, 8)


class _Run:
    """The interpreter; see ``interpret`` in _interpret.c, of which this is the copy in Python."""

    def __init__(self, buffer: bytearray, *, in_child: bool) -> None:
        self.buffer = buffer
        self.base = address(buffer)
        self.in_child = in_child
        header = HEADER.unpack_from(buffer)
        self.operations_at, self.slots_at, self.report_slot = header[3], header[4], header[7]
        self.slots = (ctypes.c_int64 * header[2]).from_buffer(buffer, self.slots_at)
        self.last = 0
        self.pseudo: dict[int, Callable[[int, list[int]], int]] = {
            FORMAT: self._format,
            STORE32: self._store,
            SPLIT: self._split,
            SIGNALS: self._reset_signals,
            KEEP: self._keep_only,
            DROP: self._drop_capabilities,
            NETLINK: self._talk,
        }

    def write_slot(self, index: int, value: int) -> None:
        """Put a number into a slot."""
        self.slots[index] = value

    def main(self, first: int, last: int) -> None:
        """Be the child: run, report a failure, end."""
        try:
            number, at = self.interpret(first, last)
            if number:
                self._report(FAILED, at, number)
        finally:
            os._exit(125)

    def interpret(self, first: int, last: int) -> tuple[int, int]:
        """Run the operations; return (errno or 0, number of the operation)."""
        self.last = last
        for at in range(first, last):
            row = OPERATION.unpack_from(self.buffer, self.operations_at + at * OPERATION.size)
            number, result, needs, slot_mask, pointer_mask, flags = row[:6]
            allow, args = row[6:9], list(row[9:])
            empty = needs >= 0 and self.slots[needs] < 0
            for i in range(6):
                if slot_mask >> i & 1:
                    args[i] = self.slots[args[i]]
                    empty |= args[i] < 0
                elif pointer_mask >> i & 1:
                    args[i] += self.base
            self.slots[result] = -1
            if empty:
                continue
            value = self._perform(at, number, flags, args)
            if value >= 0:
                self.slots[result] = value
            elif not flags & ANY_ERROR and -value not in allow:
                return -value, at
            elif flags & NOTE and self.in_child:
                self._report(NOTED, at, -value)
        return 0, 0

    def _perform(self, at: int, number: int, flags: int, args: list[int]) -> int:
        if number < 0:
            return self.pseudo[number](at, args)
        call = syscall if self.in_child else _waiting_syscall
        value = -errno.EINTR
        while value == -errno.EINTR:
            value = call(number, *args)
        return -errno.EPIPE if value >= 0 and flags & EXACT and value != args[2] else value

    def _report(self, kind: int, at: int, value: int) -> None:
        os.write(self.slots[self.report_slot], pack("<IIiI", kind, at, value, 0))

    def _format(self, _at: int, args: list[int]) -> int:
        text = ctypes.string_at(args[1]).replace(b"%", b"%d" % args[2], 1) + b"\0"
        ctypes.memmove(args[0], text, len(text))
        return 0

    def _store(self, _at: int, args: list[int]) -> int:
        ctypes.c_int32.from_address(args[0]).value = args[1]
        return 0

    def _split(self, at: int, args: list[int]) -> int:
        pid = _clone((args[0] & ~c.CLONE_VM) | c.CLONE_PARENT, -1)
        if pid == 0:
            self.main(at + 1, self.last)
        if pid > 0:
            self._report(MOVED, at, pid)
            os._exit(0)
        return pid

    def _reset_signals(self, _at: int, _args: list[int]) -> int:
        action, mask = ctypes.create_string_buffer(32), ctypes.c_uint64(0)
        for number in range(1, _NSIG + 1):
            if number not in _UNBLOCKABLE:
                syscall(_RT_SIGACTION, number, ctypes.addressof(action), 0, 8)
        return syscall(_RT_SIGPROCMASK, 2, ctypes.addressof(mask), 0, 8)

    def _keep_only(self, _at: int, args: list[int]) -> int:
        table = (ctypes.c_int64 * (2 * args[1])).from_address(args[0])
        fds = {self.slots[table[i]] if table[i + 1] else table[i] for i in range(0, len(table), 2)}
        following = 0
        for fd in sorted(fd for fd in fds if fd >= 0):
            if fd > following:
                syscall(c.SYSCALLS["close_range"], following, fd - 1, 0)
            following = fd + 1
        return syscall(c.SYSCALLS["close_range"], following, c.FD_MAX, 0)

    def _drop_capabilities(self, _at: int, args: list[int]) -> int:
        result = number = 0
        while args[0] >> number and result >= 0:
            if args[0] >> number & 1:
                result = syscall(c.SYSCALLS["prctl"], c.PR_CAPBSET_DROP, number)
            number += 1
        return result

    def _talk(self, at: int, args: list[int]) -> int:
        message = args[1] - self.base
        (length,) = unpack_from("<I", self.buffer, message)
        pack_into("<I", self.buffer, message + 8, at + 1)
        answer = ctypes.create_string_buffer(_ANSWER.size)
        result = -errno.EINTR
        while result == -errno.EINTR:
            result = syscall(_SENDTO, args[0], args[1], length)
        index = 0
        while result >= 0:
            result = syscall(
                _RECVFROM, args[0], ctypes.addressof(answer), len(answer), _MSG_DONTWAIT
            )
            _, kind, _, sequence, _, error, link, _, _ = _ANSWER.unpack(answer.raw)
            if result < len(answer) or sequence != at + 1:
                continue
            if kind == _NLMSG_ERROR:
                return error or index
            if kind == _RTM_NEWLINK:
                index = link
        return result
