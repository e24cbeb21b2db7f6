"""How a missing tool is installed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jailrun.errors import ImageError, UnsupportedError
from jailrun.images import tools
from jailrun.images.progress import Silent


class Host:
    """A host without a tool; its package manager's lists are missing at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, tools_there: set[str]) -> None:
        self.there = tools_there
        self.updated = False
        self.ran: list[str] = []
        self.steps: list[str] = []
        monkeypatch.setattr(tools, "find_tool", self.find)
        monkeypatch.setattr(tools, "run_tool", self.run)

    def find(self, command: str) -> str | None:
        """Stand for `tools.find_tool`."""
        return f"/usr/bin/{command}" if command in self.there else None

    def run(self, command: Sequence[str], *, what: str, mortal: bool) -> str:
        """Stand for `tools.run_tool`."""
        assert not mortal, "the host's package manager must be left to finish"
        self.ran.append(command[1])
        if command[1] == "update":
            self.updated = True
        elif self.updated:
            self.there.add(command[-1])
        else:
            raise ImageError(f"cannot {what}")
        return ""


class Told(Silent):
    """Keep the steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        """Note it."""
        self.steps.append(text)


def test_a_tool_that_is_there_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host, told = Host(monkeypatch, tools_there={"zstd"}), Told()
    assert tools.require_tool("zstd", "zstd", told) == "/usr/bin/zstd"
    assert (host.ran, told.steps) == ([], [])


def test_a_missing_tool_is_installed_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    host, told = Host(monkeypatch, tools_there={"apt-get"}), Told()
    assert tools.require_tool("debootstrap", "debootstrap", told) == "/usr/bin/debootstrap"
    assert host.ran == ["install", "update", "install"]
    assert told.steps == ["install the package debootstrap, for debootstrap"]


def test_a_package_without_its_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, tools_there={"apt-get"})
    with pytest.raises(ImageError, match="brings no command a"):
        tools.require_tool("a", "b", Told())


def test_without_a_package_manager_the_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, tools_there=set())
    with pytest.raises(UnsupportedError, match="debootstrap is missing") as caught:
        tools.require_tool("debootstrap", "debootstrap", Told())
    assert "install debootstrap" in (caught.value.hint or "")


def test_tools_get_the_way_out_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("PATH", "/evil")
    found = tools.environment({"TMPDIR": "/t"})
    assert found["HTTP_PROXY"] == found["https_proxy"] == "http://proxy.example"
    assert found["TMPDIR"] == "/t"
    assert "SECRET" not in found
    assert "evil" not in found["PATH"]
