"""Making a config complete before it is planned: checked, copied, with the engine's own parts.

Owns: the checks that need the host.  Out of scope: the checks of form (`jailrun.spec`).
"""

from __future__ import annotations

import os

from jailrun.errors import JailError, SpecError, UnsupportedError
from jailrun.kernel.files import read_own_status
from jailrun.namespaces import PROC_NAMES
from jailrun.security.capabilities import CAP_SYS_RESOURCE
from jailrun.security.ids import check_mapped, host_id
from jailrun.security.limits import check_rlimits, read_host_limits
from jailrun.spec.check import check
from jailrun.spec.facts import read_host_facts
from jailrun.spec.unsupported import refuse_unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from jailrun.spec.model import Config


MAPPINGS: tuple[Literal["uidMappings"], Literal["gidMappings"]] = ("uidMappings", "gidMappings")


def complete(config: object) -> Config:
    """Return a checked copy of ``config``; raise what is wrong with it, or cannot be done here."""
    checked = check(config)
    refuse_unsupported(checked, read_host_facts())
    own: Config = {**checked}
    own["linux"] = {**checked.get("linux", {})}
    # Filled in for each jail, so each has its own.
    for key in MAPPINGS:
        if key in own["linux"]:
            own["linux"][key] = [{**mapping} for mapping in own["linux"][key]]
    kinds = {n["type"]: n.get("path") for n in own["linux"].get("namespaces", [])}
    if kinds.get("mount", "none"):
        without = "joining one" if "mount" in kinds else "a jail without one"
        raise UnsupportedError(
            f"linux.namespaces: {without} is not supported for the mount namespace",
            hint='linux.namespaces must have {"type": "mount"} without a path',
        )
    if not own.get("root") and not own.get("jailrun", {}).get("layers"):
        raise SpecError("root", "is missing", hint="name the root file system: root.path")
    _check_host_namespaces(own)
    process = own.get("process")
    if process is not None and not process.get("args"):
        raise SpecError("process.args", "is empty", hint="name the program to run")
    if process is not None and process.get("rlimits"):
        check_rlimits(process["rlimits"], read_host_limits(), can_raise=can_raise_limits())
    if process is not None and "user" in kinds:
        check_mapped(process, own["linux"])
    return own


SETTINGS = {"uts": ("hostname", "domainname"), "network": ("net.",), "ipc": ("kernel.", "fs.")}


def _check_host_namespaces(config: Config) -> None:
    """Refuse what would change the host: a namespace given by path may be the host's own."""
    sysctls = config["linux"].get("sysctl", {})
    for namespace in config["linux"].get("namespaces", []):
        kind, path = namespace["type"], namespace.get("path")
        if not path or kind not in SETTINGS or not _is_own(path, kind):
            continue
        names = [key for key in ("hostname", "domainname") if kind == "uts" and config.get(key)]
        names += [key for key in sysctls if key.startswith(SETTINGS[kind])]
        if names:
            raise UnsupportedError(
                f"{names[0]} would be set for the host: {path} is the host's own {kind} namespace",
                hint=f"leave {names[0]} out, or give the jail a {kind} namespace of its own",
            )


def _is_own(path: str, kind: str) -> bool:
    try:
        there, here = os.stat(path), os.stat(f"/proc/self/ns/{PROC_NAMES[kind]}")
    except OSError:
        return False  # joining it fails, and says why
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def owned_ids(config: Config) -> tuple[int, int]:
    """Return the host ids of the payload's user and group."""
    linux = config.get("linux", {})
    user = config.get("process", {}).get("user", {"uid": 0, "gid": 0})
    if not linux.get("uidMappings"):
        return user["uid"], user["gid"]
    uid = host_id(linux.get("uidMappings", []), user["uid"])
    gid = host_id(linux.get("gidMappings", []), user["gid"])
    if uid is None or gid is None:
        raise JailError(f"process.user: {user['uid']}:{user['gid']} is not mapped")
    return uid, gid


def can_raise_limits() -> bool:
    """Return whether the caller has CAP_SYS_RESOURCE."""
    return bool(int(read_own_status("CapEff"), 16) >> CAP_SYS_RESOURCE & 1)
