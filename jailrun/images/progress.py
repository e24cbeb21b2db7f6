"""How long work on images tells its caller what it is doing.

Owns: the protocol `Progress` and `Silent`.  Out of scope: how it looks (the command line's job).
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a caller passes in to be told; the methods are called from the caller's own thread."""

    def step(self, text: str) -> None:
        """Begin a new step, such as ``fetch 96 packages``; ends the one before it."""

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Tell how far the current step is, in ``unit`` (``B`` or ``packages``)."""

    def warn(self, text: str) -> None:
        """Tell something that the user should know and that does not stop the work."""


class Silent:
    """Tell nobody."""

    def step(self, text: str) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Do nothing."""
