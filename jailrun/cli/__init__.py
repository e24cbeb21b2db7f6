"""The ``jailrun`` command: the only floor that prints, prompts and exits.

Owns: `main`, which both bin/jailrun and the installed script call, and what becomes of an error.
Out of scope: the verbs (`jailrun.cli.app` lists them).

One file a group of verbs; ``app`` puts them together, ``output`` prints.
"""

from __future__ import annotations

import os
import sys

# Not from typing: until `main` runs, nothing here says what an interrupt is answered with.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status, having said on stderr what went wrong."""
    try:
        from jailrun.cli import output, quick
    except KeyboardInterrupt:
        return INTERRUPTED
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = quick.read(words)
        if given is not None:
            from jailrun.cli.start import run_jail

            return run_jail(given["image"], given["command"], given)
        from jailrun.cli import app

        return app.invoke(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("JAILRUN_DEBUG") == "1":
            raise
        return output.print_error(error)
