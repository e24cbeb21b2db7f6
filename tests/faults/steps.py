"""Killing a process of ours at each of its steps.

Owns: `run_killed`.  A step is a call of the process's that can change something
(a system call through ``os``, or one operation of a program's lane); the process is killed just
before it, which is just after the one before.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from jailrun.kernel.execute import load_executor

# Python's functions that change something on the host, or wait for someone who does.
CHANGES = frozenset(
    (
        *("mkdir", "rmdir", "unlink", "rename", "symlink", "open", "write", "close", "chmod"),
        *("flock", "poll", "waitid", "spawn", "syscall", "fork", "pipe2", "execve", "pidfd_open"),
        *("mkfifo", "read", "dup2", "setsid"),
    )
)
FINISHED = 77  # exit status of a process that came to its end


class Steps:
    """Counts the steps of this process and ends it before the one that is asked for."""

    def __init__(self, last: int, who: str) -> None:
        self.last = last
        self.who = who
        self.first_pid = os.getpid()
        self.count = 0

    def step(self) -> None:
        """Count one step, or end here."""
        child = os.getpid() != self.first_pid
        if child != (self.who == "child"):
            return
        self.count += 1
        if self.count > self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Have every step counted from here on."""
        executor = load_executor()
        run_all = executor.run

        def run(buffer: bytearray, first: int, last: int) -> tuple[int, int]:
            for at in range(first, last):
                self.step()
                number, failed = run_all(buffer, at, at + 1)
                if number:
                    return number, failed
            return 0, 0

        executor.run = run  # type: ignore[attr-defined]

        def profile(_frame: object, event: str, function: object) -> None:
            if event == "c_call" and getattr(function, "__name__", "") in CHANGES:
                self.step()

        sys.setprofile(profile)


def run_killed(
    work: Callable[[], object], prepare: Callable[[], object], last: int, who: str = "parent"
) -> bool:
    """Run ``prepare`` and then ``work`` in a new process, killed after ``last`` steps of the work.

    Returns whether it came to its end before.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            prepare()
            steps = Steps(last, who)
            steps.watch()
            work()
            sys.setprofile(None)
            status = FINISHED
        except BaseException:
            sys.setprofile(None)
            if who == "parent":
                traceback.print_exc()
        finally:
            sys.setprofile(None)
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == -signal.SIGKILL:
        return False
    if status != FINISHED and who == "child":
        return False  # its child was killed, and it says so
    assert status == FINISHED, f"it failed by itself: {status}"
    return True
