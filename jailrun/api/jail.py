"""A jail for several commands, which lives as long as the program wants it.

Owns: `Jail`.  Out of scope: one command in a jail of its own (`jailrun.api.once`).

Its process 1 is our small init, which runs nothing and reads from a pipe whose other end only the
owner has: the jail does not depend on the thread that made it, and when the owner is killed it is
gone at once.  What is left on disk then is removed by the next command that makes a jail.
"""

from __future__ import annotations

import weakref

from jailrun.api import once, streams
from jailrun.api.life import IDLE_FD, start_idle
from jailrun.api.process import Ends, Process
from jailrun.api.result import JailTimeoutError, Result
from jailrun.api.streams import DEVNULL
from jailrun.assemble import assemble, assemble_process, assemble_resources
from jailrun.cgroups import stats as cgroup_stats
from jailrun.engine import lifecycle
from jailrun.engine.enter import enter
from jailrun.engine.payload import Streams
from jailrun.engine.record import load
from jailrun.engine.state import PAUSED, STOPPED, read_status
from jailrun.errors import ConflictError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self, Unpack

    from jailrun.api.options import Limits, Options
    from jailrun.api.process import Stream
    from jailrun.images.progress import Progress
    from jailrun.kernel.execute import Execution
    from jailrun.spec.model import Process as ProcessConfig


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
        self._life = start_idle(made.config, made.name, made.image.reference)
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
        self._life.signal_all(number)

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
