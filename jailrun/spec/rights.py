"""What the user asked for of rights: capabilities, seccomp, masks, and what is allowed by name.

Owns: the options ``allow``, ``cap_add``, ``cap_drop``, ``security_opt``, ``sysctl`` and
``privileged``.  Each loosens one thing and says so; nothing is loosened by another option's
side effect.  Out of scope: applying them (`jailrun.security`), and what of ``allow`` is a rule of
traffic (`jailrun.spec.traffic`).
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.fields import Problems
from jailrun.spec.files import add_device, normal_path
from jailrun.spec.known import CAPABILITIES
from jailrun.spec.tables import SECCOMP
from jailrun.spec.traffic import is_rule
from jailrun.units import parse_pair, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import cast

    from jailrun.spec.model import Config, Seccomp
    from jailrun.spec.request import Request

# name: capabilities, names for the seccomp profile, devices (path, major, minor;
# Documentation/admin-guide/devices.txt), and what else is changed, see _loosen
_ALLOW: dict[
    str, tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, int, int], ...], str]
] = {
    "audit": (("CAP_AUDIT_WRITE",), (), (), ""),
    "bpf": (("CAP_BPF",), ("bpf",), (), ""),
    "fuse": (("CAP_SYS_ADMIN",), (), (("/dev/fuse", 10, 229),), ""),
    "immutable-files": (("CAP_LINUX_IMMUTABLE",), (), (), ""),
    "io-uring": ((), ("io_uring",), (), ""),
    "ipc-lock": (("CAP_IPC_LOCK",), (), (), ""),
    "kernel-log": (("CAP_SYSLOG",), (), (), ""),
    "keyring": ((), ("keyring",), (), ""),
    "kvm": ((), (), (("/dev/kvm", 10, 232),), ""),
    "mknod": (("CAP_MKNOD",), (), (), "mknod"),
    "mount": (("CAP_SYS_ADMIN",), (), (), ""),
    "nesting": (("CAP_SYS_ADMIN", "CAP_NET_ADMIN"), ("nesting",), (), "nesting"),
    "net-admin": (("CAP_NET_ADMIN",), (), (), ""),
    "new-privileges": ((), (), (), "new-privileges"),
    "nice": (("CAP_SYS_NICE",), (), (), ""),
    "perf": (("CAP_PERFMON",), ("perf",), (), ""),
    "personality": ((), ("personality",), (), ""),
    "ptrace": (("CAP_SYS_PTRACE",), (), (), ""),
    "raw-sockets": (("CAP_NET_RAW",), (), (), ""),
    "socketcall": ((), ("socketcall",), (), ""),
    "sockets": ((), ("sockets",), (), ""),
    "sysctl": ((), (), (), "sysctl"),
    "terminal": ((), ("terminal",), (), ""),
    "tun": (("CAP_NET_ADMIN",), (), (("/dev/net/tun", 10, 200),), ""),
    "userfaultfd": ((), ("userfaultfd",), (), ""),
}
ALLOW_NAMES = tuple(_ALLOW)


def set_rights(config: Config, asked: Request) -> None:
    """Set what the jail may do; ``privileged`` first, so that others can still take away."""
    if asked.get("privileged"):
        _set_privileged(config)
    _set_capabilities(config, asked)
    for name in asked.get("allow") or ():
        if not is_rule(name):
            _allow(config, name)
    _set_security_options(config, asked)
    sysctl = asked.get("sysctl") or {}
    if not isinstance(sysctl, dict):
        sysctl = dict(parse_pair(each, "sysctl") for each in sysctl)
    if sysctl:
        config["linux"]["sysctl"] = dict(sysctl)


def _set_privileged(config: Config) -> None:
    """Take all fences down but the namespaces: those have options of their own."""
    process, linux = config["process"], config["linux"]
    _set_sets(config, CAPABILITIES)
    process["noNewPrivileges"] = False
    linux["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    _unmask(config, None)
    config["jailrun"].pop("seccomp", None)
    for mount in config["mounts"]:
        if mount.get("type") in ("sysfs", "cgroup"):
            mount["options"] = [option for option in mount["options"] if option != "ro"]


def _set_sets(config: Config, names: tuple[str, ...] | list[str]) -> None:
    config["process"]["capabilities"] = {
        "bounding": list(names),
        "effective": list(names),
        "permitted": list(names),
    }


def _capability(name: str, option: str) -> str:
    full = name.upper()
    full = full if full.startswith("CAP_") else f"CAP_{full}"
    if full not in CAPABILITIES:
        raise JailError(
            f"{option} {show(name)} is not a capability",
            hint="write ALL or a name of capabilities(7), as NET_RAW",
        )
    return full


def _set_capabilities(config: Config, asked: Request) -> None:
    """Set the sets: dropped ones go, added ones come, and what is named beats ALL, as docker's."""
    sets = config["process"]["capabilities"]
    added = {_all_or(name, "cap-add") for name in asked.get("cap_add") or ()}
    dropped = {_all_or(name, "cap-drop") for name in asked.get("cap_drop") or ()}
    both = (added & dropped) - {"ALL"}
    if both:
        raise JailError(f"{', '.join(sorted(both))} is both added and dropped")
    held = set(sets["bounding"])
    if "ALL" in dropped:
        held = set()
    if "ALL" in added:
        held = set(CAPABILITIES)
    held = (held | (added - {"ALL"})) - dropped
    _set_sets(config, [name for name in CAPABILITIES if name in held])
    named = [name for name in CAPABILITIES if name in added]
    if config["process"]["user"]["uid"] != 0 and named:
        # A program that is not root's keeps through exec what is ambient, capabilities(7).
        sets = config["process"]["capabilities"]
        sets["inheritable"] = list(named)
        sets["ambient"] = list(named)


def _all_or(name: str, option: str) -> str:
    return "ALL" if name.upper() in ("ALL", "CAP_ALL") else _capability(name, option)


def _allow(config: Config, name: str) -> None:
    if name not in _ALLOW:
        raise JailError(
            f"allow {show(name)} is not a name of something to allow",
            hint=f"valid: {', '.join(_ALLOW)}; or a rule of traffic, as in:tcp:80",
        )
    capabilities, profile, devices, change = _ALLOW[name]
    held = {*config["process"]["capabilities"]["bounding"], *capabilities}
    sets = config["process"]["capabilities"]
    for field in ("bounding", "effective", "permitted"):
        sets[field] = [each for each in CAPABILITIES if each in held]
    ours = config["jailrun"]
    if profile:
        ours["allow"] = sorted({*ours.get("allow", ()), *profile})
    for path, major, minor in devices:
        add_device(
            config,
            {"type": "c", "path": path, "major": major, "minor": minor, "fileMode": 0o666},
            {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rw"},
        )
    _loosen(config, change)


def _loosen(config: Config, change: str) -> None:
    linux = config["linux"]
    if change == "new-privileges":
        config["process"]["noNewPrivileges"] = False
    elif change == "mknod":
        for kind in ("c", "b"):
            linux["resources"]["devices"].append({"allow": True, "type": kind, "access": "m"})
    elif change == "sysctl":
        _unmask(config, ["/proc/sys"])
    elif change == "nesting":
        # A jail in the jail mounts its own /proc and /sys, which the kernel lets it do only
        # where nothing is covered (mount_too_revealing, fs/namespace.c); and it makes cgroups.
        _unmask(config, None)
        for mount in config["mounts"]:
            if mount.get("type") == "cgroup":
                mount["options"] = [option for option in mount["options"] if option != "ro"]


def _unmask(config: Config, paths: list[str] | None) -> None:
    """Show again these masked and read-only paths, or all of them."""
    linux = config["linux"]
    for field in ("maskedPaths", "readonlyPaths"):
        kept = [] if paths is None else [each for each in linux[field] if each not in paths]
        linux[field] = kept


def _set_security_options(config: Config, asked: Request) -> None:
    profile = asked.get("seccomp")
    choice = "profile" if profile is not None else "default"
    for text in asked.get("security_opt") or ():
        name, equals, value = text.partition("=")
        if not equals and ":" in text:  # docker's older form
            name, equals, value = text.partition(":")
        if name == "seccomp" and value:
            choice = value if value in ("unconfined", "default") else "profile"
        elif name == "no-new-privileges" and value in ("", "true", "false"):
            config["process"]["noNewPrivileges"] = value != "false"
        elif name == "apparmor" and value:
            config["process"]["apparmorProfile"] = value
        elif name == "systempaths" and value == "unconfined":
            _unmask(config, None)
        elif name == "mask" and value:
            paths = [normal_path(path, "mask") for path in value.split(":")]
            linux = config["linux"]
            linux["maskedPaths"] = [*linux["maskedPaths"], *paths]
        elif name == "unmask" and value:
            everything = value == "ALL"
            paths = [] if everything else [normal_path(path, "unmask") for path in value.split(":")]
            _unmask(config, None if everything else paths)
        else:
            raise JailError(
                f"security-opt {show(text)} is not valid",
                hint="valid: seccomp=unconfined|default|FILE, no-new-privileges[=false], "
                "apparmor=PROFILE, systempaths=unconfined, mask=PATH, unmask=PATH|ALL",
            )
    _set_seccomp(config, choice, profile, privileged=bool(asked.get("privileged")))


def _set_seccomp(config: Config, choice: str, profile: object, *, privileged: bool) -> None:
    ours = config["jailrun"]
    if choice == "default":
        if not privileged:
            ours["seccomp"] = "default"
        return
    ours.pop("seccomp", None)
    if choice == "profile":
        config["linux"]["seccomp"] = check_profile(profile)


def check_profile(profile: object) -> Seccomp:
    """Return ``profile``, which is a seccomp profile in the OCI form; JailError where it is not."""
    if profile is None:
        raise JailError("the seccomp profile was not loaded", hint="give its content as seccomp")
    problems = Problems()
    SECCOMP(profile, (None, "seccomp profile"), problems)
    if problems:
        path, message, _ = problems[0]
        raise JailError(f"{path}: {message}")
    if TYPE_CHECKING:
        profile = cast("Seccomp", profile)
    for rule in profile.get("syscalls") or ():
        if rule.get("includes") or rule.get("excludes"):
            raise JailError(
                "the seccomp profile has includes or excludes, which only docker knows",
                hint="write it in the form of the OCI runtime specification",
            )
    return profile
