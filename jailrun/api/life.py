"""What keeps a jail alive whose process 1 is our idle init, and how it ends.

Owns: `start_idle`, `Life`.  Out of scope: what is done with the jail (`jailrun.api.jail`).
"""

from __future__ import annotations

import os
import select
import time
from _thread import allocate_lock

from jailrun.api import once, streams
from jailrun.cgroups import control
from jailrun.cgroups import stats as cgroup_stats
from jailrun.engine import lifecycle
from jailrun.engine.launch import Request, launch
from jailrun.engine.payload import Streams
from jailrun.engine.record import Lock, load
from jailrun.engine.state import ALIVE, PAUSED, read_status
from jailrun.errors import ConflictError, JailError
from jailrun.kernel.execute import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.api.process import Process
    from jailrun.kernel.execute import Execution

SIGTERM = 15
IDLE_FD = 3  # the first of Streams.extra
END_SECONDS = 10.0  # far above what the end of a killed process takes


def start_idle(config: object, name: str, image: str) -> Life:
    """Start a jail whose config has our idle init; return what keeps it alive."""
    reader, writer = streams.make_pipe()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        handed = Streams((null, null, null), extra=(reader,))
        execution = launch(config, Request(name, streams=handed, remove=True, image=image))
    except BaseException:
        streams.close(writer)
        raise
    finally:
        os.close(reader)
        os.close(null)
    life = Life(name, execution, writer)
    try:
        life.claim()
    except BaseException:
        life.end()
        raise
    return life


class Life:
    """What keeps a jail alive, and ends it: apart from `Jail`, whose end it outlives."""

    def __init__(self, name: str, execution: Execution, writer: int) -> None:
        self.name = name
        self.pid = execution.pid
        self.owner = os.getpid()
        self._pidfd = execution.pidfd
        self._writer = writer
        self._alive = -1
        self._ended = False
        self._lock = allocate_lock()
        self._processes: list[Process] = []

    def claim(self) -> None:
        """Note whose the jail is.

        Whoever finds it without its owner removes it, even where its init was kept from ending;
        but it does not die with this thread, as `Request.attached` would have it.
        """
        with Lock(self.name) as record:
            record.attached = True
            record.write()
            self._alive = streams.own(record.hold())

    def adopt(self, process: Process) -> None:
        """Have a process reaped when the jail ends, or at the next start after its own end."""
        with self._lock:
            self._processes = [one for one in self._processes if one.poll() is None]
            self._processes.append(process)

    def read_events(self) -> dict[str, int]:
        """Return the events so far, none where the jail is gone."""
        try:
            return cgroup_stats.read_events(load(self.name).cgroups)
        except JailError:
            return {}

    def signal_all(self, number: int) -> None:
        """Send a signal to every process in the jail but its init."""
        for _, pidfd in self.open_processes():
            send_signal(pidfd, number)
            os.close(pidfd)

    def open_processes(self) -> list[tuple[int, int]]:
        """Return pid and pidfd of every process in the jail but its init."""
        record = load(self.name)
        if read_status(record) not in ALIVE:
            raise ConflictError(f"jail {self.name} is stopped")
        found = []
        for pid in control.processes(record.cgroups):
            if pid != record.pid:
                try:
                    found.append((pid, os.pidfd_open(pid)))
                except ProcessLookupError:
                    continue
        # Between the list and the descriptor a pid may have found a new owner.
        still = set(control.processes(record.cgroups))
        for pid, pidfd in found:
            if pid not in still:
                os.close(pidfd)
        return [(pid, pidfd) for pid, pidfd in found if pid in still]

    def terminate(self, seconds: float) -> None:
        """Send SIGTERM to all and wait until they have ended, so long at most."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        waiting = set()
        try:
            for _, pidfd in self.open_processes():
                waiting.add(pidfd)
                poll.register(pidfd, select.POLLIN)
                send_signal(pidfd, SIGTERM)
            while waiting and (left := deadline - time.monotonic()) > 0:
                for pidfd, _ in poll.poll(left * 1000):
                    poll.unregister(pidfd)
                    waiting.remove(pidfd)
                    os.close(pidfd)
        finally:
            for pidfd in waiting:
                os.close(pidfd)

    def end(self) -> None:
        """End the jail and remove it, unless that is done, or this is a child of its owner."""
        if os.getpid() != self.owner:
            return  # and the lock may have been held by another thread when we were forked
        with self._lock:
            if self._ended:
                return
            self._ended = True
        streams.close(self._writer)
        send_signal(self._pidfd, 9)
        self._thaw()
        # Before the init, which ends only when no process of its pid namespace waits to be reaped.
        for process in self._processes:
            if streams.has_ended(process.pidfd, END_SECONDS):
                process.reap()
        if not streams.has_ended(self._pidfd, END_SECONDS):
            raise JailError(
                f"cannot end jail {self.name}: its process {self.pid} is still there",
                hint="another program started a process in it and has not waited for that",
            )
        status, _ = streams.reap(self.pid, self._pidfd)
        os.close(self._pidfd)
        alive, self._alive = self._alive, -1
        once.finish(self.name, status, alive)

    def _thaw(self) -> None:
        """Let a paused jail go on, which on cgroup v1 could not die."""
        try:
            if read_status(load(self.name)) == PAUSED:
                lifecycle.resume(self.name)
        except JailError:
            return  # it has ended, or someone else was faster
