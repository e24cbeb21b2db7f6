"""What holds for every unit test: no root, no jail, no real system call of the project.

A unit test compares plans and programs as data.  One that makes the kernel do something by
mistake would pass as root and leave the host changed, so here all the doors to the kernel raise.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

# No deadline: a test's time says more about the machine than about the code.
settings.register_profile("jailrun", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("jailrun")

# The kernel floor's doors: both executors, and what wraps them.
EXECUTORS = {
    "jailrun.kernel._execute": ("run", "spawn", "syscall"),
    "jailrun.kernel.fallback": ("run", "spawn", "syscall"),
    "jailrun.kernel.execute": ("syscall", "send_signal", "reap"),
}
# Python's own; those that this version or system lacks are passed over.
OS_CALLS = (
    *("chroot", "setns", "unshare", "pivot_root", "mknod", "pidfd_open"),
    *("setuid", "setgid", "setresuid", "setresgid", "setgroups", "setpriority"),
    *("kill", "killpg", "sched_setaffinity"),
)
PROGRAM_CALLS = (
    *("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen"),
    *("execv", "execve", "execvp", "execvpe", "execl", "execle", "execlp", "execlpe"),
)


def make_forbidden(name: str, way_out: str = "") -> Any:
    """Return a function that fails the test which calls it."""

    def forbidden(*_args: object, **_kwargs: object) -> NoReturn:
        pytest.fail(f"a unit test called {name}{way_out}", pytrace=True)

    return forbidden


@pytest.fixture(autouse=True)
def no_real_system_calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every way from the project to the kernel's objects raise."""
    for module_name, functions in EXECUTORS.items():
        if importlib.util.find_spec(module_name) is None:
            continue  # the native executor is optional
        module = importlib.import_module(module_name)
        for function in functions:
            monkeypatch.setattr(module, function, make_forbidden(f"{module_name}.{function}"))
    for name in OS_CALLS:
        if hasattr(os, name):
            monkeypatch.setattr(os, name, make_forbidden(f"os.{name}"))
    if request.node.get_closest_marker("runs_programs") is None:
        way_out = "; if it is to start an ordinary program, mark it runs_programs"
        for name in PROGRAM_CALLS:
            monkeypatch.setattr(os, name, make_forbidden(f"os.{name}", way_out))
        monkeypatch.setattr(subprocess, "Popen", make_forbidden("subprocess.Popen", way_out))


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the host's store and records out of sight."""
    monkeypatch.setenv("JAILRUN_DATA", str(tmp_path / "jailrun-data"))
    monkeypatch.setenv("JAILRUN_RUN", str(tmp_path / "jailrun-run"))
