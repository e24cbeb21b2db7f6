"""What a valid config may ask for and the engine does not do: refused by name, never ignored.

Owns: one table.  A row goes when the engine learns what it says.  Objects of other platforms
(solaris, windows, vm, zos) are not ours to read and are ignored.
"""

from __future__ import annotations

from jailrun.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jailrun.spec.facts import HostFacts
    from jailrun.spec.model import Config


def _never(_value: Any, _host: HostFacts) -> bool:
    return False


def _with_apparmor(value: Any, host: HostFacts) -> bool:
    return host.apparmor or value == "unconfined"


def _with_selinux(_value: Any, host: HostFacts) -> bool:
    return host.selinux


def _is_known_policy(value: Any, _host: HostFacts) -> bool:
    return bool(value != "SCHED_ISO")


# path, whether this host and engine can do it, why not
_TABLE: tuple[tuple[str, Callable[[Any, HostFacts], bool], str], ...] = (
    ("linux.intelRdt", _never, "resctrl is not supported yet"),
    ("linux.netDevices", _never, "not supported, jailrun.devices_in moves interfaces"),
    ("linux.personality.flags", _never, "the specification names no flags"),
    ("linux.seccomp.listenerPath", _never, "seccomp notification is not supported yet"),
    ("linux.mountLabel", _with_selinux, "this host has no SELinux"),
    ("process.selinuxLabel", _with_selinux, "this host has no SELinux"),
    ("process.apparmorProfile", _with_apparmor, "this host has no AppArmor"),
    ("process.execCPUAffinity", _never, "CPU affinity of exec is not supported yet"),
    ("process.scheduler.policy", _is_known_policy, "Linux has no SCHED_ISO"),
)


def refuse_unsupported(config: Config, host: HostFacts) -> None:
    """Raise UnsupportedError for the first thing in ``config`` that would not be done."""
    for path, is_supported, why in _TABLE:
        value: Any = config
        for key in path.split("."):
            value = value.get(key)
            if not value:
                break
        if value and not is_supported(value, host):
            raise UnsupportedError(f"{path}: {why}", hint=f"remove {path} from the config")


def unsupported_paths() -> list[str]:
    """Return the JSON paths that are not supported on any host."""
    return [path for path, is_supported, _ in _TABLE if is_supported is _never]
