"""The quick reader of ``jailrun run`` and Typer read the same."""

from __future__ import annotations

import os
from typing import Any

import pytest
import typer

from jailrun.cli import app, quick

LINES = (
    ["busybox"],
    ["--rm", "busybox", "sh", "-c", "id --rm"],
    ["-itd", "--name", "web", "--name=db", "-m", "64M", "debian", "bash", "-l"],
    ["--net", "a", "--network=b,ip=10.0.0.9", "-p", "8080:80", "-p", "53:53/udp", "busybox"],
    ["--ip", "10.0.0.9", "--deny", "out", "--dns=192.0.2.1", "--add-host", "a:192.0.2.1", "b"],
    ["-e", "A=1", "--env=B=", "--swap", "-1", "--format=json", "--explain", "./root", "--", "-x"],
)
UNCLEAR = (
    ["-p8080:80", "busybox"],
    ["--help"],
    ["--"],
    ["-m64M", "busybox"],
    ["--rm=1", "busybox"],
    ["--rm"],
    ["-z", "b"],
)


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv(app.COMPLETE_VARIABLE, raising=False)
    command: Any = typer.main.get_command(app.build_app("run"))
    return list(command.commands["run"].params)


def test_knows_the_options_that_typer_knows(parameters: list[Any]) -> None:
    found: dict[str, dict[str, str]] = {"flag": {}, "value": {}, "list": {}}
    for parameter in parameters:
        if parameter.param_type_name != "option" or parameter.name == "help":
            continue
        kind = "flag" if parameter.is_flag else "list" if parameter.multiple else "value"
        found[kind] |= dict.fromkeys(parameter.opts, parameter.name)
    assert found == {"flag": quick.FLAGS, "value": quick.VALUES, "list": quick.LISTS}


@pytest.mark.parametrize("line", LINES)
def test_reads_what_typer_reads(
    line: list[str], parameters: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def run_jail(_image: str, _command: list[str], given: dict[str, Any]) -> int:
        seen.append(given)
        return 0

    monkeypatch.setattr("jailrun.cli.run.run_jail", run_jail)
    app.invoke(["run", *line])
    assert quick.read(["run", *line]) == seen[0]


@pytest.mark.parametrize("line", UNCLEAR)
def test_leaves_the_rest_to_typer(line: list[str], parameters: list[Any]) -> None:
    assert quick.read(["run", *line]) is None
