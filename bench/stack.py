"""A network stack of a worker's own, so that no contestant touches the machine's, or another's.

Owns: `leave_network`, and namespaces that are beside it.  Out of scope: what is done there.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.ground import CLONE_NEWNS
from bench.worker import BenchError
from jailrun import paths

if TYPE_CHECKING:
    from bench.ground import Ground

CLONE_NEWNET = 0x40000000  # linux/sched.h
# /sys anew, since one shows the links of the namespace that it was mounted in; and private what
# peers keep of networks in places that no option moves.
SETUP = """
mount --make-rprivate / &&
mount -t sysfs sysfs "$1" &&
mount --rbind /sys/fs/cgroup "$1/fs/cgroup" &&
umount --lazy /sys &&
mount --move "$1" /sys &&
for folder in /var/lib/cni /run/netns /run/lxc; do
    if [ -d $folder ]; then mount -t tmpfs none $folder || exit; fi
done
ip link set lo up
"""


def call(*words: str) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BenchError(f"{' '.join(words[:4])} … ended with {done.returncode}: {said[-300:]}")
    return done.stdout


def leave_network(ground: Ground) -> None:
    """Give this process a network namespace, and jailrun folders of its own with our image."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise BenchError(f"cannot leave the network: {os.strerror(ctypes.get_errno())}")
    folder = Path(tempfile.mkdtemp(prefix="net-", dir=ground.folder))
    sysfs, data = folder / "sys", folder / "data"
    sysfs.mkdir()
    data.mkdir()
    folder.chmod(0o711)
    ground.folder.chmod(0o711)
    call("sh", "-c", SETUP, "sh", str(sysfs))
    (data / "images").symlink_to(paths.images_dir())
    os.environ["JAILRUN_DATA"] = str(data)
    os.environ["JAILRUN_RUN"] = str(folder / "run")


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the next line of what a process prints, b"" at its end."""
    return process.stdout.readline() if process.stdout else b""


class Beside:
    """A network namespace at the other end of a link to this process's."""

    def __init__(self, link: str, ours: str, theirs: str) -> None:
        words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; read end"]
        self._holder = subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        read_line(self._holder)
        self.pid = self._holder.pid
        call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns",
             str(self.pid))  # fmt: skip
        if ours:
            call("ip", "address", "add", ours, "dev", link)
        call("ip", "link", "set", link, "up")
        for words in (["address", "add", theirs, "dev", "eth0"], ["link", "set", "eth0", "up"]):
            call(*enter(self.pid), "ip", *words)

    def close(self) -> None:
        """End it, and the link with it."""
        self._holder.communicate()


def enter(pid: int) -> list[str]:
    """Return the words before a command that is to run in the network of a process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []


def measure_throughput(server: int, client: int, address: str, port: int, seconds: float) -> float:
    """Return the Gbit/s from the network of one process to that of another (0: our own)."""
    words = [*enter(server), "iperf3", "--server", "--one-off", "--forceflush"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as listening:  # noqa: S603
        try:
            while b"listening" not in (line := read_line(listening)):
                if not line:
                    raise BenchError("iperf3 does not listen")
            words = ["iperf3", "--json", "--client", address, "--port", str(port)]
            words += ["--time", str(seconds), "--omit", "1"]
            result = json.loads(call(*enter(client), *words))
        finally:
            listening.kill()
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9
