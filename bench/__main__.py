"""bench/run: measure jailrun against crun, runc and podman on this machine, as root."""

from __future__ import annotations

import argparse
import json
import os
import sys

from bench.ground import Ground
from bench.scenes import SCENES
from bench.table import as_data, format_table
from jailrun.errors import JailError


def read_arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument(
        "scenes", nargs="*", metavar="SCENE", help=f"some of: {', '.join(SCENES)}; else all"
    )
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="turns of each (30)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every single value")
    arguments = parser.parse_args()
    unknown = set(arguments.scenes) - set(SCENES)
    if unknown or arguments.rounds < 2:
        parser.error(f"no scene {', '.join(unknown)}" if unknown else "--rounds: 2 at least")
    return arguments


def describe_machine() -> str:
    """Return what the figures depend on most."""
    return f"{os.cpu_count()} processors, Linux {os.uname().release.split('-')[0]}"


def main() -> int:
    """Measure, print as it goes, leave nothing behind."""
    arguments = read_arguments()
    try:
        ground = Ground()
    except (JailError, OSError) as error:
        print(f"bench/run: {error}\n  hint: as root, once: bin/jailrun image build busybox",
              file=sys.stderr)  # fmt: skip
        return 125
    tables = []
    loads = [os.getloadavg()]
    if not arguments.json:
        print(f"{describe_machine()}; load average {loads[0][0]:.2f}")
    try:
        for key in arguments.scenes or SCENES:
            tables.append(SCENES[key](ground, arguments.rounds))
            loads.append(os.getloadavg())
            if not arguments.json:
                print("\n" + "\n".join(format_table(tables[-1])))
                print(f"  load average after: {loads[-1][0]:.2f}", flush=True)
    finally:
        ground.close()
    if arguments.json:
        data = {"machine": describe_machine(), "load": loads, "tables": list(map(as_data, tables))}
        print(json.dumps(data, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
