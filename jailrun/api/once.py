"""A jail for one command: `run`, as subprocess.run is for a process.

Owns: `run` and `recover_once`.  Out of scope: jails that stay for several commands
(`jailrun.api.jail`).

The jail dies with the thread that called `run`, which waits for it.  Nothing here starts a thread
or imports a module at each call: from start to end it costs little more than the jail itself.
"""

from __future__ import annotations

import os

from jailrun import paths
from jailrun.api import streams
from jailrun.api.result import JailTimeoutError, Result, host_status
from jailrun.assemble import assemble
from jailrun.cgroups.stats import read_events
from jailrun.engine import lifecycle
from jailrun.engine.launch import Request, launch
from jailrun.engine.payload import Streams
from jailrun.errors import JailError, NotFoundError
from jailrun.kernel.execute import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from jailrun.api.options import RunOptions
    from jailrun.images.progress import Progress

SOON_SECONDS = 1.0  # a process that was killed and is not frozen has ended by then

_recovered: set[tuple[int, str]] = set()


def recover_once() -> None:
    """Remove what crashed programs have left, once in a process."""
    key = (os.getpid(), paths.run_dir())
    if key not in _recovered:
        _recovered.add(key)
        lifecycle.recover()


def run(
    command: Sequence[str],
    *,
    image: str = "busybox",
    input: bytes | str | None = None,
    capture: bool = True,
    timeout: float | None = None,
    check: bool = False,
    progress: Progress | None = None,
    build: bool = True,
    **options: Unpack[RunOptions],
) -> Result:
    """Run a command in a jail of its own and return how it ended; the jail is gone then.

    ``image``     name, folder or archive; one that is missing is built, unless ``build`` is false,
                  and ``progress`` is told of that
    ``input``     what the command reads (text as UTF-8); without it, nothing: /dev/null
    ``capture``   collect standard output and error; else they are the caller's own
    ``timeout``   seconds until the jail is killed and `JailTimeoutError` is raised
    ``check``     raise `CommandFailedError` where the exit status is not 0
    ``options``   limits, files, rights, …: see ``docs/reference/python.md``

    Raises JailError and its subclasses; `CommandNotFoundError` and `CommandNotExecutableError`
    where the command cannot be started.
    """
    words = streams.check_command(command)
    recover_once()
    made = assemble(image, words, progress=progress, build=build, **options)
    exchange = streams.Exchange(input, capture=capture)
    execution, alive = None, -1
    try:
        theirs = (exchange.theirs[0], exchange.theirs[1], exchange.theirs[2])
        request = Request(
            made.name,
            streams=Streams(theirs, owned=tuple(exchange.made)),
            attached=True,
            remove=True,
            image=made.image.reference,
        )
        execution = launch(made.config, request)
        exchange.close_theirs()
        record = execution.record
        if options.get("name"):  # someone else may know it, and wait for its status
            alive = streams.own(record.hold())
        in_time = exchange.go_on(execution.pidfd, timeout)
        if not in_time:
            kill(made.name, execution.pidfd)
            exchange.go_on(execution.pidfd, None)
        status, seconds = streams.reap(execution.pid, execution.pidfd)
        events = read_events(record.cgroups)
    except BaseException:
        if execution is not None:
            kill(made.name, execution.pidfd)
            status, _ = streams.reap(execution.pid, execution.pidfd)
            _finish(made.name, status, execution.pidfd, alive)
        raise
    finally:
        exchange.close()
    _finish(made.name, status, execution.pidfd, alive)
    stdout, stderr = exchange.collect()
    if not in_time:
        raise JailTimeoutError(words, timeout or 0.0, stdout, stderr)
    result = Result(words, status, stdout, stderr, cpu_seconds=seconds, events=events)
    return result.check() if check else result


def kill(name: str, pidfd: int) -> None:
    """Kill a jail: its init, which takes all others with it, even where it is paused."""
    send_signal(pidfd, 9)
    if not streams.has_ended(pidfd, SOON_SECONDS):
        try:
            lifecycle.signal(name, 9, everyone=True)
        except JailError:
            return  # it has ended


def _finish(name: str, status: int, pidfd: int, alive: int) -> None:
    os.close(pidfd)
    finish(name, status, alive)


def finish(name: str, status: int, alive: int) -> None:
    """Give back all that a jail had; ``alive`` is the descriptor that holds it, or -1."""
    streams.disown(alive)
    try:
        lifecycle.finish(name, host_status(status), alive_fd=alive)
    except NotFoundError:
        return  # someone has removed it by force
