"""The frame of the command line: verbs, errors, exit statuses, what is loaded."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
import typer

from jailrun import __version__
from jailrun.cli import app, main, output
from jailrun.errors import CommandNotFoundError, JailError
from tests.unit.source import ROOT


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command line; return status, stdout and stderr."""
    status = main(words)
    said = capsys.readouterr()
    return status, said.out, said.err


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have every verb fail with an error."""

    def fail(_words: object) -> int:
        raise error

    monkeypatch.setattr(app, "invoke", fail)


# --- help ---------------------------------------------------------------------------------------
def test_nothing_to_do_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert "Usage: jailrun" in out
    assert all(name.split()[0] in out for name in app.VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"jailrun {__version__}\n", "")


@pytest.mark.parametrize("name", app.VERBS)
def test_every_verb_has_a_help_with_an_example(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    status, out, err = run(capsys, *name.split(), "--help")
    assert (status, err) == (0, "")
    assert "Example" in out
    assert f"jailrun {name} " in out or f"jailrun {name}\n" in out


@pytest.mark.parametrize("name", app.VERBS)
def test_first_line_of_a_help_fits_the_list(name: str) -> None:
    text = app.load_verb(name).__doc__ or ""
    first = text.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 66


@pytest.mark.parametrize("name", app.VERBS)
def test_help_needs_no_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(capsys, *name.split(), "--help")[0] == 0


@pytest.mark.parametrize("words", [["ls"], ["image", "ls"], ["rm", "web"], ["run", "busybox"]])
def test_verbs_need_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, out, err = run(capsys, *words)
    assert (status, out) == (125, "")
    assert "needs root" in err
    assert "hint: sudo jailrun" in err


# --- errors -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lss"], "no such command 'lss'"),
        (["image", "lss"], "did you mean 'ls'"),
        (["ls", "--fromat", "json"], "possible options: --format"),
        (["ls", "--format", "yaml"], "'yaml' is not one of 'table', 'json'"),
        (["ls", "web"], "unexpected extra argument"),
        (["stop"], "missing argument 'NAME…'"),
        (["stop", "--time"], "requires an argument"),
        (["kill", "--signal", "NO", "web"], "'NO' is not a signal"),
        (["stop", "--time", "-1", "web"], "'-1' is not a duration"),
        (["logs", "--tail", "x", "web"], "--tail 'x' is not valid"),
        (["update", "web"], "no limit to change"),
        (["ps", "--all", "web"], "not for one jail"),
    ],
)
def test_wrong_words_are_an_error_of_125(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (125, "")
    assert err.startswith("jailrun: ")
    assert said in err.replace("Did", "did").replace("Possible", "possible")
    assert "  hint: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "verb", ["stop", "kill", "pause", "resume", "wait", "rm", "inspect", "logs", "ps"]
)
@pytest.mark.parametrize("name", ["nope", "../etc", "a/b", ".", "x" * 65, "-", "a\nb"])
def test_unknown_names(capsys: pytest.CaptureFixture[str], verb: str, name: str) -> None:
    status, _out, err = run(capsys, verb, name)
    assert status == 125
    assert "there is no jail" in err
    assert "hint: see them all: jailrun ls --all" in err


def test_every_name_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    _status, _out, err = run(capsys, "rm", "one", "two")
    assert "'one'" in err
    assert "'two'" in err


def test_error_of_ours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, CommandNotFoundError("no such program", hint="try another"))
    assert run(capsys, "x") == (127, "", "jailrun: no such program\n  hint: try another\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("why"), "internal error: ZeroDivisionError: why"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: /x"),
    ],
)
def test_error_that_nobody_expected_is_no_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    fail_with(monkeypatch, error)
    status, out, err = run(capsys, "x")
    assert (status, out) == (125, "")
    assert said in err
    assert "JAILRUN_DEBUG=1" in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAILRUN_DEBUG", "1")
    fail_with(monkeypatch, JailError("why"))
    with pytest.raises(JailError):
        main(["x"])


def test_interrupt_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run(capsys, "x") == (130, "", "")


def test_interrupt_within_a_verb(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "write_table", interrupt)
    assert run(capsys, "ls") == (130, "", "")


class Closed(io.StringIO):
    """A stdout whose reader went away, or whose disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error

    def fileno(self) -> int:
        return 99


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokenPipeError(), output.OUTPUT_CLOSED, ""),
        (OSError(28, "No space left on device"), 125, "cannot write to the standard output"),
    ],
)
def test_output_that_nobody_takes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(output, "drop_stdout", lambda: None)
    monkeypatch.setattr(sys, "stdout", Closed(error))
    assert main(["ls"]) == status
    err = capsys.readouterr().err
    assert said in err
    assert bool(err) == bool(said)


# --- what is loaded -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ([], None),
        (["--help"], None),
        (["run", "ls"], "run"),
        (["image"], None),
        (["image", "ls", "-q"], "image ls"),
        (["image", "nope"], None),
        (["nope"], None),
    ],
)
def test_one_verb_is_built(words: list[str], verb: str | None) -> None:
    assert app.find_verb(words) == verb


def test_whole_application_is_built_for_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(app.COMPLETE_VARIABLE, "complete_bash")
    assert app.find_verb(["run"]) is None


def test_every_verb_can_be_built_alone() -> None:
    for name in app.VERBS:
        command = typer.main.get_command(app.build_app(name))
        for part in name.split():
            command = command.commands[part]  # type: ignore[attr-defined]
        assert command.name == name.split()[-1]


@pytest.mark.runs_programs
@pytest.mark.parametrize("words", [["ls"], ["run", "--help"], ["--help"]])
def test_expensive_modules_are_not_loaded(words: list[str]) -> None:
    program = (
        "import sys\n"
        f"sys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
        "from jailrun.cli import main\n"
        f"main({words!r})\n"
        "import json\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(result.stdout.splitlines()[-1]))
    assert not loaded & {"rich", "pyroute2", "prctl", "asyncio", "pydantic", "logging.config"}
    if words == ["ls"]:
        assert not loaded & {"jailrun.cli.run", "cgroupspy", "hashlib", "tarfile"}
