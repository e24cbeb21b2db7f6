"""The comparisons: who takes part, what is aimed at, and the rounds in which they take turns.

Owns: `SCENES`, a function for each table.  Out of scope: printing.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import networks, ours, peers
from bench.table import Row, Table, Target
from bench.worker import BenchError, Team

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.ground import Ground
    from bench.worker import Contestant

    Scene = Callable[[Ground, int], Table]

WARM_UP = 2  # rounds that do not count
AT_ONCE = 4
BATCH = 4  # starts of each of these in a round
SMALL = "jailrun.run, small caller"
LARGE = "jailrun.run, 200 MB caller"


class Rounds:
    """Contestants that take turns, so that what disturbs the machine disturbs them alike."""

    def __init__(self, contestants: dict[str, Sequence[Contestant]]) -> None:
        self.teams: dict[str, Team] = {}
        self.absent: list[str] = []
        for name, members in contestants.items():
            try:
                self.teams[name] = Team(members)
            except BenchError as error:
                self.absent.append(f"{name}: {error}")

    def run(self, rounds: int, count: int = 1) -> dict[str, list[float]]:
        """Return the seconds of each in each round; one that fails is left out."""
        seconds: dict[str, list[float]] = {name: [] for name in self.teams}
        try:
            for turn in range(-WARM_UP, rounds):
                order = list(seconds)
                start = turn % len(order) if order else 0
                for name in order[start:] + order[:start]:
                    try:
                        taken = self.teams[name].measure(count)
                    except BenchError as error:
                        self.absent.append(f"{name}: {error}")
                        del seconds[name]
                    else:
                        if turn >= 0:
                            seconds[name].append(taken)
        finally:
            for team in self.teams.values():
                team.close()
        return seconds


def measure(
    key: str,
    title: str,
    reference: str,
    contestants: dict[str, Contestant],
    targets: Sequence[Target],
    rounds: int,
) -> Table:
    """Return the table of contestants that are timed one at a time."""
    race = Rounds({name: [contestant] for name, contestant in contestants.items()})
    seconds = race.run(rounds)
    rows = [Row(name, [1000 * one for one in values]) for name, values in seconds.items()]
    return Table(key, title, "ms", reference, rows, targets, race.absent)


def compare_starts(ground: Ground, rounds: int) -> Table:
    """Compare a jail's start to exit, in process, with the runtimes' command lines."""
    contestants: dict[str, Contestant] = {
        SMALL: ours.run_in_process,
        LARGE: partial(ours.run_in_process, megabytes=200),
        "jailrun.run, ctypes executor": partial(ours.run_in_process, executor="ctypes"),
        "crun run": partial(peers.run_runtime, ground, "crun"),
        "runc run": partial(peers.run_runtime, ground, "runc"),
    }
    targets = [Target(SMALL, 0.3, "crun run"), Target(LARGE, 1.15, SMALL)]
    title = "start to exit of /bin/true, in process"
    return measure("start", title, "crun run", contestants, targets, rounds)


def compare_commands(ground: Ground, rounds: int) -> Table:
    """Compare the command lines."""
    contestants: dict[str, Contestant] = {
        "bin/jailrun run": partial(ours.run_command_line, ground),
        "podman run --network none": partial(peers.run_podman, ground),
    }
    targets = [Target("bin/jailrun run", 0.5, "podman run --network none")]
    title = "start to exit of /bin/true, command line"
    return measure("command", title, "podman run --network none", contestants, targets, rounds)


def compare_execs(ground: Ground, rounds: int) -> Table:
    """Compare entering what runs already."""
    contestants: dict[str, Contestant] = {
        "Jail.run": ours.exec_in_process,
        "bin/jailrun exec": partial(ours.exec_command_line, ground),
        "crun exec": partial(peers.exec_runtime, ground, "crun"),
        "runc exec": partial(peers.exec_runtime, ground, "runc"),
    }
    title = "/bin/true in a jail that runs already"
    return measure("exec", title, "crun exec", contestants, [], rounds)


def compare_rates(ground: Ground, rounds: int) -> Table:
    """Compare how many starts are done in a second by several at once."""
    alone: dict[str, Contestant] = {
        "jailrun.run": ours.run_in_process,
        "crun run": partial(peers.run_runtime, ground, "crun"),
        "runc run": partial(peers.run_runtime, ground, "runc"),
    }
    race = Rounds({name: [contestant] * AT_ONCE for name, contestant in alone.items()})
    seconds = race.run(rounds, BATCH)
    rows = [
        Row(name, [AT_ONCE * BATCH / one for one in values]) for name, values in seconds.items()
    ]
    title = f"starts with {AT_ONCE} at once (more is better)"
    return Table("rate", title, "per second", "crun run", rows, (), race.absent)


def compare_memory(ground: Ground, rounds: int) -> Table:
    """Compare the memory outside of detached containers that idle; each of them is a value."""
    count = min(rounds, 10)
    rows, absent = [], []
    for name, keep in (("jailrun run -d", ours.idle_jails), ("podman run -d", peers.idle_podman)):
        try:
            with keep(ground, count) as pids:
                rows.append(Row(name, [read_pss_outside(pid) for pid in pids]))
        except BenchError as error:
            absent.append(f"{name}: {error}")
    title = "memory outside of each detached idle jail"
    targets = [Target("jailrun run -d", 1024)]
    return Table("memory", title, "KiB PSS", "podman run -d", rows, targets, absent)


def read_pss_outside(pid: int) -> float:
    """Return the KiB of all processes above a jail's first one, up to process 1 or this one."""
    total = 0
    while (pid := read_parent(pid)) not in (0, 1, os.getpid()):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return float(total)


def read_parent(pid: int) -> int:
    """Return the parent of a process, proc(5) field 4."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def compare_networks(ground: Ground, rounds: int) -> Table:
    """Compare starts with a bridge: our default network with what the peers call theirs."""
    ours_name, podman, lxc = "bin/jailrun run", "podman run, bridge", "lxc-start, bridge"
    contestants: dict[str, Contestant] = {
        "jailrun.run, default network": partial(networks.run_in_process, ground),
        ours_name: partial(networks.run_command_line, ground),
        podman: partial(networks.run_podman, ground),
        lxc: partial(networks.run_lxc, ground),
    }
    targets = [Target(ours_name, 0.15, podman), Target(ours_name, 1.0, lxc)]
    title = "start to exit of /bin/true, in a network"
    return measure("network", title, podman, contestants, targets, rounds)


def compare_crowds(ground: Ground, rounds: int) -> Table:
    """Compare the start of the 10th and of the 200th jail of a network."""
    few, many = "jailrun.run, the 10th in its network", "jailrun.run, the 200th in its network"
    contestants: dict[str, Contestant] = {
        few: partial(networks.run_among, ground, 9),
        many: partial(networks.run_among, ground, 199),
    }
    title = "start to exit of /bin/true, among others"
    return measure("crowd", title, few, contestants, [Target(many, 1.2, few)], rounds)


def compare_throughput(ground: Ground, rounds: int) -> Table:
    """Compare what passes through a bridge, and through a published port, with a bare link."""
    bare, plain = "a bare veth pair", "a plain bridge, without rules"
    between, published = "from jail to jail", "published port, from outside"
    contestants: dict[str, Sequence[Contestant]] = {
        bare: [partial(networks.pass_veth, ground)],
        plain: [partial(networks.pass_plain_bridge, ground)],
        "from the host to a jail": [partial(networks.pass_bridge, ground, from_host=True)],
        between: [partial(networks.pass_bridge, ground)],
        "published port, from the host": [partial(networks.pass_published, ground, from_host=True)],
        published: [partial(networks.pass_published, ground)],
    }
    race = Rounds(contestants)
    figures = race.run(min(rounds, 10))  # each takes some seconds
    rows = [Row(name, values) for name, values in figures.items()]
    targets = [
        Target(name, 0.95, against, at_least=True)
        for against in (bare, plain)
        for name in (between, published)
    ]
    title = "TCP through a network (more is better)"
    return Table("throughput", title, "Gbit/s", bare, rows, targets, race.absent)


SCENES: dict[str, Scene] = {
    "start": compare_starts,
    "command": compare_commands,
    "exec": compare_execs,
    "rate": compare_rates,
    "memory": compare_memory,
    "network": compare_networks,
    "crowd": compare_crowds,
    "throughput": compare_throughput,
}
