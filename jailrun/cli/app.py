"""The command line as a whole: which verbs there are, and which module has each.

Owns: the list of verbs, `build_app`, `invoke`.  Out of scope: what the verbs do.

Only the verb that was asked for is imported: to build the options of all of them for each start
would cost as much again as importing Typer.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import typer.core

from jailrun import __version__
from jailrun.errors import JailError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMPLETE_VARIABLE = "_JAILRUN_COMPLETE"
# Options after the first argument belong to the command in the jail.
OPTIONS_FIRST = {"allow_interspersed_args": False}


class Verb(NamedTuple):
    """Where a verb is, whether it needs root, and how its arguments are read."""

    module: str
    function: str
    needs_root: bool = True
    settings: dict[str, Any] | None = None


# In the order of `jailrun --help`.
VERBS = {
    "run": Verb("run", "run", settings=OPTIONS_FIRST),
    "exec": Verb("exec", "exec_", settings=OPTIONS_FIRST),
    "ls": Verb("listing", "ls"),
    "ps": Verb("listing", "ps"),
    "logs": Verb("logs", "logs"),
    "inspect": Verb("inspect", "inspect"),
    "stop": Verb("servers", "stop"),
    "kill": Verb("servers", "kill"),
    "pause": Verb("servers", "pause"),
    "resume": Verb("servers", "resume"),
    "update": Verb("update", "update"),
    "wait": Verb("servers", "wait"),
    "rm": Verb("servers", "rm"),
    "image build": Verb("image", "build"),
    "image import": Verb("image", "import_"),
    "image ls": Verb("image", "ls"),
    "image inspect": Verb("image", "inspect"),
    "image rm": Verb("image", "rm"),
    "image prune": Verb("image", "prune"),
    "net create": Verb("net", "create"),
    "net ls": Verb("net", "ls"),
    "net inspect": Verb("net", "inspect"),
    "net rm": Verb("net", "rm"),
    "check": Verb("check", "check", needs_root=False),
    "repair": Verb("repair", "repair"),
}
GROUPS = {
    "image": "Build, import, list and remove images.",
    "net": "Create, list and remove networks.",
}
HELP = """Run isolated virtual servers (jails) on this host's kernel.

\b
Examples:
  jailrun run --rm busybox echo hello
  jailrun run -it --memory 256M --cpus 1 debian bash
  jailrun run -d --name web -p 8080:80 busybox httpd -f
  jailrun stop web
"""


class Command(typer.core.TyperCommand):
    """A verb whose usage shows what it needs as NAME, not as {NAME}, which reads like a choice."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the line "Usage:"."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [
            piece[1:-1] if piece[:1] == "{" and piece[-1:] == "}" else piece for piece in pieces
        ]


def build_app(only: str | None = None) -> typer.Typer:
    """Return the application with all verbs, or with the verb ``only`` (``image ls`` is one)."""
    app = _make_group(HELP, complete=only is None)
    app.callback()(_root)
    groups: dict[str, typer.Typer] = {}
    for name, verb in VERBS.items():
        if only not in (None, name):
            continue
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = _make_group(GROUPS[group])
            app.add_typer(groups[group], name=group)
        parent = groups[group] if group else app
        parent.command(last, cls=Command, context_settings=verb.settings)(load_verb(name))
    return app


def _make_group(help: str, *, complete: bool = False) -> typer.Typer:
    return typer.Typer(
        help=help,
        add_completion=complete,
        no_args_is_help=True,
        # Without these two Typer imports rich, which costs as much as Typer itself.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 100},
    )


def load_verb(name: str) -> Callable[..., Any]:
    """Return the function of a verb, which refuses to run for others than root where it must."""
    verb = VERBS[name]
    module = importlib.import_module(f"jailrun.cli.{verb.module}")
    function: Callable[..., Any] = getattr(module, verb.function)
    if not verb.needs_root:
        return function

    @functools.wraps(function)
    def run_as_root(*args: Any, **kwargs: Any) -> Any:
        # --explain makes nothing, and shows what a jail would be to anyone.
        if os.geteuid() and not kwargs.get("explain"):
            raise JailError(f"{name} needs root", hint=f"sudo jailrun {name} …")
        return function(*args, **kwargs)

    return run_as_root


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"jailrun {__version__}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def find_verb(words: Sequence[str]) -> str | None:
    """Return the verb that a command line names; None for help, completion and what is unknown."""
    if COMPLETE_VARIABLE in os.environ:
        return None
    for count in (1, 2):
        name = " ".join(words[:count])
        if name in VERBS:
            return name
    return None


def invoke(words: Sequence[str]) -> int:
    """Run a command line; return the exit status, or raise what went wrong."""
    words = list(words) or ["--help"]
    command = typer.main.get_command(build_app(find_verb(words)))
    result = command.main(args=words, prog_name="jailrun", standalone_mode=False)
    return result if isinstance(result, int) else 0
