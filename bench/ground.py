"""What all contestants share: the root file system, the limits, the seccomp profile, the name.

Owns: `Ground`, which makes that in a folder of its own and removes all of it, and `run_program`.
Out of scope: the contestants.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.worker import BenchError
from jailrun.images.lookup import resolve
from jailrun.security.profile import default_profile

IMAGE = "busybox"
COMMAND = ["/bin/true"]
IDLE = ["/bin/sleep", "100000"]
MEMORY, CPUS, PIDS = "64M", 0.5, 32
CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_SETFCAP"),
)
HOME = Path(__file__).resolve().parent.parent
CGROUPS = Path("/sys/fs/cgroup")
# What podman and its runtime leave in places that no option moves.
SHARED = (Path("/dev/shm/libpod_lock"), Path("/run/runc"), Path("/run/crun"), Path("/run/libpod"))  # noqa: S108
QUIET = 20.0  # seconds for what a peer leaves running
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2  # linux/sched.h, mount.h


class Ground:
    """A folder with a copy of the image's tree, bundles, and the peers' own state."""

    def __init__(self) -> None:
        image = resolve(IMAGE)
        self.folder = Path(tempfile.mkdtemp(prefix="jailrun-bench-", dir="/var/tmp"))
        self.name = self.folder.name
        self.root = self.folder / "rootfs"
        self.profile = default_profile(CAPABILITIES)
        self.profile_path = self.folder / "seccomp.json"
        self._existed = [path for path in SHARED if path.exists()]
        try:
            shutil.copytree(image.layers[0], self.root, symlinks=True)
            self.profile_path.write_text(json.dumps(self.profile))
        except BaseException:
            self.close()
            raise

    def make_bundle(self, base: dict[str, Any], args: list[str]) -> Path:
        """Return a new OCI bundle: ``base``, as the peer's own ``spec`` command writes it, with
        our root, limits, capabilities and profile."""
        process, linux = base["process"], base["linux"]
        process.update(args=args, terminal=False, noNewPrivileges=True)
        process["capabilities"] = {
            kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
        }
        process.pop("rlimits", None)  # the host may forbid to raise them
        base["root"] = {"path": str(self.root), "readonly": False}
        linux["seccomp"] = self.profile
        linux["resources"] |= {
            "memory": {"limit": 64 << 20},
            "cpu": {"quota": int(CPUS * 100_000), "period": 100_000},
            "pids": {"limit": PIDS},
        }
        bundle = Path(tempfile.mkdtemp(prefix="bundle-", dir=self.folder))
        (bundle / "config.json").write_text(json.dumps(base))
        return bundle

    def wait_quiet(self) -> None:
        """Wait until no process has our folder among its arguments."""
        deadline = time.monotonic() + QUIET
        while self._find_process():
            if time.monotonic() > deadline:
                raise BenchError(f"processes with {self.folder} go on: {self._find_process()}")
            time.sleep(0.005)

    def _find_process(self) -> str:
        needle = os.fsencode(self.folder)
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and entry.name != str(os.getpid()):
                try:
                    words = Path(entry.path, "cmdline").read_bytes()
                except OSError:
                    continue
                if needle in words:
                    return words.replace(b"\0", b" ").decode(errors="replace")
        return ""

    def close(self) -> None:
        """Remove all that the peers have left."""
        self.wait_quiet()
        shutil.rmtree(self.folder, ignore_errors=True)
        for hierarchy in CGROUPS.iterdir():
            _remove_cgroups(hierarchy / self.name)
        for path in SHARED:
            if path not in self._existed and path.exists():
                if path.is_dir():
                    _remove_empty(path)
                else:
                    path.unlink()


def _remove_cgroups(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            if entry.is_dir():
                _remove_cgroups(entry)
        _remove_empty(path)


def _remove_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError as error:
        print(f"left behind: {path}: {error.strerror}")


def hide_unified() -> None:
    """Give this process a mount namespace without the v2 hierarchy of a hybrid host.

    crun 1.8 refuses to run where it sees both.
    """
    unified = CGROUPS / "unified"
    if not os.path.ismount(unified):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    steps = (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        libc.umount2(os.fsencode(unified), MNT_DETACH),
    )
    if any(steps):
        raise BenchError(f"cannot hide {unified}: {os.strerror(ctypes.get_errno())}")


def run_program(words: list[str], errors: Path) -> None:
    """Run a program to its end, its output thrown away; raise BenchError unless it exits with 0.

    posix_spawn, since it costs the least that a caller in Python can have.
    """
    opened = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(errors), opened, 0o600),
    ]
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        said = errors.read_text(errors="replace").strip()
        raise BenchError(f"{' '.join(words[:3])} … ended with {status}: {said[-400:]}")
