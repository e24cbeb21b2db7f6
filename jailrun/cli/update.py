"""The verb update: other limits for a jail that runs.

Owns: its options, and what they mean together with the limits that the jail has.  Out of scope:
the values' meaning (`jailrun.spec.limits`), setting them (`jailrun.engine.lifecycle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jailrun.assemble import read_facts
from jailrun.cli import options as o
from jailrun.cli import output
from jailrun.cli.complete import complete_running
from jailrun.engine import lifecycle
from jailrun.engine.record import load
from jailrun.errors import JailError
from jailrun.server import limits
from jailrun.spec.default import default_config
from jailrun.spec.limits import set_resources

if TYPE_CHECKING:
    from jailrun.spec.model import Config, Resources
    from jailrun.spec.request import Request

LIMITS = ("memory", "swap", "cpus", "cpuset", "cpu_shares", "pids")


def update(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME…", help="Jails.", autocompletion=complete_running),
    ],
    memory: o.Memory = None,
    swap: o.Swap = None,
    cpus: o.Cpus = None,
    cpuset: o.Cpuset = None,
    cpu_shares: o.CpuShares = None,
    pids: o.Pids = None,
) -> None:
    """Change the limits of jails while they run.

    What is not named stays as it is.  A limit that cannot be set leaves all of them as they were.

    \b
    Examples:
      jailrun update --memory 512M --cpus 2 web
      jailrun update --pids 64 job1 job2
    """
    given = {
        "memory": memory,
        "swap": swap,
        "cpus": cpus,
        "cpuset": cpuset,
        "cpu_shares": cpu_shares,
        "pids": pids,
    }
    asked: Request = {key: value for key, value in given.items() if value is not None}  # type: ignore[assignment]
    if not asked:
        words = " ".join(f"--{limit.replace('_', '-')}" for limit in LIMITS)
        raise JailError("there is no limit to change", hint=f"give one of {words}")
    asked["host"] = read_facts()

    def change(name: str) -> None:
        record = load(name)
        has_swap = limits.can_limit_swap(record.cgroups)
        resources = plan_change(asked, record.read_config(), has_swap=has_swap)
        lifecycle.update(name, resources)

    output.for_each(names, change)


def plan_change(asked: Request, config: Config, *, has_swap: bool = True) -> Resources:
    """Return the OCI resources that change what is asked for in a jail that has ``config``.

    Memory and swap are one number to the kernel (their sum), so one of them alone takes the other
    from the jail's present limits.  A host without ``has_swap`` cannot limit swap, which is a fault
    only if someone asked for it.
    """
    swap_is_asked = "swap" in asked or config.get("jailrun", {}).get("swap") != "default"
    asked = {**asked}
    present = config.get("linux", {}).get("resources", {}).get("memory") or {}
    limit, total = present.get("limit") or 0, present.get("swap") or 0
    has_limit = limit > 0
    if "memory" in asked and "swap" not in asked and total and has_limit:
        asked["swap"] = "unlimited" if total < 0 else total - limit
    if "swap" in asked and "memory" not in asked and has_limit:
        asked["memory"] = limit
    blank = default_config()
    blank["linux"]["resources"] = {}
    set_resources(blank, asked)
    resources = blank["linux"]["resources"]
    if not has_swap and not swap_is_asked and "memory" in resources:
        resources["memory"].pop("swap", None)
    return resources
