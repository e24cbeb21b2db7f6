"""A jail for several commands, which lives as long as the program wants it.

Owns: `Jail`.  Out of scope: one command in a jail of its own (`jailrun.api.once`).

Its process 1 is our small init, which runs nothing and reads from a pipe whose other end only the
owner has: the jail does not depend on the thread that made it, and when the owner is killed it is
gone at once.  What is left on disk then is removed by the next command that makes a jail.
"""

from __future__ import annotations

import os
import select
import time
import weakref
from _thread import allocate_lock

from jailrun.api import once, streams
from jailrun.api.process import Ends, Process
from jailrun.api.result import JailTimeoutError, Result
from jailrun.api.streams import DEVNULL
from jailrun.assemble import assemble, assemble_process, assemble_resources
from jailrun.cgroups import control
from jailrun.cgroups import stats as cgroup_stats
from jailrun.engine import lifecycle
from jailrun.engine.enter import enter
from jailrun.engine.launch import Request, launch
from jailrun.engine.payload import Streams
from jailrun.engine.record import Lock, load
from jailrun.engine.state import ALIVE, PAUSED, STOPPED, read_status
from jailrun.errors import ConflictError, JailError, NotFoundError
from jailrun.kernel.execute import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self, Unpack

    from jailrun.api.options import Limits, Options
    from jailrun.api.process import Stream
    from jailrun.engine.record import Record
    from jailrun.images.progress import Progress
    from jailrun.kernel.execute import Execution
    from jailrun.spec.model import Process as ProcessConfig

SIGTERM = 15
IDLE_FD = 3  # the first of Streams.extra


class Jail:
    """A running jail: made by the constructor, gone after `close` or a ``with`` block.

    ``image`` is the name, folder or archive of its root file system; one that is missing is
    built, unless ``build`` is false, and ``progress`` is told of that.  ``options`` are limits,
    files, rights and so on: see ``docs/reference/python.md``.  Raises JailError and its subclasses.

    Any thread may use it.  A forked child of the program may run commands in it, too, and neither
    ends nor removes it.  One that is dropped is closed, as all are when the program ends.
    """

    def __init__(
        self,
        image: str = "busybox",
        *,
        progress: Progress | None = None,
        build: bool = True,
        **options: Unpack[Options],
    ) -> None:
        once.recover_once()
        made = assemble(
            image,
            ["--idle", str(IDLE_FD)],
            progress=progress,
            build=build,
            **{**options, "entrypoint": [], "init": True, "tty": False},  # type: ignore[arg-type]
        )
        self._process: ProcessConfig = made.config["process"]
        self._life = Life(made.name, *_launch(made.config, made.name, made.image.reference))
        self._finalizer = weakref.finalize(self, self._life.end)

    # --- what it is ----------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """Its name, under which the command line knows it, too."""
        return self._life.name

    @property
    def pid(self) -> int:
        """The number on the host of its process 1."""
        return self._life.pid

    @property
    def path(self) -> str:
        """Its root as a folder of the host, while it runs.

        What is in it is the jail's to change: an absolute link in it leads to the host's files.
        """
        return f"/proc/{self._life.pid}/root"

    @property
    def state(self) -> str:
        """``running``, ``paused`` or ``stopped``, asked of the kernel."""
        try:
            return read_status(load(self.name))
        except NotFoundError:
            return STOPPED

    def __repr__(self) -> str:
        return f"<Jail {self.name} {self.state}>"

    # --- commands ------------------------------------------------------------------------------
    def run(
        self,
        command: Sequence[str],
        *,
        input: bytes | str | None = None,
        capture: bool = True,
        timeout: float | None = None,
        check: bool = False,
        user: str | int | None = None,
        env: list[str] | dict[str, str] | None = None,
        cwd: str | None = None,
    ) -> Result:
        """Run a command in the jail and return how it ended.

        As `jailrun.run`, but ``timeout`` kills the command alone.  ``user`` (a name of the jail's
        or a number, with ``:group`` if wanted), ``env`` (added to the jail's) and ``cwd`` are the
        jail's own where they are not given.
        """
        words = streams.check_command(command)
        exchange = streams.Exchange(input, capture=capture)
        process = None
        try:
            theirs = (exchange.theirs[0], exchange.theirs[1], exchange.theirs[2])
            handed = Streams(theirs, owned=tuple(exchange.made))
            # The calling thread waits: if it is gone, nobody wants the command any more.
            execution = self._enter(words, handed, user, env, cwd, attached=True)
            process = Process(words, execution.pid, execution.pidfd)
            exchange.close_theirs()
            in_time = exchange.go_on(process.pidfd, timeout)
            if not in_time:
                self._kill(process, exchange)
        except BaseException:
            if process is not None:
                self._kill(process, exchange)
            raise
        finally:
            exchange.close()
        stdout, stderr = exchange.collect()
        if not in_time:
            raise JailTimeoutError(words, timeout or 0.0, stdout, stderr)
        status, events = process.reap(), self._life.read_events()
        result = Result(
            words, status, stdout, stderr, cpu_seconds=process.cpu_seconds, events=events
        )
        return result.check() if check else result

    def _kill(self, process: Process, exchange: streams.Exchange) -> None:
        process.kill()
        if exchange.go_on(process.pidfd, once.SOON_SECONDS):
            process.wait()
        else:
            self._life.adopt(process)  # it is frozen, and ends when the jail goes on or ends

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: Stream = DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        user: str | int | None = None,
        env: list[str] | dict[str, str] | None = None,
        cwd: str | None = None,
    ) -> Process:
        """Start a command in the jail and return at once; it ends with the jail at the latest.

        ``stdin``, ``stdout``, ``stderr``: a descriptor, an open file, None for the program's own,
        or as in subprocess PIPE, DEVNULL and, for ``stderr``, STDOUT.
        """
        words = streams.check_command(command)
        ends = Ends(stdin, stdout, stderr)
        try:
            theirs = (ends.theirs[0], ends.theirs[1], ends.theirs[2])
            handed = Streams(theirs, owned=tuple(fd for fd in ends.made if fd in theirs))
            execution = self._enter(words, handed, user, env, cwd, attached=False)
            ends.close_theirs()
        except BaseException:
            ends.close()
            raise
        process = Process(words, execution.pid, execution.pidfd, ends.files)
        self._life.adopt(process)
        return process

    def _enter(
        self,
        words: list[str],
        handed: Streams,
        user: str | int | None,
        env: list[str] | dict[str, str] | None,
        cwd: str | None,
        *,
        attached: bool,
    ) -> Execution:
        try:
            process = assemble_process(
                self.pid, self._process, words, user=user, env=env, workdir=cwd
            )
            return enter(self.name, process, streams=handed, attached=attached)
        except NotFoundError:
            raise ConflictError(f"cannot execute in jail {self.name}: it is stopped") from None
        finally:
            handed.close()

    # --- the jail as a whole -------------------------------------------------------------------
    def signal(self, number: int) -> None:
        """Send a signal to every command in the jail."""
        for _, pidfd in self._life.open_processes():
            send_signal(pidfd, number)
            os.close(pidfd)

    def pause(self) -> None:
        """Freeze every process of the jail; commands wait, their time-outs go on."""
        lifecycle.pause(self.name)

    def resume(self) -> None:
        """Let a paused jail go on."""
        lifecycle.resume(self.name)

    def update(self, **limits: Unpack[Limits]) -> None:
        """Change limits while the jail runs: all of those given, or none where one is refused."""
        config = load(self.name).read_config()
        lifecycle.update(self.name, assemble_resources(config, **limits))

    def stats(self) -> dict[str, Any]:
        """Return what it uses now: cpu (ns), memory (bytes), pids, blkio, hugetlb, as runc does."""
        return cgroup_stats.stats(load(self.name).cgroups)

    def events(self) -> dict[str, int]:
        """Return how often it hit its limits since its start, and its peaks; see `Result`."""
        return cgroup_stats.read_events(load(self.name).cgroups)

    def stop(self, timeout: float = 10.0) -> None:
        """Ask every command to end (SIGTERM), wait ``timeout`` seconds at most, then `close`."""
        try:
            if self.state == PAUSED:
                self.resume()
            self._life.terminate(timeout)
        except (ConflictError, NotFoundError):
            pass  # it has ended
        finally:
            self.close()

    def close(self) -> None:
        """Kill what runs in the jail and remove it; nothing where that is done already."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _launch(config: object, name: str, image: str) -> tuple[Execution, int]:
    """Start a jail with our idle init; return its execution and the pipe that keeps it alive."""
    reader, writer = streams.make_pipe()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        handed = Streams((null, null, null), extra=(reader,))
        execution = launch(config, Request(name, streams=handed, remove=True, image=image))
        try:
            # Whoever finds it without its owner removes it, even where its init was kept from
            # ending; but it does not die with this thread, as Request.attached would have it.
            with Lock(name) as record:
                record.attached = True
                record.write()
        except BaseException:
            once.kill(name, execution.pidfd)
            status, _ = streams.reap(execution.pid, execution.pidfd)
            os.close(execution.pidfd)
            once.finish(name, status, -1)
            raise
    except BaseException:
        streams.close(writer)
        raise
    finally:
        os.close(reader)
        os.close(null)
    return execution, writer


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
        try:
            self._alive = streams.own(load(name).hold())
        except BaseException:
            self.end()
            raise

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

    def open_processes(self) -> list[tuple[int, int]]:
        """Return pid and pidfd of every process in the jail but its init."""
        record: Record = load(self.name)
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
        once.kill(self.name, self._pidfd)
        status, _ = streams.reap(self.pid, self._pidfd)
        os.close(self._pidfd)
        for process in self._processes:
            process.wait()
        alive, self._alive = self._alive, -1
        once.finish(self.name, status, alive)
