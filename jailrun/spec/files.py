"""What the user asked for of files and devices: volumes, tmpfs, nodes.

Owns: the options ``volumes``, ``tmpfs``, ``shm_size`` and ``devices``, and the order of mounts.
Out of scope: whether a source exists, where a target leads to (`jailrun.rootfs`).
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.mounts import unknown_data
from jailrun.spec.tables import is_access
from jailrun.units import is_digits, parse_size, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.spec.model import Config, Device, DeviceRule, Mount
    from jailrun.spec.request import Request

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_ATTRIBUTES = (
    *("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nosymfollow", "symfollow"),
    *("noatime", "relatime", "strictatime", "nodiratime"),
)
_VOLUME_WORDS = frozenset((*_ATTRIBUTES, *_PROPAGATION, "idmap", "bind", "rbind"))
_TMPFS_WORDS = frozenset(_ATTRIBUTES)
# Mounted for every jail and not to be hidden: what they show is the jail, and what masks them
# is its safety.
_NOT_A_TARGET = ("/proc", "/sys")


def normal_path(text: str, what: str) -> str:
    """Return an absolute path with single slashes and no ``.``; ``..`` is refused."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts or "\0" in text:
        raise JailError(f"{what} {show(text)} is not an absolute path without ..")
    return "/" + "/".join(parts)


def _target(text: str, what: str) -> str:
    path = normal_path(text, what)
    if path == "/":
        raise JailError(f"{what} / is the root of the jail", hint="give an image or a root folder")
    for place in _NOT_A_TARGET:
        if f"{path}/".startswith(f"{place}/"):
            raise JailError(f"{what} {show(text)} is in {place}, which is the jail's own")
    return path


def set_mounts(config: Config, asked: Request) -> None:
    """Add volumes and tmpfs to the mounts: outer ones first, in place of defaults they cover."""
    wanted: dict[str, Mount] = {}
    for text in asked.get("tmpfs") or ():
        _add(wanted, _parse_tmpfs(text))
    for text in asked.get("volumes") or ():
        _add(wanted, parse_volume(text))
    mounts = [mount for mount in config["mounts"] if mount["destination"] not in wanted]
    for mount in mounts:
        if mount["destination"] == "/dev/shm":  # noqa: S108 - the mount point
            _set_shm(mount, asked)
            if asked.get("ipc") == "host":
                # POSIX shared memory is files: to share it is to share their folder.
                mount["type"], mount["source"] = "bind", mount["destination"]
                mount["options"] = ["rbind", "nosuid", "nodev", "noexec", "rprivate"]
    mounts += sorted(wanted.values(), key=lambda mount: mount["destination"].count("/"))
    config["mounts"] = mounts


def _add(wanted: dict[str, Mount], mount: Mount) -> None:
    if mount["destination"] in wanted:
        raise JailError(f"{mount['destination']} is the target of two mounts")
    wanted[mount["destination"]] = mount


def _set_shm(mount: Mount, asked: Request) -> None:
    size = asked.get("shm_size")
    if size is None:
        return
    count = parse_size(size, "shm-size")
    if not count:
        raise JailError(f"shm-size {show(size)} is no size", hint="write 64M, or more than 0")
    kept = [option for option in mount.get("options", ()) if not option.startswith("size=")]
    mount["options"] = [*kept, f"size={count}"]


def parse_volume(text: str) -> Mount:
    """Return the bind mount that ``SOURCE:TARGET[:OPTIONS]`` describes.

    Its set-id programs and devices have no effect unless ``suid`` or ``dev`` is among the
    options.  ``ro`` holds for what is mounted below the source, too.
    """
    parts = text.split(":")
    if len(parts) == 1:
        raise JailError(
            f"volume {show(text)} has no source: volumes without a name are not supported",
            hint="write SOURCE:TARGET, or --tmpfs TARGET for a place that is lost at the end",
        )
    if len(parts) > 3 or not parts[0]:
        raise JailError(
            f"volume {show(text)} is not valid", hint="write SOURCE:TARGET[:ro,…], as /srv:/srv:ro"
        )
    if not parts[0].startswith("/"):
        raise JailError(
            f"volume {show(text)}: the source {show(parts[0])} is not an absolute path",
            hint="write the folder's full path, as $PWD/data",
        )
    given = _words(parts[2], "volume", text) if len(parts) == 3 else []
    for word in given:
        if word not in _VOLUME_WORDS:
            raise JailError(
                f"volume {show(text)}: {show(word)} is not an option of a volume",
                hint=f"valid: {', '.join(sorted(_VOLUME_WORDS))}",
            )
    options = _options(given, {"suid": "nosuid", "dev": "nodev"})
    recursive = "bind" not in given
    if recursive and "rbind" not in options:
        options.insert(0, "rbind")
    if "ro" in options and recursive:
        options.append("rro")  # mount_setattr(2) with AT_RECURSIVE, Linux 5.12
    if not any(word in _PROPAGATION for word in given):
        options.append("rprivate" if recursive else "private")
    return {
        "destination": _target(parts[1], "volume target"),
        "type": "bind",
        "source": normal_path(parts[0], "volume source"),
        "options": options,
    }


def _words(text: str, what: str, whole: str) -> list[str]:
    words = text.split(",")
    for word, other in (("ro", "rw"), ("bind", "rbind"), ("suid", "nosuid"), ("dev", "nodev")):
        if word in words and other in words:
            raise JailError(f"{what} {show(whole)}: {word} and {other} exclude each other")
    return words


def _options(given: list[str], defaults: dict[str, str]) -> list[str]:
    """Return the words, after the defaults whose opposite is not among them."""
    return [
        *(safe for loose, safe in defaults.items() if loose not in given and safe not in given),
        *given,
    ]


def _parse_tmpfs(text: str) -> Mount:
    """Return the mount that ``TARGET[:OPTIONS]`` describes; docker's defaults."""
    path, colon, words = text.partition(":")
    given = _words(words, "tmpfs", text) if colon else []
    options = _options(given, {"suid": "nosuid", "dev": "nodev", "exec": "noexec"})
    checked = []
    for option in options:
        name, equals, value = option.partition("=")
        if option in _TMPFS_WORDS:
            checked.append(option)
            continue
        if not option or unknown_data("tmpfs", [option]) is not None:
            raise JailError(
                f"tmpfs {show(text)}: {show(option)} is not an option of tmpfs",
                hint="valid: size=64M, mode=1777, uid=0, gid=0, nr_inodes=1k, ro, noexec, exec …",
            )
        checked.append(f"{name}={_tmpfs_value(name, value, text)}" if equals else option)
    if not any(option.startswith("mode=") for option in checked):
        checked.append("mode=1777")
    return {
        "destination": _target(path, "tmpfs"),
        "type": "tmpfs",
        "source": "tmpfs",
        "options": checked,
    }


def _tmpfs_value(name: str, value: str, whole: str) -> str:
    what = f"tmpfs {show(whole)}: {name}"
    if name == "size" and value.endswith("%"):
        if not is_digits(value[:-1]) or not 0 < int(value[:-1]) <= 100:
            raise JailError(f"{what} {show(value)} is not valid", hint="write 1% to 100%")
    elif name in ("size", "nr_inodes", "nr_blocks"):
        size = parse_size(value, what)
        if not size:
            # 0 is "no limit" to tmpfs
            raise JailError(f"{what} 0 would be no limit", hint="leave it out, or write a limit")
        return str(size)
    elif name == "mode":
        if not value or len(value) > 5 or value.strip("01234567"):
            raise JailError(f"{what} {show(value)} is not valid", hint="write octal, as 1777")
    elif name in ("uid", "gid") and (not is_digits(value) or int(value) >= 2**32 - 1):
        raise JailError(f"{what} {show(value)} is not an id", hint="write a number")
    elif not value or "\0" in value:
        raise JailError(f"{what} has no value")
    return value


def set_devices(config: Config, asked: Request) -> None:
    """Add the nodes that the user wants, and lines that allow them."""
    linux = config["linux"]
    for text in asked.get("devices") or ():
        device, rule = _parse_device(text, asked)
        add_device(config, device, rule)
    if not linux.get("devices"):
        linux.pop("devices", None)


def add_device(config: Config, device: Device, rule: DeviceRule) -> None:
    """Add one node; the later of two for one path is the one."""
    linux = config["linux"]
    others = [each for each in linux.get("devices", ()) if each["path"] != device["path"]]
    linux["devices"] = [*others, device]
    linux["resources"]["devices"].append(rule)


def _parse_device(text: str, asked: Request) -> tuple[Device, DeviceRule]:
    """Return node and rule for ``HOST[:JAIL][:rwm]``."""
    parts = text.split(":")
    access = "rwm"
    if len(parts) > 1 and not parts[-1].startswith("/"):
        access = parts.pop()
    if len(parts) > 2 or not access or not is_access(access):
        raise JailError(
            f"device {show(text)} is not valid", hint="write HOST[:JAIL][:rwm], as /dev/fuse:rw"
        )
    source = normal_path(parts[0], "device")
    path = _target(parts[-1], "device")
    stat_device = asked.get("stat_device")
    node = stat_device(source) if stat_device is not None else None
    if node is None:
        raise JailError(f"device {show(text)}: {source} is not a device of this host")
    device: Device = {
        "type": node.kind,
        "path": path,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": 0,
        "gid": 0,
    }
    rule: DeviceRule = {
        "allow": True,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "access": access,
    }
    return device, rule
