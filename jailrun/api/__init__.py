"""Jails for Python programs, in-process.

Owns: what `import jailrun` offers beside the errors.  `once` runs one command in a jail of its
own, `jail` keeps a jail for several, `process` is a command that runs in one, `result` says how a
command ended.
"""

from __future__ import annotations

from jailrun.api.jail import Jail
from jailrun.api.once import run
from jailrun.api.process import Process
from jailrun.api.result import CommandFailedError, JailTimeoutError, Result
from jailrun.api.streams import DEVNULL, PIPE, STDOUT
from jailrun.engine.lifecycle import recover

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CommandFailedError",
    "Jail",
    "JailTimeoutError",
    "Process",
    "Result",
    "recover",
    "run",
]
