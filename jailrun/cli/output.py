"""What the command line prints: data on stdout, errors and progress on stderr.

Owns: tables, JSON, errors, `ProgressLine`, `for_each`.  Out of scope: what is in them.

Nothing that a jail could have chosen, such as the name of a process, reaches a terminal raw: what
would move its cursor is shown as an escape.
"""

from __future__ import annotations

import os
import sys
import time

from jailrun.errors import JailError
from jailrun.jsontext import dumps
from jailrun.units import format_size_about

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn, TextIO

    import typer

OUTPUT_CLOSED = 141  # 128 + SIGPIPE: whoever read our output went away
REDRAW_SECONDS = 0.1
MINUTE, HOUR, DAY = 60, 3600, 86400


def _exit(status: int) -> NoReturn:
    """End the command with a status, as Typer does; see `print_error`."""
    import typer

    raise typer.Exit(status)


# --- stdout ---------------------------------------------------------------------------------------
def write(text: str) -> None:
    """Write ``text`` to stdout at once; end quietly where nobody reads it any more."""
    stdout = open_stdout()
    encoding = stdout.encoding or "utf-8"
    try:
        stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stdout.flush()
    except BrokenPipeError:
        drop_stdout()
        _exit(OUTPUT_CLOSED)
    except OSError as error:
        drop_stdout()
        raise JailError(f"cannot write to the standard output: {error.strerror}") from error


def open_stdout() -> TextIO:
    """Return stdout; raise JailError where the caller has closed it."""
    stdout: TextIO | None = sys.stdout
    if stdout is None:
        raise JailError("the standard output is closed", hint="to see nothing: >/dev/null")
    return stdout


def drop_stdout() -> None:
    """Have what is still in the buffer of stdout go nowhere, so that the exit is quiet."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def write_line(text: str) -> None:
    """Write a line to stdout."""
    write(f"{text}\n")


def write_json(value: object) -> None:
    """Write a value as indented JSON to stdout."""
    write_line(dumps(value, indent=True))


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows in columns, each as wide as its widest cell."""
    lines = [headings, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        write_line("   ".join(cells).rstrip())


def clean(text: str) -> str:
    """Return ``text`` with everything escaped that a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def shorten(text: str, width: int) -> str:
    """Return ``text`` cut to ``width`` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def format_age(moment: float, now: float | None = None) -> str:
    """Return in words how long ago a moment (seconds since 1970) was."""
    seconds = max((time.time() if now is None else now) - moment, 0)
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second")):
        count = int(seconds // unit)
        if count:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def format_time(moment: float) -> str | None:
    """Return a moment (seconds since 1970) as RFC 3339 in UTC; None for 0, which is never."""
    if not moment:
        return None
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment))}.{int(moment % 1 * 1000):03}Z"


# --- stderr ---------------------------------------------------------------------------------------
def complain(message: str, hint: str | None = None) -> None:
    """Say what went wrong, and what to type next."""
    text = f"jailrun: {_clean_lines(message)}\n"
    if hint:
        text += f"  hint: {_clean_lines(hint)}\n"
    write_error(text)


def write_error(text: str) -> None:
    """Write to stderr; where nobody listens the exit status still tells."""
    stderr: TextIO | None = sys.stderr
    if stderr is not None:
        try:
            stderr.write(text)
            stderr.flush()
        except OSError:
            return


def _clean_lines(text: str) -> str:
    return "\n  ".join(clean(line) for line in text.splitlines())


def print_warnings(warnings: Iterable[str]) -> None:
    """Say what went wrong without keeping the command from doing its work."""
    for text in warnings:
        complain(f"warning: {text}")


def print_error(error: Exception) -> int:
    """Say what an exception means for the user; return the exit status for it."""
    if isinstance(error, JailError):
        complain(error.message, error.hint)
        return error.exit_status
    if "typer" in sys.modules:
        import typer

        if isinstance(error, typer.Exit):
            return error.exit_code
        if isinstance(error, typer.Abort):
            return 125
        if isinstance(error, typer.TyperException):
            return _print_usage_error(error)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        complain(f"{error.strerror}{where}", "JAILRUN_DEBUG=1 in the environment shows where")
        return 125
    complain(
        f"internal error: {type(error).__name__}: {error}",
        "this is a defect; JAILRUN_DEBUG=1 in the environment shows where",
    )
    return 125


def _print_usage_error(error: typer.TyperException) -> int:
    """Say how the command line is wrong; a group that was named alone shows its help."""
    message = error.format_message()
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is not None and message == context.get_help():
        write_error(f"{message}\n")
        return 125
    message = message[:1].lower() + message[1:].removesuffix(".")
    complain(message, f"see {context.command_path if context else 'jailrun'} --help")
    return 125


def for_each(
    names: Sequence[str],
    act: Callable[[str], object],
    *,
    show: bool = True,
    after: Callable[[], object] | None = None,
) -> None:
    """Act on each name and print it; go on after a failure, do ``after``, and fail in the end."""
    status = 0
    for name in names:
        try:
            act(name)
        except JailError as error:
            complain(error.message, error.hint)
            status = status or error.exit_status
        else:
            if show:
                write_line(name)
    if after is not None:
        after()
    if status:
        _exit(status)


class ProgressLine:
    """Progress (`jailrun.images.progress`): one rewritten line on a terminal, lines elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream: TextIO | None = stream or sys.stderr  # None where the caller has closed it
        live = self._stream is not None and self._stream.isatty()
        self._live = live and os.environ.get("TERM") != "dumb"
        self._text = ""
        self._drawn = 0.0

    def step(self, text: str) -> None:
        """Begin a step; the line of the one before it stays."""
        self.end()
        self._text = text
        if self._live:
            self._draw(text)
        else:
            self._write(f"jailrun: {text}\n")

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Show how far the step is, a few times a second at most."""
        now = time.monotonic()
        if not self._live or (now - self._drawn < REDRAW_SECONDS and done != total):
            return
        self._drawn = now
        self._draw(f"{self._text}  {format_done(done, total, unit)}")

    def warn(self, text: str) -> None:
        """Show a warning in a line of its own."""
        self.end()
        self._write(f"jailrun: warning: {clean(text)}\n")

    def end(self) -> None:
        """End the line that is being rewritten, if there is one."""
        if self._live and self._text:
            self._write("\n")
        self._text = ""

    def _draw(self, text: str) -> None:
        import shutil  # costs 3 ms; most starts draw nothing

        width = shutil.get_terminal_size().columns - 1
        # CSI K: erase what was longer before
        self._write(f"\r{shorten(f'jailrun: {clean(text)}', width)}\033[K")

    def _write(self, text: str) -> None:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError:
                return  # work is not stopped because nobody looks

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def format_done(done: int, total: int | None, unit: str) -> str:
    """Return how far something is: ``12.0M of 96.0M, 12 %``, or ``3 of 7 packages``."""

    def show(count: int) -> str:
        return format_size_about(count) if unit == "B" else str(count)

    noun = "" if unit == "B" else f" {unit}"
    if not total:
        return f"{show(done)}{noun}"
    return f"{show(done)} of {show(total)}{noun}, {min(100 * done // total, 100)} %"
