"""The contestants with a network: starts on a bridge, many of them, and what passes through.

Each function here is a contestant (`bench.worker`), in a network stack of its own (`bench.stack`).
The peers get a bridge with one IPv4 address, as is their default: ours have both families,
a name in a resolver, and packet filters against forged addresses besides.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jailrun
from bench.ground import CAPABILITIES, CGROUPS, COMMAND, CPUS, IMAGE, MEMORY, PIDS, run_program
from bench.ours import OPTIONS, PROGRAM, check
from bench.peers import Podman, find_peer
from bench.stack import Beside, call, leave_network, measure_throughput
from bench.worker import BenchError, Figure, Plain
from jailrun.engine.record import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.ground import Ground
    from bench.worker import Sample

SECONDS = 2  # of traffic for a figure
PORT = 5201
LXC_BRIDGE = "lxcbench0"
LXC_CONFIG = """
lxc.rootfs.path = dir:{root}
lxc.init.cmd = {command}
lxc.net.0.type = veth
lxc.net.0.link = {bridge}
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.ipv4.address = 10.77.0.2/16
lxc.net.0.ipv4.gateway = 10.77.0.1
lxc.mount.auto = proc:mixed sys:ro
lxc.cap.keep = {capabilities}
lxc.cgroup.memory.limit_in_bytes = {memory}
lxc.cgroup.pids.max = {pids}
lxc.cgroup.cpu.cfs_quota_us = {quota}
"""


def take_run() -> None:
    """Run one jail in the default network from start to exit."""
    check(jailrun.run(COMMAND, image=IMAGE, memory=MEMORY, cpus=CPUS, pids=PIDS, network="default"))


@contextmanager
def run_in_process(ground: Ground) -> Iterator[Sample]:
    """Take `jailrun.run` in the default network."""
    leave_network(ground)
    take_run()
    yield Plain(take_run)


@contextmanager
def run_command_line(ground: Ground) -> Iterator[Sample]:
    """Take ``jailrun run``, whose default is the default network."""
    leave_network(ground)
    errors = ground.folder / f"jailrun-net-{os.getpid()}.err"
    words = [PROGRAM, "run", "--rm", *OPTIONS, IMAGE, *COMMAND]
    yield Plain(lambda: run_program(words, errors))


@contextmanager
def run_podman(ground: Ground) -> Iterator[Sample]:
    """Take ``podman run`` with its bridge."""
    leave_network(ground)
    yield Podman(ground, network="bridge")


@contextmanager
def run_lxc(ground: Ground) -> Iterator[Sample]:
    """Take ``lxc-start`` in the foreground, with a bridge and an address."""
    program = find_peer("lxc-start", package="lxc")
    leave_network(ground)
    folder = Path(tempfile.mkdtemp(prefix="lxc-", dir=ground.folder))
    call("ip", "link", "add", LXC_BRIDGE, "type", "bridge")
    call("ip", "address", "add", "10.77.0.1/16", "dev", LXC_BRIDGE)
    call("ip", "link", "set", LXC_BRIDGE, "up")
    config = folder / "config"
    values = {
        "root": str(ground.root),
        "command": " ".join(COMMAND),
        "bridge": LXC_BRIDGE,
        "capabilities": " ".join(one.removeprefix("CAP_").lower() for one in CAPABILITIES),
        "memory": MEMORY,
        "pids": PIDS,
        "quota": int(CPUS * 100_000),
    }
    config.write_text(LXC_CONFIG.format(**values))
    errors, numbers = folder / "errors", itertools.count()
    words = [program, "-F", "-P", str(folder), "-f", str(config), "-n"]
    stays = [path for path in find_lxc_state() if not path.exists()]
    try:
        yield Plain(lambda: run_program([*words, f"{ground.name}-{next(numbers)}"], errors))
    finally:
        for path in stays:
            subprocess.run(["find", str(path), "-depth", "-type", "d", "-delete"], check=False)  # noqa: S603, S607
            shutil.rmtree(path, ignore_errors=True)


def find_lxc_state() -> list[Path]:
    """Return where lxc leaves something that no option moves."""
    return [Path("/run/lxc"), *(one / "lxc.pivot" for one in CGROUPS.iterdir() if one.is_dir())]


@contextmanager
def run_among(ground: Ground, others: int) -> Iterator[Sample]:
    """Take `jailrun.run` in a network that has so many jails."""
    leave_network(ground)
    with ExitStack() as undo:
        for _number in range(others):
            undo.enter_context(jailrun.Jail(IMAGE, memory=MEMORY, pids=PIDS, network="default"))
        take_run()
        yield Plain(take_run)


# --- throughput, in Gbit/s -----------------------------------------------------------------------
@contextmanager
def pass_veth(ground: Ground) -> Iterator[Sample]:
    """Measure a bare pair of links between two namespaces, which no other can beat."""
    leave_network(ground)
    find_peer("iperf3")
    other = Beside("bare0", "10.78.0.1/24", "10.78.0.2/24")
    try:
        yield Figure(lambda: measure_throughput(other.pid, 0, "10.78.0.2", PORT, SECONDS))
    finally:
        other.close()


@contextmanager
def pass_plain_bridge(ground: Ground) -> Iterator[Sample]:
    """Measure a bridge without any rules between two namespaces: what the kernel's own takes."""
    leave_network(ground)
    with ExitStack() as undo:
        call("ip", "link", "add", "plain0", "type", "bridge")
        call("ip", "link", "set", "plain0", "up")
        ends = []
        for number in (1, 2):
            ends.append(Beside(f"port{number}", "", f"10.79.0.{number}/24"))
            undo.callback(ends[-1].close)
            call("ip", "link", "set", f"port{number}", "master", "plain0")
        server, client = ends
        yield Figure(lambda: measure_throughput(server.pid, client.pid, "10.79.0.1", PORT, SECONDS))


def address_of(jail: jailrun.Jail) -> str:
    """Return the first address of a jail."""
    network = load(jail.name).network
    if not network:
        raise BenchError(f"{jail.name} is in no network")
    return network["nics"][0]["address"]


@contextmanager
def pass_bridge(ground: Ground, *, from_host: bool = False) -> Iterator[Sample]:
    """Measure from one jail to another of its network, or from the host."""
    leave_network(ground)
    with (
        jailrun.Jail(IMAGE, network="default") as server,
        jailrun.Jail(IMAGE, network="default") as client,
    ):
        sender, address = 0 if from_host else client.pid, address_of(server)
        yield Figure(lambda: measure_throughput(server.pid, sender, address, PORT, SECONDS))


@contextmanager
def pass_published(ground: Ground, *, from_host: bool = False) -> Iterator[Sample]:
    """Measure through a published port, from another machine or from the host."""
    leave_network(ground)
    outside = Beside("uplink0", "10.78.0.1/24", "10.78.0.2/24")
    try:
        with jailrun.Jail(IMAGE, network="default", publish=[f"8080:{PORT}"]) as server:
            sender = 0 if from_host else outside.pid
            yield Figure(lambda: measure_throughput(server.pid, sender, "10.78.0.1", 8080, SECONDS))
    finally:
        outside.close()
