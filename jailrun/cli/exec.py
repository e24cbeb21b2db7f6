"""``jailrun exec``: one more process in a jail that runs.

Owns: the verb, from its options to its exit status, and who the user is that is given by name.
Out of scope: entering the jail (`jailrun.engine.enter`).

The process has what the jail's own has, as its config says: environment, capabilities, limits,
seccomp filter.  Its user is looked up in the files of the jail as it is now, which are hostile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from jailrun.cli import options as o
from jailrun.cli.asked import read_environment
from jailrun.errors import ConflictError, JailError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jailrun.engine.record import Record
    from jailrun.security.passwd import User
    from jailrun.spec.model import Process

HELP = """Run a command in a jail that runs.

\b
Examples:
  jailrun exec web ps
  jailrun exec -it web sh
  jailrun exec -u www-data -w /srv -e DEBUG=1 web ./check

The exit status is as that of `jailrun run`.
"""


def exec_(
    name: o.Jail,
    command: o.Inside,
    *,
    interactive: o.Interactive = False,
    tty: o.Tty = False,
    detach: o.DetachExec = False,
    user: o.User = None,
    groups: o.Groups = None,
    workdir: o.Workdir = None,
    env: o.Env = None,
    env_file: o.EnvFile = None,
) -> None:
    raise typer.Exit(execute(name, command, locals()))


exec_.__doc__ = HELP


def execute(name: str, command: list[str], given: Mapping[str, Any]) -> int:
    """Run the command in the jail, and stand by it; return our exit status."""
    from jailrun.cli.foreground import Session, ensure_standard_streams
    from jailrun.engine.enter import enter
    from jailrun.engine.record import load

    ensure_standard_streams()
    _check(given)
    record = load(name)
    process = make_process(record, command, given)
    if given["detach"]:
        return _execute_detached(name, process)
    with Session(interactive=given["interactive"], tty=given["tty"]) as session:
        session.set_size(process)
        execution = enter(
            name, process, streams=session.streams, console_fd=session.console_fd, attached=True
        )
        try:
            return session.attend(execution, is_init=False)
        finally:
            if execution.pidfd >= 0:
                execution.abandon()


def _check(given: Mapping[str, Any]) -> None:
    if given["detach"] and (given["interactive"] or given["tty"]):
        raise JailError(
            "-d excludes -i and -t: nobody would be at the terminal", hint="leave one of them out"
        )
    if given["interactive"] and given["tty"]:
        from jailrun.cli.terminal import require_terminal

        require_terminal()


def _execute_detached(name: str, process: Process) -> int:
    """Start the process, with nothing to read and nowhere to write, and leave it."""
    from jailrun.engine.enter import enter
    from jailrun.engine.payload import Streams

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        execution = enter(name, process, streams=Streams((null, null, null)))
        os.close(execution.pidfd)
    finally:
        os.close(null)
    return 0


def make_process(record: Record, command: list[str], given: Mapping[str, Any]) -> Process:
    """Return the OCI process: the jail's own, with what the options change."""
    try:
        config = record.read_config()
    except FileNotFoundError:
        raise ConflictError(f"cannot execute in jail {record.name}: it is not complete") from None
    own: Process = config.get("process") or {"cwd": "/", "user": {"uid": 0, "gid": 0}}
    process: Process = {**own, "args": command, "terminal": given["tty"]}
    process.pop("consoleSize", None)
    variables = dict(each.split("=", 1) for each in own.get("env") or ())
    if given["tty"]:
        variables.setdefault("TERM", "xterm")
    if given["user"] is not None or given["groups"]:
        user = find_user(record, own, given["user"], given["groups"] or ())
        process["user"] = {**own["user"], "uid": user.uid, "gid": user.gid}
        process["user"]["additionalGids"] = user.additional_gids
        if given["user"] is not None:
            variables["HOME"] = user.home
    variables.update(read_environment(given["env"] or (), given["env_file"] or ()))
    process["env"] = [f"{name}={value}" for name, value in variables.items()]
    if given["workdir"] is not None:
        process["cwd"] = given["workdir"]
    return process


def find_user(record: Record, own: Process, wanted: str | None, groups: Sequence[str]) -> User:
    """Return who a user is by the files of the running jail; None is the ``own`` process's."""
    from jailrun.engine.lifecycle import open_init
    from jailrun.rootfs.inside import open_in_root, read_regular
    from jailrun.security.passwd import MAX_BYTES, resolve_user

    def read(path: str) -> bytes:
        try:
            return read_regular(open_in_root(root, path), MAX_BYTES)
        except OSError:
            return b""

    if wanted is None:
        wanted = f"{own['user']['uid']}:{own['user']['gid']}"
    root = _open_root(record.pid)
    try:
        # It was the jail's root if its init lives still: a pid finds no other owner before its end.
        os.close(open_init(record))
        return resolve_user(wanted, read("etc/passwd"), read("etc/group"), groups)
    finally:
        if root >= 0:
            os.close(root)


def _open_root(pid: int) -> int:
    try:
        return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1  # it has ended, as is found next
