"""What this host can do, found out by doing it: the probes behind ``@pytest.mark.requires``.

Owns: the names of features and one probe for each, run once.  A probe returns "" where the feature
works, and why not where it does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from jailrun.cgroups.hierarchy import read_hierarchies
from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution
from jailrun.kernel.program import Program


def try_clone(flags: int) -> str:
    """Make a child in new namespaces that ends at once."""
    program = Program()
    program.clone_flags = flags
    program.child.wait_for_caller()
    execution = Execution(program)
    try:
        execution.spawn()
        execution.wait(30)
    except OSError as error:
        return str(error.strerror)
    finally:
        execution.abandon()
    return ""


def try_root() -> str:
    """Tell whether we are root."""
    return "" if os.geteuid() == 0 else "needs root"


def try_native() -> str:
    """Tell whether the native executor was built."""
    try:
        from jailrun.kernel import _execute  # noqa: F401
    except ImportError as error:
        return f"the native executor was not built: {error}"
    return ""


def try_controller(name: str) -> str:
    """Tell whether a cgroup controller is mounted here."""
    return "" if read_hierarchies().of(name) else f"no cgroup controller {name}"


def try_time_namespace() -> str:
    """Tell whether this kernel has time namespaces."""
    return "" if Path("/proc/self/timens_offsets").exists() else "no time namespaces"


def try_tool(name: str) -> str:
    """Tell whether a program is installed."""
    return "" if shutil.which(name) else f"{name} is not installed"


def try_tmpfs() -> str:
    """Tell whether we can mount."""
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip()


def try_freezer() -> str:
    """Tell whether jails can be paused."""
    found = read_hierarchies()
    return "" if found.unified or found.of("freezer") else "no freezer"


def try_x86() -> str:
    """Tell whether 32-bit personalities and the like make sense."""
    return "" if c.MACHINE == "x86_64" else "not x86_64"


PROBES: dict[str, Callable[[], str]] = {
    "root": try_root,
    "namespaces": lambda: try_clone(
        c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWPID | c.CLONE_NEWNET | c.CLONE_NEWIPC
    ),
    "native": try_native,
    "time": try_time_namespace,
    "mount": try_tmpfs,
    "freezer": try_freezer,
    "x86_64": try_x86,
}


@cache
def why_not(feature: str) -> str:
    """Return why a feature is missing; "" if it is there.

    Beside the names above: ``cgroup:CONTROLLER`` and ``tool:PROGRAM``.
    """
    kind, _, name = feature.partition(":")
    if kind == "cgroup":
        return try_controller(name)
    if kind == "tool":
        return try_tool(name)
    return PROBES[feature]()
