"""The peers: crun, runc and podman, from the distribution's packages.

Owns: how each is told to do what we do.  Each function here is a contestant (`bench.worker`).

They get the same tree, limits, capabilities and profile, and do less: no user namespace, no
overlay and no cgroup namespace, as is their default.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.ground import COMMAND, CPUS, IDLE, MEMORY, PIDS, hide_unified, run_program
from bench.worker import BenchError, Plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.ground import Ground
    from bench.worker import Sample


def find_peer(name: str, *, package: str = "") -> str:
    """Return the path of a peer's program; raise BenchError, with what to type, without it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if path is None:
        needed = package or name
        raise BenchError(
            f"{name} is not installed: apt-get install --no-install-recommends {needed}"
        )
    return path


class Runtime:
    """An OCI runtime with a state folder of its own, in a worker."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.program = find_peer(name)
        if name == "crun":
            hide_unified()
        self.ground = ground
        self.state = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ground.folder))
        self.errors = self.state.with_suffix(".err")
        self.prefix = f"{ground.name}-{self.state.name}"

    def make_bundle(self, args: list[str]) -> Path:
        """Return a bundle made from the runtime's own default."""
        empty = Path(tempfile.mkdtemp(prefix="spec-", dir=self.ground.folder))
        subprocess.run([self.program, "spec"], cwd=empty, check=True)  # noqa: S603 - found by us
        return self.ground.make_bundle(json.loads((empty / "config.json").read_text()), args)

    def call(self, *words: str) -> None:
        """Run the runtime to its end."""
        run_program([self.program, "--root", str(self.state), *words], self.errors)


@contextmanager
def run_runtime(ground: Ground, name: str) -> Iterator[Sample]:
    """Take ``crun run`` or ``runc run`` from start to exit."""
    runtime = Runtime(ground, name)
    bundle = str(runtime.make_bundle(COMMAND))
    numbers = itertools.count()
    yield Plain(
        lambda: runtime.call("run", "--bundle", bundle, f"{runtime.prefix}-{next(numbers)}")
    )


@contextmanager
def exec_runtime(ground: Ground, name: str) -> Iterator[Sample]:
    """Take ``crun exec`` or ``runc exec`` into a container that idles."""
    runtime = Runtime(ground, name)
    runtime.call("run", "--detach", "--bundle", str(runtime.make_bundle(IDLE)), runtime.prefix)
    try:
        yield Plain(lambda: runtime.call("exec", runtime.prefix, *COMMAND))
    finally:
        runtime.call("delete", "--force", runtime.prefix)


class Podman:
    """podman with a store of its own, in a worker.

    runc, since crun refuses hybrid hosts.  The limits of open files and processes are named since
    podman would raise them, which not every root may.  ``--rootfs`` spares it its image store.
    """

    def __init__(self, ground: Ground, *, network: str = "none") -> None:
        find_peer("runc")
        # A short name: podman takes 50 characters at most.
        store = Path(tempfile.mkdtemp(prefix="p-", dir=ground.folder))
        self.ground = ground
        self.errors = store.with_suffix(".err")
        self.words = [
            *(find_peer("podman"), "--root", f"{store}/root", "--runroot", f"{store}/run"),
            *("--tmpdir", f"{store}/state", "--storage-driver", "vfs"),
            *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        ]
        self.options = [
            *("--network", network, "--cgroup-parent", f"/{ground.name}"),
            *("--memory", MEMORY.lower(), "--cpus", str(CPUS), "--pids-limit", str(PIDS)),
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
            *("--security-opt", f"seccomp={ground.profile_path}"),
        ]

    def call(self, *words: str) -> None:
        """Run podman to its end."""
        run_program([*self.words, *words], self.errors)

    def run(self, args: list[str], *options: str) -> None:
        """Run a container."""
        self.call("run", *options, *self.options, "--rootfs", str(self.ground.root), *args)

    def take(self) -> None:
        """Run one from start to exit."""
        self.run(COMMAND, "--rm")

    def settle(self) -> None:
        """Wait for conmon, and for the podman that conmon starts at the end."""
        self.ground.wait_quiet()

    def close(self) -> None:
        """Remove all containers."""
        self.call("rm", "--all", "--force", "--time", "0")


@contextmanager
def run_podman(ground: Ground) -> Iterator[Sample]:
    """Take ``podman run`` from start to exit."""
    podman = Podman(ground)
    yield podman


@contextmanager
def idle_podman(ground: Ground, count: int) -> Iterator[list[int]]:
    """Keep detached containers of podman; give the pids of their first processes."""
    podman = Podman(ground)
    try:
        files = [ground.folder / f"podman-{number}.pid" for number in range(count)]
        for file in files:
            pid_file = ground.folder / f"{file.name}.conmon"
            podman.run(IDLE, "--detach", "--pidfile", str(file), "--conmon-pidfile", str(pid_file))
        yield [int(file.read_text()) for file in files]
    finally:
        with suppress(BenchError):
            podman.close()
        podman.settle()
