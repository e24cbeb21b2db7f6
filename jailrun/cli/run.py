"""``jailrun run``: one command in a new jail, in the foreground or in the background.

Owns: the verb, from its options to its exit status.  Out of scope: what the options come to
(`jailrun.cli.options`, `jailrun.assemble`), starting the jail (`jailrun.engine`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from jailrun.cli import options as o
from jailrun.cli.output import ProgressLine, clean, print_warnings, write, write_json, write_line
from jailrun.errors import JailError
from jailrun.units import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jailrun.assemble import Assembled
    from jailrun.engine.launch import Request
    from jailrun.kernel.execute import Execution

HELP = """Run a command in a new jail.

\b
Examples:
  jailrun run --rm --memory 64M --cpus 0.5 --pids 32 busybox sh -c 'id; ps'
  jailrun run --rm -it debian bash
  jailrun run -d --name web -v /srv/www:/www:ro busybox httpd -f -h /www
  echo words | jailrun run --rm -i busybox wc -w

The exit status is the command's own; 128+n if signal n ended it; 125 where jailrun failed, 126
where the command cannot be executed, 127 where it does not exist.
"""


def run(
    image: o.Image,
    command: o.Command = None,
    *,
    interactive: o.Interactive = False,
    tty: o.Tty = False,
    detach: o.Detach = False,
    remove: o.Remove = False,
    name: o.Name = None,
    memory: o.Memory = None,
    swap: o.Swap = None,
    memory_reservation: o.MemoryReservation = None,
    cpus: o.Cpus = None,
    cpuset: o.Cpuset = None,
    cpu_shares: o.CpuShares = None,
    pids: o.Pids = None,
    shm_size: o.ShmSize = None,
    device_read_bps: o.ReadBps = None,
    device_write_bps: o.WriteBps = None,
    device_read_iops: o.ReadIops = None,
    device_write_iops: o.WriteIops = None,
    ulimit: o.Ulimit = None,
    oom_score_adj: o.OomScore = None,
    user: o.User = None,
    groups: o.Groups = None,
    workdir: o.Workdir = None,
    env: o.Env = None,
    env_file: o.EnvFile = None,
    entrypoint: o.Entrypoint = None,
    init: o.Init = False,
    hostname: o.Hostname = None,
    domainname: o.Domainname = None,
    volumes: o.Volumes = None,
    tmpfs: o.Tmpfs = None,
    read_only: o.ReadOnly = False,
    devices: o.Devices = None,
    cap_add: o.CapAdd = None,
    cap_drop: o.CapDrop = None,
    security_opt: o.SecurityOpt = None,
    allow: o.Allow = None,
    sysctl: o.Sysctl = None,
    privileged: o.Privileged = False,
    network: o.Net = None,
    pid: o.Pid = None,
    ipc: o.Ipc = None,
    uts: o.Uts = None,
    userns: o.Userns = None,
    cgroupns: o.Cgroupns = None,
    time_offset: o.TimeOffset = None,
    labels: o.Labels = None,
    explain: o.Explain = False,
    format: o.Format = "text",
    quiet: o.Quiet = False,
) -> None:
    raise typer.Exit(run_jail(image, command, locals()))


run.__doc__ = HELP


def run_jail(image: str, command: list[str] | None, given: Mapping[str, Any]) -> int:
    """Make the jail that the options describe, and stand by it; return our exit status."""
    from jailrun.cli.foreground import ensure_standard_streams

    ensure_standard_streams()
    _check(given)
    from jailrun.assemble import assemble
    from jailrun.engine.launch import Request
    from jailrun.engine.lifecycle import recover

    if not given["explain"]:
        recover()
    asked = o.make_request(given)
    with ProgressLine() as line:
        progress = None if given["quiet"] else line
        assembled = assemble(image, command, progress=progress, build=not given["explain"], **asked)
    request = Request(
        assembled.name,
        remove=given["remove"],
        attached=not given["detach"],
        image=assembled.image.reference,
        labels=o.parse_labels(given["labels"] or ()),
    )
    if given["explain"]:
        return _explain(assembled, request, given)
    if given["detach"]:
        return _run_detached(assembled, request, given)
    return _run_attached(assembled, request, given)


def _check(given: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other, before anything is made."""
    if given["format"] not in ("text", "json"):
        raise JailError(f"format {show(given['format'])} is not valid", hint="valid: text, json")
    if given["detach"] and given["interactive"]:
        raise JailError(
            "-d and -i exclude each other: a jail in the background has nobody who types",
            hint="leave out -i; later: jailrun exec -it NAME sh",
        )
    if given["format"] != "text" and not given["detach"] and not given["explain"]:
        raise JailError(
            "--format json is for -d and --explain: else the output is the command's own",
            hint="leave it out, or see the jail: jailrun inspect NAME",
        )
    if given["interactive"] and given["tty"] and not given["explain"]:
        from jailrun.cli.terminal import require_terminal

        require_terminal()


def _explain(assembled: Assembled, request: Request, given: Mapping[str, Any]) -> int:
    """Print the program that would run, an operation a line."""
    from jailrun.engine.launch import explain

    if given["tty"]:
        from jailrun.cli.terminal import Console

        request.console_fd = Console().fd
    lines = explain(assembled.config, request)
    if given["format"] == "json":
        write_json(lines)
    else:
        write("".join(f"{clean(line)}\n" for line in lines))
    return 0


def _run_detached(assembled: Assembled, request: Request, given: Mapping[str, Any]) -> int:
    """Start the jail, print its name, and leave."""
    from jailrun import paths
    from jailrun.engine.monitor import launch_detached

    request.log = f"{paths.logs_dir()}/{request.name}.log"
    receive = None
    if given["tty"]:
        from jailrun.cli.terminal import Console

        console = Console()
        request.console_fd = console.fd
        receive = console.receive
    pid = launch_detached(assembled.config, request, receive)
    if given["format"] == "json":
        write_json({"name": request.name, "pid": pid})
    else:
        write_line(request.name)
    return 0


def _run_attached(assembled: Assembled, request: Request, given: Mapping[str, Any]) -> int:
    """Start the jail and wait for its end; return its exit status."""
    from jailrun.cli.foreground import Session
    from jailrun.engine.launch import launch
    from jailrun.engine.lifecycle import finish
    from jailrun.engine.record import load

    config = assembled.config
    with Session(interactive=given["interactive"], tty=given["tty"]) as session:
        request.streams = session.streams
        request.console_fd = session.console_fd
        session.set_size(config["process"])
        execution = launch(config, request)
        alive, status = -1, None
        try:
            record = load(request.name)
            alive = record.hold()
            own_pid = {"type": "pid"} in config["linux"]["namespaces"]
            status = session.attend(execution, is_init=own_pid, cgroups=record.cgroups)
        finally:
            _end(execution)
            print_warnings(finish(request.name, status, alive_fd=alive))
    return status


def _end(execution: Execution) -> None:
    """Kill what still runs where waiting for it failed; nothing after its end."""
    if execution.pidfd >= 0:
        execution.abandon()
