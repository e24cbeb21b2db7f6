"""What is done to the cgroups of a jail as a whole: freeze, thaw, kill, list, remove.

Owns: these, and their waiting.  Everything works from the record alone, whatever is left of it.
Out of scope: limits (`live`), figures (`stats`), single processes (the engine, by pidfd).

v2 tells by a poll event when a cgroup is frozen or empty; v1 tells nobody, and is asked again
every 2 ms.  Linux 6.18: once `kill` was used, a clone3 into the same v2 cgroup dies at once, so a
killed cgroup is never used again, only released.
"""

from __future__ import annotations

import errno
import os
import select
import time
from fcntl import LOCK_EX, LOCK_NB, flock

from jailrun.cgroups.errors import refusal
from jailrun.cgroups.hierarchy import PARENT, UNIFIED, read_hierarchies, read_text
from jailrun.cgroups.plan import ENABLED, lock_path
from jailrun.errors import CgroupError, NotFoundError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SIGKILL = 9
ASK_AGAIN_MS = 2
LOCK_SECONDS = 1.0
GONE = (errno.ENOENT, errno.ENODEV)


def write_text(path: str, text: str, what: str) -> None:
    """Write ``text`` in one call; raise the facility's error, ``cannot {what} {path}``."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise refusal(error.errno or 0, what, path) from error


def freezer_of(cgroups: Mapping[str, str]) -> str:
    """Return the directory of the v1 freezer, empty where the jail is not in it."""
    return next((cgroups[key] for key in cgroups if "freezer" in key.split(",")), "")


def freeze(cgroups: Mapping[str, str], *, seconds: float = 10.0) -> None:
    """Stop every process of the jail where it is; return when they have all stopped.

    Raise `CgroupError`, and leave them running, if that takes longer than ``seconds``.
    """
    _set_frozen(cgroups, frozen=True, seconds=seconds)


def thaw(cgroups: Mapping[str, str], *, seconds: float = 10.0) -> None:
    """Let every process of the jail go on; nothing happens to one that runs."""
    _set_frozen(cgroups, frozen=False, seconds=seconds)


def is_frozen(cgroups: Mapping[str, str]) -> bool:
    """Tell whether the jail is frozen, or about to be."""
    try:
        if UNIFIED in cgroups:
            return read_text(f"{cgroups[UNIFIED]}/cgroup.freeze").strip() == "1"
        path = freezer_of(cgroups)
        return bool(path) and read_text(f"{path}/freezer.state").strip() != "THAWED"
    except OSError as error:
        if error.errno in GONE:
            return False
        raise


def _set_frozen(cgroups: Mapping[str, str], *, frozen: bool, seconds: float) -> None:
    verb = "freeze" if frozen else "thaw"
    if UNIFIED in cgroups:
        path = cgroups[UNIFIED]
        file, words = f"{path}/cgroup.freeze", ("0", "1")
        wanted = f"frozen {int(frozen)}"

        def wait(deadline: float) -> bool:
            return _wait_for_event(path, wanted, deadline)

    elif path := freezer_of(cgroups):
        file, words = f"{path}/freezer.state", ("THAWED", "FROZEN")

        def wait(deadline: float) -> bool:
            return _ask_until(lambda: read_text(file).strip() == words[frozen], deadline)

    else:
        raise UnsupportedError(f"cannot {verb} the jail: it is in no v2 cgroup and no v1 freezer")
    if not os.path.isdir(path):
        raise NotFoundError(f"cannot {verb} the jail: its cgroup {path} is gone")
    write_text(file, words[frozen], f"{verb} by")
    if not wait(time.monotonic() + seconds):
        if frozen:
            write_text(file, words[False], "thaw by")
        raise CgroupError(
            f"cannot {verb} {path}: not done after {seconds:g} s",
            hint="a process in an uninterruptible wait cannot be frozen: ps -eo pid,stat,wchan",
        )


def _ask_until(condition: Callable[[], bool], deadline: float) -> bool:
    """Ask again and again until it is so; for v1, which has no events."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.poll().poll(ASK_AGAIN_MS)
    return True


def _wait_for_event(path: str, wanted: str, deadline: float) -> bool:
    """Wait until ``wanted`` is a line of cgroup.events; True too if the cgroup is gone."""
    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in GONE:
            return True
        raise
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while True:
            try:
                lines = os.pread(fd, 4096, 0).decode().splitlines()
            except OSError as error:
                if error.errno in GONE:
                    return True
                raise
            if wanted in lines:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000 + 1)
    finally:
        os.close(fd)


def _subtree(path: str) -> Iterator[str]:
    """Yield the cgroups below ``path``, deepest first, and ``path`` itself, if it exists."""
    try:
        with os.scandir(path) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in GONE:
            return
        raise
    for child in children:
        yield from _subtree(child)
    yield path


def _main_tree(cgroups: Mapping[str, str]) -> str:
    """Return the directory in which all processes of the jail are."""
    return cgroups.get(UNIFIED) or freezer_of(cgroups) or next(iter(cgroups.values()), "")


def processes(cgroups: Mapping[str, str]) -> list[int]:
    """Return the process ids of the jail, those in nested cgroups included, sorted.

    They are numbers of the caller's pid namespace; a process that it cannot see is left out.
    """
    found: set[int] = set()
    for path in _subtree(_main_tree(cgroups)):
        try:
            found.update(map(int, read_text(f"{path}/cgroup.procs").split()))
        except OSError as error:
            # EOPNOTSUPP: threaded; the processes are listed in the cgroup above.
            if error.errno not in (*GONE, errno.EOPNOTSUPP):
                raise
    return sorted(found - {0})


def kill(cgroups: Mapping[str, str], *, seconds: float = 10.0) -> None:
    """Kill every process of the jail, however fast it forks; return when none is left.

    Never use the cgroups again after this (see the module's docstring).
    """
    path = _main_tree(cgroups)
    deadline = time.monotonic() + seconds
    if UNIFIED in cgroups:
        try:
            write_text(f"{path}/cgroup.kill", "1", "kill by")
        except UnsupportedError:  # before Linux 5.14, or gone
            if os.path.isdir(path):
                _kill_one_by_one(cgroups, deadline)
        except CgroupError as error:
            if getattr(error.__cause__, "errno", 0) not in GONE:
                raise
        done = _wait_for_event(path, "populated 0", deadline)
    elif os.path.isdir(path):
        done = _kill_one_by_one(cgroups, deadline)
    else:
        done = True
    if not done:
        left = " ".join(map(str, processes(cgroups)[:8]))
        raise CgroupError(
            f"cannot kill the processes {left} in {path}: still there after {seconds:g} s",
            hint="a process in an uninterruptible wait ends when that does: ps -eo pid,stat,wchan",
        )


def _kill_one_by_one(cgroups: Mapping[str, str], deadline: float) -> bool:
    """Freeze, so that nobody forks, send SIGKILL to each, thaw; until none is left."""

    def is_empty() -> bool:
        pids = processes(cgroups)
        if not pids:
            return True
        state = freezer_of(cgroups)
        switch = f"{state}/freezer.state" if state else ""
        if switch:
            write_text(switch, "FROZEN", "freeze by")
        try:
            for pid in processes(cgroups):
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    pass
        finally:
            if switch:  # a frozen process dies of it only now
                write_text(switch, "THAWED", "thaw by")
        return False

    return _ask_until(is_empty, deadline)


def end(cgroups: Mapping[str, str], made_above: Iterable[str] = ()) -> None:
    """Remove the cgroups of a jail, whose processes are killed first if there are any left.

    ``made_above``: see `release`.

    Mostly there are none, as all ended with the init of their pid namespace: then the cgroup that
    they all were in goes at once.
    """
    if cgroups and not _try_remove(_main_tree(cgroups)):
        kill(cgroups)
    release(cgroups, made_above)


def _try_remove(path: str) -> bool:
    """Remove a cgroup that has neither processes nor children; return whether it is gone."""
    try:
        os.rmdir(path)
    except OSError as error:
        return error.errno in GONE
    return True


def release(
    cgroups: Mapping[str, str], made_above: Iterable[str] = (), *, seconds: float = 5.0
) -> None:
    """Remove the cgroups of the record with all below them, then our parents if none is left.

    ``made_above`` are further parents that were made for it, from the top (`plan.missing_parents`).

    It may be called again, and on a record of which nothing or half was made.  It kills nobody: a
    cgroup that still has processes after ``seconds`` is an error, raised when the others are gone.
    """
    deadline = time.monotonic() + seconds
    first: CgroupError | None = None
    for identifier, path in cgroups.items():
        if _try_remove(path):
            continue
        for directory in _subtree(path):
            try:
                _remove(directory, deadline, version=2 if identifier == UNIFIED else 1)
            except CgroupError as error:
                first = first or error
    _remove_parents(cgroups, made_above)
    if first:
        raise first


def _remove(path: str, deadline: float, *, version: int) -> None:
    """Remove one cgroup; wait while it is busy."""
    while True:
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno in GONE:
                return
            left = deadline - time.monotonic()
            if error.errno != errno.EBUSY or left <= 0:
                pids = " ".join(map(str, processes({"": path})[:8]))
                text = f"cannot remove the cgroup {path}: {error.strerror}"
                raise CgroupError(
                    text + (f", processes {pids}" if pids else ""),
                    hint="stop what runs in it, then remove the jail: jailrun rm --force NAME",
                ) from error
            if version == 2 and "populated 1" in _events(path):
                _wait_for_event(path, "populated 0", deadline)
            else:
                select.poll().poll(ASK_AGAIN_MS)
        else:
            return


def _events(path: str) -> list[str]:
    try:
        return read_text(f"{path}/cgroup.events").splitlines()
    except OSError:
        return []


def _remove_parents(cgroups: Mapping[str, str], made_above: Iterable[str]) -> None:
    """Remove our own parents, up to ``jailrun`` below a mount's root, where they are empty.

    Under the lock that every start shares, so that none loses its parent while it is made.
    """
    root = lock_path(cgroups, read_hierarchies()) if cgroups else ""
    if not root:
        return
    try:
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # A start holds it for half a millisecond.
        if _ask_until(lambda: _has_lock(lock), time.monotonic() + LOCK_SECONDS):
            for path in reversed(list(made_above)):
                _try_remove(path)
            for identifier, path in cgroups.items():
                _remove_parents_of(path, version=2 if identifier == UNIFIED else 1)
    finally:
        os.close(lock)


def _has_lock(fd: int) -> bool:
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_parents_of(path: str, *, version: int) -> None:
    mount, found, below = path.partition(f"/{PARENT}/")
    parts = [PARENT, *below.split("/")][:-1] if found else []
    try:
        for count in range(len(parts), 0, -1):
            parent = "/".join((mount, *parts[:count]))
            enabled = _read_enabled(parent) if version == 2 and count == 1 else ""
            os.rmdir(parent)
            if enabled:
                _disable(mount, enabled)
    except OSError:
        pass  # another jail is in it, or it is gone


def _read_enabled(parent: str) -> str:
    """Return the controllers that were enabled above ``parent`` for its sake."""
    try:
        return os.getxattr(parent, ENABLED).decode()
    except OSError:
        return ""


def _disable(mount: str, controllers: str) -> None:
    """Take back what a jail enabled in the root, unless another cgroup is there to use it."""
    with os.scandir(mount) as entries:
        if any(entry.is_dir() for entry in entries):
            return
    for controller in controllers.split():
        fd = os.open(f"{mount}/cgroup.subtree_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"-{controller}".encode())
        finally:
            os.close(fd)
