"""Run the distribution's own tools, and install the ones that are missing.

Owns: `run_tool`, `require_tool`, the environment in which tools run.  Out of scope: apt's sources
(`jailrun.images.apt`).

A tool that works in a workspace never outlives us: `setpriv` gives it SIGKILL when its parent dies,
and with it, in a process namespace of its own, all that it started.  It inherits the lock of its
workspace, so that the next command can wait for its end.  The host's own package manager is left
to finish: half-installed packages on the host are worse.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jailrun.errors import ImageError, UnsupportedError
from jailrun.images.progress import Progress

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "APT_CONFIG", "SSL_CERT_FILE")
_LINES_SHOWN = 4
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "--")
_NAMESPACES = ("unshare", "--mount", "--propagation=private", "--pid", "--fork")
_ISOLATED = (*_NAMESPACES, "--kill-child=SIGKILL", "--")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a tool: the host's way out, and nothing else of the caller's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or (name.upper().endswith("_PROXY") and name.lower() in _KEPT)
    }
    fixed = {
        "PATH": _PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
    }
    return {**kept, **fixed, **(extra or {})}


def find_tool(command: str) -> str | None:
    """Return the path of ``command`` on the host; None without it."""
    return shutil.which(command, path=_PATH)


def run_tool(
    command: Sequence[str | Path],
    *,
    what: str,
    cwd: Path | None = None,
    extra_env: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
    isolate: bool = False,
    mortal: bool = True,
) -> str:
    """Run ``command`` and return what it printed; raise ImageError naming ``what`` if it fails.

    ``on_line`` gets each line (standard output and error, as they come).  With ``isolate`` the
    tool has a mount and a process namespace of its own: what it mounts and what it leaves running
    vanishes with it.  Without ``mortal`` it goes on when we are killed.
    """
    words = [str(word) for word in command]
    if isolate:
        words = [*_ISOLATED, *words]
    if mortal:
        words = [*_MORTAL, *words]
    output: list[str] = []
    last: deque[str] = deque(maxlen=_LINES_SHOWN)
    try:
        process = subprocess.Popen(  # noqa: S603 - the commands are our own, without a shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment(extra_env),
            pass_fds=tuple(keep_open),
            umask=0o022,
            text=True,
            errors="surrogateescape",
        )
    except OSError as error:
        raise ImageError(f"cannot {what}: cannot run {words[0]}: {error.strerror}") from error
    with process:
        try:
            for line in process.stdout or ():
                output.append(line)
                if line.strip():
                    last.append(line.strip())
                if on_line is not None:
                    on_line(line.rstrip("\n"))
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status != 0:
        said = "; ".join(last) or "it said nothing"
        name = Path(str(command[0])).name
        end = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise ImageError(f"cannot {what}: {name} failed with {end}: {said}")
    return "".join(output)


def require_tool(command: str, package: str, progress: Progress) -> str:
    """Return the path of ``command``, installing ``package`` of the distribution without it."""
    path = find_tool(command)
    if path is not None:
        return path
    if find_tool("apt-get") is None:
        raise UnsupportedError(
            f"the command {command} is missing, and this system has no apt-get to install it with",
            hint=f"install {command} (on Debian it is in the package {package})",
        )
    progress.step(f"install the package {package}, for {command}")
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package]
    try:
        run_tool(install, what=f"install {package}", mortal=False)
    except ImageError:
        run_tool(["apt-get", "update", "--quiet"], what="update the list of packages", mortal=False)
        run_tool(install, what=f"install {package}", mortal=False)
    path = find_tool(command)
    if path is None:
        raise ImageError(f"the package {package} is installed and brings no command {command}")
    return path
