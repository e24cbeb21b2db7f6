"""The probe program for tests: built once, run in a jail by the test, its lines parsed here.

    program = build_probe(folder)          # a static program, to be put into the jail's root
    seen = parse_probe(output)             # {"ids": Report(...), "mount_tmpfs": Report(...), ...}
    assert seen["mount_tmpfs"].error == "EPERM"
    assert seen["ids"]["uid"] == 0

Out of scope: making jails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("probe.c")


class Report(dict[str, Any]):
    """One line of the probe: what it saw, or how an attempt ended."""

    @property
    def error(self) -> str:
        """The errno's name, "" where the attempt succeeded, SIG<n> where it was killed by one."""
        if "signal" in self:
            return f"SIG{self['signal']}"
        name: str = self["error"]
        return name

    @property
    def works(self) -> bool:
        """Tell whether the attempt succeeded."""
        return self.error == ""

    def mask(self, key: str) -> int:
        """Return a capability or signal set of the report "status"."""
        return int(self[key], 16)


@cache
def build_probe(folder: Path) -> Path:
    """Build the probe program in ``folder`` and return its path."""
    target = folder / "probe"
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    command = ["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", str(target), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def parse_probe(output: str) -> dict[str, Report]:
    """Return name → report of the probe's output."""
    reports = (Report(json.loads(line)) for line in output.splitlines())
    return {report["probe"]: report for report in reports}


def probe_names(program: Path, *, attempts: bool) -> list[str]:
    """Return the names of all attempts, or of all reports."""
    result = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    kinds = subprocess.run([program, "reports"], check=True, capture_output=True, text=True)
    reports = list(parse_probe(kinds.stdout))
    return [name for name in result.stdout.split() if (name not in reports) == attempts]
