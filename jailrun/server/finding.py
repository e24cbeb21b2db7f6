"""A finding of ``jailrun check``: what was looked at, how it is, what to type.

Owns: `Finding` and the words for installing something.  Out of scope: looking.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``hint`` is what to type where it is not ok."""

    subject: str
    state: State
    detail: str
    hint: str = ""


def install(package: str) -> str:
    """Return how to get a package (named as on Debian)."""
    if shutil.which("apt-get"):
        return f"apt-get install {package}"
    return f"install what Debian has in the package {package}"
