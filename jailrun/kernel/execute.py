"""Running a program: the caller's side of both executors, and what the child reports.

Owns: `Execution`.  Out of scope: what is in the program; what to do when it fails.

The messages between the two processes, each on a pipe of its own; the writer's end is closed in
every other process, so that its end is seen:

    caller                                     child
      before lane
      spawn ────────────────────────────────▶  closes all descriptors but those it was given
                                               child lane …
      attach lane  ◀── READY ─────────────────  wait_for_caller
      go           ─── one byte ─────────────▶  child lane …
                   ◀── MOVED pid ─────────────  split: the rest goes on in this new process
                   ◀── NOTED operation, errno   an allowed failure worth telling
                   ◀── FAILED operation, errno  and the child is gone
                   ◀── EXECUTING ─────────────  only execve is left
                   ◀── end of file ───────────  it executed (after EXECUTING) or was killed
"""

from __future__ import annotations

import errno
import os
import select
import time
from _struct import unpack_from
from _thread import allocate_lock

from jailrun.kernel import constants as c
from jailrun.kernel.encode import Encoded, encode
from jailrun.kernel.operation import SPLIT, Operation, OperationError, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from jailrun.kernel.program import Program

FAILED, NOTED, MOVED, READY, EXECUTING = 1, 2, 3, 4, 5
REPORT_BYTES = 16
# The calls whose result is a descriptor.
OPENING = frozenset(
    ("openat", "openat2", "open_tree", "fsopen", "fsmount", "socket", "pidfd_open", "memfd_create")
)


def load_executor() -> ModuleType:
    """Return the native executor, or the ctypes one where it was not built or is not wanted.

    ``JAILRUN_EXECUTOR`` chooses ``native`` or ``ctypes``; without it the native one is taken
    where it exists.
    """
    wanted = os.environ.get("JAILRUN_EXECUTOR", "")
    if wanted not in ("", "native", "ctypes"):
        raise OSError(errno.EINVAL, f"JAILRUN_EXECUTOR={wanted}: not native or ctypes")
    if wanted != "ctypes":
        try:
            from jailrun.kernel import _execute
        except ImportError:
            if wanted:
                raise
        else:
            return _execute
    from jailrun.kernel import fallback

    return fallback


# A child that shares our memory and changes its ids makes that memory undumpable, ours included:
# that is what keeps processes of the jail from looking into it, until the exec.  Then we put
# back what was there before the first of the children that now share it.
_sharing = 0
_dumpable = 1
_sharing_lock = allocate_lock()
_alive: set[Execution] = set()  # keeps the buffers of children that still run in them


class Execution:
    """One run of a program: `run_before`, `spawn`, then `wait` and `go` until it has executed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.executor = load_executor()
        self.encoded: Encoded = encode(program, self.executor.address)
        self.pid = -1
        self.pidfd = -1
        self.notes: list[tuple[Operation, int]] = []
        self.executing = False
        self._report_fd = -1
        self._go_fd = -1
        self._shares = False
        self._done: list[Operation] = []  # what the caller's lanes have done
        # Whether the child that goes on is one that the first child splits off.
        self._awaits_move = any(op.number == SPLIT for op in program.child.operations)

    def run_before(self) -> None:
        """Run the lane ``before``; raise `OperationError` where an operation fails."""
        self._run(self.encoded.before)

    def run_attach(self) -> None:
        """Run the lane ``attach``, for the child that waits."""
        self._run(self.encoded.attach)

    def _run(self, rows: tuple[int, int]) -> None:
        number, at = self.executor.run(self.encoded.buffer, *rows)
        self._done += self.encoded.origin[rows[0] : at if number else rows[1]]
        if number:
            raise OperationError(number, os.strerror(number), self.encoded.origin[at])

    def read_slot(self, slot: Slot) -> int:
        """Return the result in ``slot``, -1 while it is empty."""
        return self.encoded.read_slot(slot)

    def spawn(self, *, cgroup: Slot | None = None, share_memory: bool = True) -> None:
        """Make the child with the program's clone flags, born in ``cgroup`` (v2) if one is given.

        ``share_memory=False`` copies the caller's memory instead, as a child needs that joins a
        time namespace or waits for long.  Raises OSError where the kernel refuses the clone.
        """
        flags = self.program.clone_flags
        if share_memory and self.executor.SHARES_MEMORY:
            flags |= c.CLONE_VM
            _begin_sharing()
            self._shares = True
        try:
            cgroup_fd = self.read_slot(cgroup) if cgroup else -1
            self.pid, self.pidfd, self._report_fd, self._go_fd = self.executor.spawn(
                self.encoded.buffer, *self.encoded.child, flags, cgroup_fd, self.program.go_fd.index
            )
        except BaseException:
            self._end_sharing()
            raise
        _alive.add(self)
        self.encoded.write_slot(self.program.pid, self.pid)

    def wait(self, seconds: float) -> bool:
        """Wait for the child's next word: True if it has executed, False if it waits for `go`.

        Raises `OperationError` where one of its operations failed (it is then gone and reaped),
        TimeoutError after ``seconds``, and ChildProcessError if it was killed.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._report_fd, select.POLLIN)
        ready = False
        while not ready or self._awaits_move:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"no word from the new process in {seconds} s")
            data = os.read(self._report_fd, 64 * REPORT_BYTES)
            if not data:
                return self._ended()
            for at in range(0, len(data), REPORT_BYTES):
                ready |= self._handle(*unpack_from("<IIi", data, at))
        return False

    def _handle(self, kind: int, row: int, value: int) -> bool:
        """Take one report; return whether the child waits now."""
        if kind == FAILED:
            operation = self.encoded.origin[row]
            self.abandon()
            raise OperationError(value, os.strerror(value), operation)
        if kind == NOTED:
            self.notes.append((self.encoded.origin[row], value))
        elif kind == MOVED:
            first, self.pid, self.pidfd = self.pidfd, value, os.pidfd_open(value)
            reap(first)
            self.encoded.write_slot(self.program.pid, value)
            self._awaits_move = False
        elif kind == EXECUTING:
            self.executing = True
        return kind == READY

    def _ended(self) -> bool:
        """Close what the start needed, at the end of the child's reports."""
        if not self.executing:
            status = self.abandon()
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise ChildProcessError(errno.ECHILD, f"the new process ended early, {how}")
        self.forget()
        return True

    def go(self) -> None:
        """Let the child go on that waits."""
        os.write(self._go_fd, b"\0")

    def abandon(self) -> int:
        """Kill the child, if there is one, and reap it; return its exit status or -signal."""
        status = 0
        if self.pidfd >= 0:
            send_signal(self.pidfd, 9)
            status = reap(self.pidfd)
            self.pidfd = -1
        self.forget()
        return status

    def forget(self) -> None:
        """Let go of all that only the start needed; the child, if any, lives on."""
        for fd in (self._report_fd, self._go_fd):
            if fd >= 0:
                os.close(fd)
        self._report_fd = self._go_fd = -1
        self._end_sharing()
        _alive.discard(self)

    def _end_sharing(self) -> None:
        if self._shares:
            self._shares = False
            _finish_sharing()

    def close_opened(self) -> None:
        """Close the caller's copies of the descriptors that its lanes have left open so far."""
        opened = {}
        for operation in self._done:
            if operation.name in OPENING:
                opened[operation.result.index] = operation.result
            elif operation.name == "close":
                for argument in operation.args:
                    if isinstance(argument, Slot):
                        opened.pop(argument.index, None)
        for slot in opened.values():
            fd = self.read_slot(slot)
            if fd >= 0:
                os.close(fd)
                self.encoded.write_slot(slot, -1)
        self._done = []


def _begin_sharing() -> None:
    global _sharing, _dumpable
    with _sharing_lock:
        if _sharing == 0:
            _dumpable = syscall("prctl", c.PR_GET_DUMPABLE)
        _sharing += 1


def _finish_sharing() -> None:
    global _sharing
    with _sharing_lock:
        _sharing -= 1
        if _sharing == 0 and _dumpable == 1:
            syscall("prctl", c.PR_SET_DUMPABLE, 1)


def syscall(name: str, *args: int) -> int:
    """Make one system call in the caller; raise OSError where it fails."""
    result = int(load_executor().syscall(c.SYSCALLS[name], *args))
    if result < 0:
        raise OSError(-result, os.strerror(-result), name)
    return result


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process of a pidfd (Linux 5.1); return False if it is gone."""
    try:
        syscall("pidfd_send_signal", pidfd, number, 0, 0)
    except ProcessLookupError:
        return False
    return True


def reap(pidfd: int) -> int:
    """Wait for the child of a pidfd to end, and close the pidfd.

    Returns its exit status, or minus the signal that killed it.  Where someone else in this
    process has reaped the child already, its status is lost and 255 is returned.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return 255
    finally:
        os.close(pidfd)
    assert result is not None  # noqa: S101 - without WNOHANG there is always a result
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
