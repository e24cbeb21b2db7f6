"""From the jail's init process to the payload: streams, terminal, credentials, exec.

Owns: the last operations of a start and of an exec, which are the same.  Out of scope: what the
process may do (`jailrun.security`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from jailrun import paths
from jailrun.engine.prepare import can_raise_limits
from jailrun.engine.record import read_json, write_file
from jailrun.errors import UnsupportedError
from jailrun.jsontext import dumps
from jailrun.kernel import constants as c
from jailrun.kernel.files import read_file
from jailrun.kernel.operation import NOTE, Operation, Pointers, Slot, Text
from jailrun.security.limits import check_oom_score, read_oom_score
from jailrun.security.plan import plan_credentials, plan_limits
from jailrun.security.seccomp import filter_flags, load_config_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.execute import Execution
    from jailrun.kernel.program import Program
    from jailrun.security.plan import Facts
    from jailrun.spec.model import Config, Process

MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2  # linux/memfd.h
F_ADD_SEALS, F_SEAL_ALL = 1033, 0xF  # linux/fcntl.h: no sealing, shrinking, growing, writing
SIGKILL = 9
CLEAR = 64  # descriptors from here on are in nobody's way
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Streams:
    """The descriptors of the caller's that become the payload's 0, 1 and 2, and then 3, 4, ….

    ``owned``: those that were made for this jail; the payload's user becomes their owner, so that
    /dev/stdout can be opened inside.
    """

    __slots__ = ("extra", "opened", "owned", "standard")

    def __init__(
        self,
        standard: tuple[int, int, int] = (0, 1, 2),
        extra: tuple[int, ...] = (),
        owned: tuple[int, ...] = (),
    ) -> None:
        self.owned = owned
        self.opened: list[int] = []
        self.standard = [self._aside(fd, place) for place, fd in enumerate(standard)]
        self.extra = [self._aside(fd) for fd in extra]

    def _aside(self, fd: int, place: int = -1) -> int:
        """Return a copy that is in no place that is filled, unless ``fd`` is in its own."""
        if fd >= CLEAR or (fd == place and os.get_inheritable(fd)):
            return fd
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, CLEAR)
        self.opened.append(copy)
        return copy

    def close(self) -> None:
        """Close the copies."""
        while self.opened:
            os.close(self.opened.pop())


def plan_streams(program: Program, streams: Streams, terminal: Slot | None) -> None:
    """Add putting the standard streams, or the terminal, in their places."""
    program.enter("engine")
    child = program.child
    child.setsid(what="begin a session", allow=(errno.EPERM,))
    if terminal is not None:
        child.ioctl(terminal, c.TIOCSCTTY, 0, what="take the terminal")
        for place in range(3):
            child.dup3(terminal, place, what="use the terminal")
        child.close(terminal)
    else:
        for place, fd in enumerate(streams.standard):
            if fd != place:
                child.dup3(fd, place, what="put the stream in place")
    for place, fd in enumerate(streams.extra, 3):
        child.dup3(fd, place, what="hand on the descriptor")
    program.keep(*streams.standard, *streams.extra)


def plan_ownership(program: Program, streams: Streams, ids: tuple[int, int]) -> None:
    """Add giving the streams that were made for this jail to its user."""
    program.enter("engine")
    for fd in streams.owned:
        program.before.call("fchown", fd, *ids, what="give the stream to the payload's user")


def plan_hold(program: Program, folder: str, needed: list[int | Slot]) -> None:
    """Add waiting for the start, which another process gives through a FIFO in the record.

    What goes wrong after it is reported to who starts, through another: see `save_operations`.
    Both FIFOs are open for reading and writing here, so that nobody needs to be at the other end.
    """
    program.enter("engine")
    before, child = program.before, program.child
    ends = []
    for name in ("start", "report"):
        path = f"{folder}/{name}"
        before.mknodat(c.AT_FDCWD, path, stat.S_IFIFO | 0o600, what="make the FIFO")
        ends.append(before.open(path, os.O_RDWR, what="open the FIFO", result=name))
    # It may wait for long: of the start's own descriptors none may keep a mount of the host busy.
    child.keep_only(0, 1, 2, program.report_fd, *ends, *needed)
    child.wait_for_caller("wait for the start", fd=ends[0])
    child.call("dup3", ends[1], program.report_fd, c.O_CLOEXEC, what="report to who starts")


def save_operations(execution: Execution, folder: str) -> None:
    """Write what the operations after the hold are, for `load_operations` where one fails."""
    first, last = execution.encoded.child
    rows = {
        str(row): [one.name, one.facility, one.what, one.object, one.hint]
        for row, one in enumerate(execution.encoded.origin[first:last], first)
    }
    write_file(f"{folder}/operations.json", dumps(rows))


def load_operation(folder: str, row: int) -> Operation:
    """Return the operation of a created jail that a report names."""
    name, facility, what, about, hint = read_json(f"{folder}/operations.json")[str(row)]
    return Operation(name, 0, (), Slot(0, ""), facility, what, about, (), hint, 0)


def plan_init(program: Program) -> Slot:
    """Add putting our small init into memory, sealed: nobody in the jail can write to it."""
    program.enter("engine")
    path = f"{os.path.dirname(os.path.dirname(__file__))}/kernel/init"
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise UnsupportedError(
            "--init needs the small init program, which was not built",
            hint="install a C compiler and set jailrun up again: bin/setup",
        ) from None
    fd = program.before.call(
        "memfd_create", "jailrun-init", MFD_CLOEXEC | MFD_ALLOW_SEALING, what="make the init"
    )
    program.before.write(fd, data, what="make the init")
    program.before.call("fcntl", fd, F_ADD_SEALS, F_SEAL_ALL, what="seal the init")
    return fd


def plan_payload(
    config: Config,
    program: Program,
    facts: Facts,
    *,
    extra: int = 0,
    die_with_caller: bool = False,
    init_fd: Slot | None = None,
) -> None:
    """Add everything from the limits to the exec of ``config["process"]``; nothing comes after."""
    child = program.child
    process = config["process"]
    program.enter("security")
    plan_limits(config, program, facts)
    plan_oom_score(config, program)
    program.enter("engine")
    child.chdir(
        process.get("cwd") or "/",
        what="enter the working directory",
        hint="it must exist in the jail, and no link may lead out of it",
    )
    child.close_range(3 + extra, c.FD_MAX, c.CLOSE_RANGE_CLOEXEC, what="close descriptors")
    child.reset_signals()

    def before_filter() -> None:
        program.enter("engine")
        if die_with_caller:
            # A change of ids undoes it; the report after it fails where it came too late.
            child.prctl(c.PR_SET_PDEATHSIG, SIGKILL, what="die with the caller")
        child.announce_exec()

    program.enter("security")
    plan_credentials(
        config,
        program,
        facts,
        filter_bytes=load_config_filter(config, paths.cache_dir()),
        filter_flags=filter_flags(config.get("linux", {}).get("seccomp")),
        before_filter=before_filter,
    )
    program.enter("engine")
    plan_exec(program, process, init_fd)


def sets_oom_score(config: Config) -> bool:
    """Return whether the payload gets an OOM score of its own.

    The kernel gives it to all processes that share a memory, so the child must not share ours.
    """
    score = config.get("process", {}).get("oomScoreAdj")
    return score is not None and score != read_oom_score()


def plan_oom_score(config: Config, program: Program) -> None:
    """Add the OOM score; lowering it takes the caller's rights, so the caller writes it."""
    if sets_oom_score(config):
        score = config["process"]["oomScoreAdj"]
        check_oom_score(score, read_oom_score(), can_raise=can_raise_limits())
        program.attach.write_file(
            Text("/proc/%/oom_score_adj", program.pid), str(score).encode(),
            what=f"set the OOM score to {score} in",
        )  # fmt: skip


def plan_exec(program: Program, process: Process, init_fd: Slot | None) -> None:
    """Add the exec: of our init, or of the first program that PATH leads to."""
    child = program.child
    args = process.get("args") or []
    env = process.get("env") or []
    if init_fd is not None:
        child.call(
            "execveat", init_fd, "", Pointers(["jailrun-init", *args]), Pointers(env),
            c.AT_EMPTY_PATH, what=f"execute {args[0]}",
        )  # fmt: skip
        return
    candidates = find_candidates(args[0], env)
    missing = (errno.ENOENT, errno.ENOTDIR)
    for path in candidates[:-1]:
        child.execve(
            path, args, env, what=f"execute {args[0]}", allow=(errno.EACCES, *missing), flags=NOTE
        )
    child.execve(candidates[-1], args, env, what=f"execute {args[0]}")


def find_candidates(command: str, env: list[str]) -> list[str]:
    """Return the paths to try for ``command``, as execvpe(3) does with the payload's own PATH."""
    if "/" in command:
        return [command]
    search = SEARCH
    for entry in env:
        if entry.startswith("PATH="):
            search = entry[5:]
    return [f"{folder or '.'}/{command}" for folder in search.split(":")]
