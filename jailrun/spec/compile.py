"""What the user asked for, as a config: the one pure function that every face goes through.

Owns: `compile_config`, the options by name, and what of the config is neither a limit
(`jailrun.spec.limits`), a file (`jailrun.spec.files`), a right (`jailrun.spec.rights`) nor a
network (`jailrun.spec.network`).
Out of scope: reading the host, an image or a file: what that says comes in as an argument.

Bad values are `JailError` that name the option.  The result passes `jailrun.spec.check.check`
but for what only the whole shows, as a sysctl without its namespace: the engine's check says it.
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec import files, limits, network, rights
from jailrun.spec.default import default_config
from jailrun.spec.names import check_hostname, check_name
from jailrun.units import parse_duration, parse_integer, parse_pair, parse_user_ids, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Unpack

    from jailrun.spec.model import Config, Namespace, NamespaceType, Process, TimeOffset
    from jailrun.spec.network import Asked
    from jailrun.spec.request import Request

OPTIONS = frozenset(
    (
        *("add_host", "allow", "annotations", "cap_add", "cap_drop"),
        *("cgroupns", "command", "cpu_shares", "cpus"),
        *("cpuset", "cpuset_mems", "deny", "device_read_bps", "device_read_iops"),
        *("device_write_bps", "device_write_iops", "devices", "dns"),
        *("dns_option", "dns_search", "domainname"),
        *("entrypoint", "env", "groups", "home"),
        *("host", "hostname", "image", "init"),
        *("io_weight", "ipc", "labels", "memory"),
        *("memory_reservation", "name", "names", "network", "network_path", "oom_score_adj"),
        *("pid", "pids", "privileged", "publish", "read_only"),
        *("rootfs", "seccomp", "security_opt", "shm_size"),
        *("stat_device", "swap", "sysctl", "time"),
        *("time_offsets", "tmpfs", "tty", "ulimit"),
        *("umask", "user", "userns", "uts"),
        *("volumes", "workdir"),
    )
)

# option, type of the namespace, the words for one of the jail's own
_NAMESPACE_OPTIONS: tuple[tuple[str, NamespaceType, tuple[str, ...]], ...] = (
    ("pid", "pid", ("private",)),
    ("ipc", "ipc", ("private",)),
    ("uts", "uts", ("private",)),
    ("userns", "user", ("private", "auto")),
    ("cgroupns", "cgroup", ("private",)),
    ("time", "time", ("private",)),
)


def compile_config(**request: Unpack[Request]) -> Config:
    """Return the config of the jail that ``request`` describes; None is "not said".

    Sizes, durations and the like are as `jailrun.units` reads them, lists as docker's options of
    the same name have them.  Without an image or ``rootfs`` the root is the folder ``rootfs``
    of the bundle.  ``host`` (`HostFacts`) lets values beyond the host be refused, ``stat_device``
    (`jailrun.spec.facts.read_device`) is needed for devices, ``network_path`` where ``network``
    names a jail.  Raises JailError.
    """
    for option in request:
        if option not in OPTIONS:
            raise JailError(f"there is no option {option}")
    config = default_config()
    networks = network.parse_networks(request.get("network"))
    _set_root(config, request)
    _set_namespaces(config, request, networks)
    _set_names(config, request)
    _set_process(config["process"], request)
    _set_annotations(config, request)
    limits.set_resources(config, request)
    limits.set_process_limits(config["process"], request)
    files.set_mounts(config, request)
    files.set_devices(config, request)
    rights.set_rights(config, request)
    network.set_network(config, request, networks)
    return config


def _set_root(config: Config, asked: Request) -> None:
    image, ours = asked.get("image") or {}, config["jailrun"]
    layers, folder = image.get("layers"), asked.get("rootfs")
    if layers and folder:
        raise JailError("an image and a root folder exclude each other")
    if layers:
        ours["layers"] = list(layers)
    elif folder:
        if not folder.startswith("/"):
            raise JailError(f"rootfs {show(folder)} is not an absolute path")
        config["root"]["path"] = folder
        ours["writable"] = "direct"
    if image.get("reference"):
        ours["image"] = image["reference"]
    if asked.get("read_only"):
        # The writable layer stays "disk": in it the mount points are made that the image lacks.
        config["root"]["readonly"] = True
    if asked.get("init"):
        ours["init"] = True


def _set_namespaces(config: Config, asked: Request, networks: Asked) -> None:
    linux, ours = config["linux"], config["jailrun"]
    by_type: dict[str, Namespace] = {each["type"]: each for each in linux["namespaces"]}
    _set_network_namespace(by_type, asked, networks)
    for option, kind, own in _NAMESPACE_OPTIONS:
        mode: str | None = asked.get(option)  # type: ignore[assignment]
        if mode is None:
            continue
        if mode == "host":
            by_type.pop(kind, None)
        elif mode in own:
            by_type[kind] = {"type": kind}
        elif mode.startswith("/") and "\0" not in mode:
            by_type[kind] = {"type": kind, "path": mode}
        else:
            words = ", ".join((*own, "host"))
            raise JailError(
                f"{option} {show(mode)} is not valid",
                hint=f"valid: {words}, or the path of a namespace",
            )
    offsets = _time_offsets(asked)
    if offsets:
        if (asked.get("time") or "private") != "private":
            raise JailError("time offsets need a time namespace of the jail's own")
        by_type["time"] = {"type": "time"}
        linux["timeOffsets"] = offsets
    linux["namespaces"] = list(by_type.values())
    if "path" in by_type.get("user", {"path": "host"}):
        # Another's user namespace, or none: no range of the jail's own, and no shift of ids.
        del linux["uidMappings"], linux["gidMappings"], ours["user_range"]
        ours["id_shift"] = "none"


def _set_network_namespace(by_type: dict[str, Namespace], asked: Request, networks: Asked) -> None:
    if networks.mode in ("host", "shared"):
        del by_type["network"]
    elif networks.mode != "own":
        path = asked.get("network_path") or networks.path
        if not path:
            raise JailError(f"network {show(networks.text)}: the jail was not looked up")
        by_type["network"] = {"type": "network", "path": path}


def _time_offsets(asked: Request) -> dict[str, TimeOffset]:
    offsets: dict[str, TimeOffset] = {}
    for clock, value in (asked.get("time_offsets") or {}).items():
        if clock not in ("monotonic", "boottime"):
            raise JailError(
                f"time offset {show(clock)} is for no clock that has one",
                hint="valid: monotonic, boottime; the wall clock is the host's",
            )
        text = str(value)
        usec = parse_duration(text.removeprefix("-"), f"time offset {clock}")
        # The kernel's nanoseconds are never negative: -1.5 s is -2 s and 500 ms.
        secs, rest = divmod(-usec if text.startswith("-") else usec, 1_000_000)
        offsets[clock] = {"secs": secs, "nanosecs": rest * 1000}
    return offsets


def _set_names(config: Config, asked: Request) -> None:
    # A namespace that is joined has a name already, and others in it.
    own = any(
        each["type"] == "uts" and "path" not in each for each in config["linux"]["namespaces"]
    )
    name = asked.get("name")
    if name is not None:
        check_name(name)
    for option, default in (("hostname", name), ("domainname", None)):
        value = asked.get(option)
        if isinstance(value, str):
            check_hostname(value, option)
            if not own:
                raise JailError(
                    f"{option} {show(value)} would rename the host", hint="leave out --uts host"
                )
        elif own and default:
            value = default
        if value:
            config[option] = value  # type: ignore[literal-required]


def _set_process(process: Process, asked: Request) -> None:
    image = asked.get("image") or {}
    uid, gid = parse_user_ids(_user(asked), "user")
    process["user"]["uid"] = uid
    process["user"]["gid"] = gid or 0  # docker's choice for a number without a group
    groups = [parse_integer(group, "group", high=2**32 - 2) for group in asked.get("groups") or ()]
    if groups:
        process["user"]["additionalGids"] = groups
    umask = asked.get("umask")
    if umask is not None:
        process["user"]["umask"] = _parse_umask(umask)
    process["args"] = _command(asked)
    process["cwd"] = asked.get("workdir") or image.get("workdir") or "/"
    if not process["cwd"].startswith("/") or "\0" in process["cwd"]:
        raise JailError(f"workdir {show(process['cwd'])} is not an absolute path")
    if asked.get("tty"):
        process["terminal"] = True
    process["env"] = _environment(process["env"], asked)


def _user(asked: Request) -> str | int:
    user = asked.get("user")
    return (asked.get("image") or {}).get("user") or "0" if user is None else user


def _parse_umask(value: str | int) -> int:
    text = value if isinstance(value, str) else f"{value:o}" if type(value) is int else ""
    if not text or len(text) > 4 or text.strip("01234567") or int(text, 8) > 0o777:
        raise JailError(f"umask {show(value)} is not valid", hint="write it in octal, as 022")
    return int(text, 8)


def _command(asked: Request) -> list[str]:
    """Return the arguments; an entry point of the user's own takes the image's command away."""
    image = asked.get("image") or {}
    command = list(asked.get("command") or ())
    entrypoint = asked.get("entrypoint")
    if entrypoint is not None:
        args = [*entrypoint, *command]
    else:
        args = [*(image.get("entrypoint") or ()), *(command or image.get("cmd") or ())]
    if not args or not args[0]:
        raise JailError("no command given, and the image has none", hint="add one, as sh")
    for arg in args:
        if "\0" in arg:
            raise JailError(f"command {show(arg)} has a NUL in it")
    return args


def _environment(default: list[str], asked: Request) -> list[str]:
    """Return the variables: of two with one name the later, the user's, is the one."""
    variables = dict(each.split("=", 1) for each in default)
    if asked.get("tty"):
        variables["TERM"] = "xterm"
    for each in (asked.get("image") or {}).get("env") or ():
        name, value = parse_pair(each, "the image's variable")
        variables[name] = value
    given = asked.get("env") or ()
    pairs = (
        given.items() if isinstance(given, dict) else [parse_pair(each, "env") for each in given]
    )
    for name, value in pairs:
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise JailError(f"env {show(name)} is not the name of a variable")
        variables[name] = value
    home = asked.get("home") or ("/root" if parse_user_ids(_user(asked))[0] == 0 else "/")
    variables.setdefault("HOME", home)
    return [f"{name}={value}" for name, value in variables.items()]


def _set_annotations(config: Config, asked: Request) -> None:
    """Set the annotations: the image's labels below the user's.

    The image's stop signal has the key that the OCI image specification gives it (conversion.md).
    """
    image = asked.get("image") or {}
    notes = dict(image.get("labels") or {})
    if image.get("stop_signal"):
        notes["org.opencontainers.image.stopSignal"] = image["stop_signal"]
    labels = asked.get("labels") or ()
    if isinstance(labels, dict):
        notes.update(labels)
    else:
        # docker: a label without a value has the empty one
        notes.update(parse_pair(each if "=" in each else f"{each}=", "label") for each in labels)
    notes.update(asked.get("annotations") or {})
    for key, value in notes.items():
        if not key or "\0" in f"{key}{value}":
            raise JailError(f"label {show(key)} is not valid", hint="write KEY=VALUE")
    if notes:
        config["annotations"] = notes
