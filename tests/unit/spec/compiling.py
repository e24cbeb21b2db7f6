"""A host, its devices and an image, all made up, and the config of a jail on it."""

from __future__ import annotations

from typing import Any

from jailrun.spec.check import check
from jailrun.spec.compile import compile_config
from jailrun.spec.facts import DeviceNode, HostFacts

GIGA = 2**30
HOST = HostFacts(cpu_numbers={0, 1}, memory_bytes=8 * GIGA, rlimits={"RLIMIT_NOFILE": 4096})
IMAGE: Any = {
    "reference": "busybox",
    "layers": ["/images/busybox"],
    "env": ["PATH=/bin", "A=image"],
    "entrypoint": ["/entry"],
    "cmd": ["default"],
    "user": "33:34",
    "workdir": "/srv",
    "labels": {"tier": "web", "from": "image"},
    "stop_signal": "SIGQUIT",
}
DEVICES = {
    "/dev/fuse": DeviceNode("c", 10, 229, 0o666),
    "/dev/sda": DeviceNode("b", 8, 0, 0o660),
}


def compiled(**asked: Any) -> Any:
    """Return the config for a jail on HOST that runs sh; it is checked."""
    asked.setdefault("command", ["sh"])
    config = compile_config(host=HOST, stat_device=DEVICES.get, **asked)
    assert check(config) is config
    return config
