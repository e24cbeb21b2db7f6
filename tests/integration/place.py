"""Where a session of integration tests takes place: apart from the machine that it runs on.

Owns: `leave_the_host`, the way back for a while, and `Place`, a network namespace in which programs
can be run.  Out of scope: which places there are and how they are wired (``net.world``).

The session has a mount namespace and a network namespace of its own.  Its mounts are shared among
its own processes, so that a mount that gets out of a jail is seen.  Its bridges, firewall rules and
addresses are nobody else's, and die with it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution, syscall
from jailrun.kernel.program import Program

SECONDS = 30.0  # a deadline, never a measure
QUIET = (  # what a new network namespace may take over from the machine's own
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
)


_machine_fd = -1


def leave_the_host() -> None:
    """Move this process into a mount and a network namespace of its own."""
    global _machine_fd
    _machine_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    program = Program()
    before = program.before
    before.unshare(c.CLONE_NEWNS | c.CLONE_NEWNET, what="leave the host's mounts and network")
    before.mount(0, "/", 0, c.MS_REC | c.MS_PRIVATE, what="keep mounts from the host:")
    Execution(program).run_before()
    renew_sysfs()
    program = Program()
    program.before.mount(0, "/", 0, c.MS_REC | c.MS_SHARED, what="see mounts that get out:")
    Execution(program).run_before()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in QUIET:
        Path("/proc/sys/net", name).write_text("0")


@contextmanager
def network_of_the_machine() -> Iterator[None]:
    """Be in the machine's own network for a while: packages are fetched from there."""
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall("setns", _machine_fd, c.CLONE_NEWNET)
        yield
    finally:
        syscall("setns", own_fd, c.CLONE_NEWNET)
        os.close(own_fd)


def renew_sysfs() -> None:
    """Mount /sys anew, since one shows the links of the namespace that it was mounted in."""
    inside = [
        path
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if (path := line.split()[4]).startswith("/sys/")
    ]
    tops = [path for path in inside if not any(path.startswith(f"{one}/") for one in inside)]
    with tempfile.TemporaryDirectory() as new:
        subprocess.run(["mount", "-t", "sysfs", "sysfs", new], check=True)
        for path in dict.fromkeys(tops):
            subprocess.run(["mount", "--rbind", path, f"{new}{path[4:]}"], check=True)
        subprocess.run(["umount", "--lazy", "/sys"], check=True)
        subprocess.run(["mount", "--move", new, "/sys"], check=True)


class Place:
    """A network namespace, by a descriptor of it; -1 is the one that we are in."""

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd

    @classmethod
    def make(cls) -> Place:
        """Return a new network namespace."""
        words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; read end"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
            assert made.stdout is not None
            assert made.stdout.readline() == b"\n"
            return cls.of(made.pid)

    @classmethod
    def of(cls, pid: int) -> Place:
        """Return the network namespace of a process."""
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> str:
        """A path of it, for `ip` and others."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def _enter(self) -> None:
        if self.fd >= 0:
            syscall("setns", self.fd, c.CLONE_NEWNET)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a program here, with pipes as its streams."""
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=self._enter,
        )

    def run(
        self, *words: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end."""
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            preexec_fn=self._enter,
        )
        assert not check or done.returncode == 0, (words, done)
        return done

    def ip(self, *lines: str) -> None:
        """Have `ip` do what these lines say, one after the other."""
        self.run("ip", "-batch", "-", stdin="".join(f"{line}\n" for line in lines))

    def write(self, name: str, value: str) -> None:
        """Set a parameter of the network below /proc/sys/net."""
        self.run("sh", "-c", 'echo "$1" >"/proc/sys/net/$0"', name, value)

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
