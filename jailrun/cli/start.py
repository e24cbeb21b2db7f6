"""Making the jail that a command line describes, and standing by it: ``jailrun run`` without Typer.

Owns: `run_jail`.  Out of scope: the verb's options and help (`jailrun.cli.run`), what the options
come to (`jailrun.cli.asked`, `jailrun.assemble`), starting the jail (`jailrun.engine`).
"""

from __future__ import annotations

from jailrun.cli import asked as o
from jailrun.cli.output import ProgressLine, clean, print_warnings, write, write_json, write_line
from jailrun.errors import JailError
from jailrun.units import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jailrun.assemble import Assembled
    from jailrun.engine.launch import Request
    from jailrun.kernel.execute import Execution


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
