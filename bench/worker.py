"""One process for each contestant, so that none is measured with another's memory or mounts.

Owns: `Worker` and `Team`.  Out of scope: what a contestant does (`bench.ours`, `bench.peers`).

    bench                          worker
      fork ─────────────────────▶   prepares
           ◀──────────── "ready"
      "3"  ─────────────────────▶   three samples, timed by itself
           ◀── "0.011 0.010 0.010"  or "error: …"
      end of file ──────────────▶   cleans up, exits
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import NoReturn

    # Prepares a contestant when entered, and cleans up after it.
    Contestant = Callable[[], AbstractContextManager["Sample"]]


HIGHEST_FD = 1024  # far above what the bench opens


class BenchError(Exception):
    """A contestant that cannot take part, or did not do what it was to do."""


class Sample(Protocol):
    """What is measured."""

    def take(self) -> float | None:
        """Do it once, return the figure; None: the seconds it took.  BenchError where it fails."""

    def settle(self) -> None:
        """Wait, after it was timed, for what it leaves running."""


class Plain:
    """A sample that leaves nothing running."""

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take

    def take(self) -> None:
        """Do it once."""
        self._take()

    def settle(self) -> None:
        """Return at once."""


class Figure:
    """A sample that measures by itself."""

    def __init__(self, take: Callable[[], float]) -> None:
        self._take = take

    def take(self) -> float:
        """Return the figure."""
        return self._take()

    def settle(self) -> None:
        """Return at once."""


class Worker:
    """A process that takes samples of one contestant."""

    def __init__(self, contestant: Contestant) -> None:
        from_parent, self._to_child = os.pipe()
        self._from_child, to_parent = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            # Also those of other workers, which would never see the end of their requests.
            os.closerange(3, min(from_parent, to_parent))
            os.closerange(min(from_parent, to_parent) + 1, max(from_parent, to_parent))
            os.closerange(max(from_parent, to_parent) + 1, HIGHEST_FD)
            _work(contestant, from_parent, to_parent)
        os.close(from_parent)
        os.close(to_parent)
        try:
            self._read()
        except BenchError:
            self.close()
            raise

    def ask(self, count: int) -> None:
        """Have samples taken; `answer` returns their times."""
        os.write(self._to_child, f"{count}\n".encode())

    def answer(self) -> list[float]:
        """Return how many seconds each took."""
        return [float(word) for word in self._read().split()]

    def _read(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            data = os.read(self._from_child, 65536)
            if not data:
                raise BenchError("the worker was killed")
            line += data
        text = line.decode().strip()
        if text.startswith("error: "):
            raise BenchError(text.removeprefix("error: "))
        return text

    def close(self) -> None:
        """Have the contestant cleaned up."""
        if self.pid:
            os.close(self._to_child)
            os.close(self._from_child)
            os.waitpid(self.pid, 0)
            self.pid = 0


def _work(contestant: Contestant, from_parent: int, to_parent: int) -> NoReturn:
    """Be the worker."""

    def tell(text: str) -> None:
        os.write(to_parent, f"{text}\n".encode())

    try:
        with contestant() as sample, os.fdopen(from_parent) as requests:
            tell("ready")
            for line in requests:
                try:
                    tell(" ".join(str(_measure(sample)) for _ in range(int(line))))
                except Exception as error:  # the last word, whatever it was
                    tell(f"error: {' '.join(str(error).split())}")
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        tell(f"error: {' '.join(str(error).split()) or type(error).__name__}")
        os._exit(1)
    os._exit(0)


def _measure(sample: Sample) -> float:
    begin = time.perf_counter()
    figure = sample.take()
    seconds = time.perf_counter() - begin
    sample.settle()
    return seconds if figure is None else figure


class Team:
    """Workers of one contestant that take their samples at the same time."""

    def __init__(self, contestants: Sequence[Contestant]) -> None:
        self.workers: list[Worker] = []
        try:
            for contestant in contestants:
                self.workers.append(Worker(contestant))
        except BaseException:
            self.close()
            raise

    def measure(self, count: int = 1) -> float:
        """Return the seconds until the last of them has taken so many samples."""
        begin = time.perf_counter()
        for worker in self.workers:
            worker.ask(count)
        times = [worker.answer() for worker in self.workers]
        return time.perf_counter() - begin if len(times) > 1 else sum(times[0])

    def close(self) -> None:
        """End them."""
        for worker in self.workers:
            worker.close()
