"""From an image's name and what the user asked for to the config of a jail.

Owns: `assemble`, which both `jailrun run` and `import jailrun` go through: it finds (or builds)
the image, resolves user names against the image's own files, loads what options name by path, and
has `jailrun.spec.compile` make the config of it.  `assemble_process` and `assemble_resources` do
the same for a further process in a jail that runs, and for new limits of it.  Out of scope: files
of variables, and everything else that only a command line has.
"""

from __future__ import annotations

import os

from jailrun.engine.prepare import can_raise_limits
from jailrun.engine.record import load, random_name
from jailrun.engine.state import ALIVE, read_status
from jailrun.errors import ConflictError, JailError
from jailrun.images.lookup import Image, MissingImageError, resolve
from jailrun.jsontext import loads
from jailrun.kernel import constants as c
from jailrun.rootfs.inside import open_in_layers, open_in_root, read_regular
from jailrun.security.limits import RLIMITS, read_host_limits
from jailrun.security.passwd import MAX_BYTES, User, resolve_user
from jailrun.spec.compile import compile_config
from jailrun.spec.default import default_config
from jailrun.spec.facts import read_device, read_host_facts
from jailrun.spec.limits import set_resources
from jailrun.spec.network import parse_networks
from jailrun.units import parse_pair, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Unpack

    from jailrun.images.progress import Progress
    from jailrun.spec.facts import HostFacts
    from jailrun.spec.model import Config, Process, Resources
    from jailrun.spec.request import ImageConfig, Request

MAX_PROFILE_BYTES = 4 << 20  # docker's own has 20 KB
_CACHED_USERS = 256


class Assembled:
    """A jail that can be launched: its ``config``, ``name`` and the ``image`` it is made from."""

    __slots__ = ("config", "image", "name")

    def __init__(self, config: Config, image: Image, name: str) -> None:
        self.config = config
        self.image = image
        self.name = name


def assemble(
    reference: str,
    command: Sequence[str] | None,
    /,
    *,
    progress: Progress | None = None,
    build: bool = True,
    **request: Unpack[Request],
) -> Assembled:
    """Return the config of a jail that runs ``command``, or the image's own without one.

    ``request`` has the options of `jailrun.spec.request.Request`; without a name the jail gets a
    random one.  An image that is missing and has a recipe, or is an archive, is built first, of
    which ``progress`` is told, unless ``build`` is false.  Raises JailError and its subclasses.
    """
    image = find_image(reference, progress, build=build)
    name = request.get("name")
    request["name"] = name = random_name() if name is None else name
    request["command"] = list(command or ())
    request["image"] = _describe(image)
    if image.root is not None:
        request["rootfs"] = image.root
    _set_user(request, image)
    _load_profile(request)
    _find_network(request)
    if request.get("host") is None:
        request["host"] = read_facts(rlimits_asked=bool(request.get("ulimit")))
    request.setdefault("stat_device", read_device)
    config = compile_config(**request)
    _set_hostname(config, asked=request.get("hostname") is not None)
    return Assembled(config, image, name)


def find_image(reference: str, progress: Progress | None = None, *, build: bool = True) -> Image:
    """Return the image of that name, folder or archive; make it first where it is missing."""
    try:
        return resolve(reference)
    except MissingImageError:
        if not build:
            raise
    from jailrun.images.builder import ensure

    return ensure(reference, progress)


def read_facts(*, rlimits_asked: bool = True) -> HostFacts:
    """Return what the compiler has to know of this host and of the calling process."""
    rlimits = None
    if rlimits_asked and not can_raise_limits():
        limits = read_host_limits()
        rlimits = {name: limits[number][1] for name, number in RLIMITS.items()}
    return read_host_facts(rlimits=rlimits)


def _describe(image: Image) -> ImageConfig:
    known: dict[str, Any] = image.config
    described: ImageConfig = {"reference": image.reference, "layers": list(image.layers)}
    for key in ("env", "entrypoint", "cmd", "workdir", "labels", "stop_signal"):
        if known.get(key):
            described[key] = known[key]
    return described


# --- users ---------------------------------------------------------------------------------------
# Who a user of a stored image is: its layers never change.
_users: dict[tuple[str, str, tuple[str, ...]], User] = {}


def _set_user(request: Request, image: Image) -> None:
    """Replace names of users and groups by numbers, and find the user's home."""
    wanted = request.get("user")
    if wanted is None:
        wanted = image.config.get("user") or "0"
    groups = tuple([str(group) for group in request.get("groups") or ()])
    user = find_user(image, str(wanted), groups)
    request["user"] = f"{user.uid}:{user.gid}"
    request["groups"] = list(user.additional_gids)
    if request.get("home") is None and user.name:
        request["home"] = user.home


def find_user(image: Image, wanted: str, groups: tuple[str, ...] = ()) -> User:
    """Return who ``name``, ``name:group``, ``uid`` or ``uid:gid`` is in an image.

    ``groups`` are names or numbers of further groups.  Raises SecurityError for an unknown name.
    """
    key = (image.digest, wanted, groups)
    if image.digest and key in _users:
        return _users[key]
    layers = image.layers or ((image.root,) if image.root else ())
    passwd, group = (_read_file(layers, f"etc/{name}") for name in ("passwd", "group"))
    user = resolve_user(wanted, passwd, group, groups)
    if image.digest:
        if len(_users) >= _CACHED_USERS:
            _users.clear()
        _users[key] = user
    return user


def _read_file(layers: Sequence[str], path: str) -> bytes:
    """Return the text of a file in an image, nothing where it has none that can be read."""
    try:
        return read_regular(open_in_layers(layers, path), MAX_BYTES)
    except OSError:
        return b""


def find_user_in_jail(pid: int, wanted: str, groups: tuple[str, ...] = ()) -> User:
    """Return who a user is in a jail that runs, whose init is ``pid``; see `find_user`."""
    try:
        root_fd = os.open(f"/proc/{pid}/root", c.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConflictError(f"cannot look into the jail: {error.strerror}") from error
    texts = []
    try:
        for path in ("etc/passwd", "etc/group"):
            try:
                texts.append(read_regular(open_in_root(root_fd, path), MAX_BYTES))
            except OSError:
                texts.append(b"")
    finally:
        os.close(root_fd)
    return resolve_user(wanted, texts[0], texts[1], groups)


# --- a jail that runs ----------------------------------------------------------------------------
def assemble_process(
    pid: int,
    template: Process,
    command: Sequence[str],
    /,
    *,
    user: str | int | None = None,
    env: list[str] | dict[str, str] | None = None,
    workdir: str | None = None,
    tty: bool = False,
) -> Process:
    """Return the process that runs ``command`` in a jail whose init is ``pid``.

    It is as ``template``, the process of the jail's own config, but for what is given; another
    user has the groups and the home of that user.  Raises JailError and its subclasses.
    """
    if not command or not command[0]:
        raise JailError("no command given", hint="add one, as sh")
    process: Process = {**template, "args": list(command), "terminal": tty}
    variables = dict(each.split("=", 1) for each in template.get("env") or ())
    if tty:
        variables.setdefault("TERM", "xterm")
    if user is not None:
        found = find_user_in_jail(pid, str(user))
        process["user"] = {**template.get("user", {}), "uid": found.uid, "gid": found.gid}
        process["user"]["additionalGids"] = list(found.additional_gids)
        variables["HOME"] = found.home
    pairs = env.items() if isinstance(env, dict) else [parse_pair(e, "env") for e in env or ()]
    for name, value in pairs:
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise JailError(f"env {show(name)} is not the name of a variable")
        variables[name] = value
    process["env"] = [f"{name}={value}" for name, value in variables.items()]
    if workdir is not None:
        if not workdir.startswith("/"):
            raise JailError(f"workdir {show(workdir)} is not an absolute path")
        process["cwd"] = workdir
    return process


def assemble_resources(current: Config, /, **limits: Unpack[Request]) -> Resources:
    """Return the ``linux.resources`` to update a jail with, whose config is ``current``.

    A new limit of memory leaves the jail the swap that it had beyond its memory.
    """
    if limits.get("host") is None:
        limits["host"] = read_facts()
    limits.setdefault("stat_device", read_device)
    config = default_config()
    set_resources(config, limits)
    resources = config["linux"]["resources"]
    del resources["devices"]
    if not resources:
        raise JailError("no limit given to change", hint="name one, as memory")
    old = current.get("linux", {}).get("resources", {}).get("memory", {})
    new = resources.get("memory", {})
    if limits.get("swap") is None and "swap" in new and old.get("swap", 0) and "limit" in old:
        swap = old["swap"]
        new["swap"] = swap if swap < 0 else new["limit"] + max(swap - old["limit"], 0)
    return resources


# --- another's network ---------------------------------------------------------------------------
def _find_network(request: Request) -> None:
    """Look up the jail whose network is to be shared; names are found there as that jail does."""
    other = parse_networks(request.get("network")).other
    if not other:
        return
    record = load(other)
    if read_status(record) not in ALIVE:
        raise ConflictError(
            f"cannot share the network of jail {other}: it is {read_status(record)}",
            hint="start it first, or see what runs: jailrun ls",
        )
    request["network_path"] = f"/proc/{record.pid}/ns/net"
    nics = record.network["nics"] if record.network else []
    if nics and nics[0]["driver"] == "bridge" and not request.get("dns"):
        request["dns"] = [each for each in (nics[0]["gateway"], nics[0]["gateway6"]) if each]


# --- the rest ------------------------------------------------------------------------------------
def _load_profile(request: Request) -> None:
    """Load the seccomp profile that a security option names by path; the last one counts."""
    path = None
    for text in request.get("security_opt") or ():
        name, equals, value = text.partition("=")
        if not equals:
            name, _, value = text.partition(":")  # docker's older form
        if name == "seccomp":
            path = value
    if path and path not in ("unconfined", "default"):
        request["seccomp"] = read_profile(path)


def read_profile(path: str) -> object:
    """Return the seccomp profile in a file of JSON; raise JailError where it is none."""
    what = f"the seccomp profile {path}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - on the path of every start
            text = file.read(MAX_PROFILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise JailError(f"cannot read {what}: {why}") from error
    if len(text) > MAX_PROFILE_BYTES:
        raise JailError(f"{what} is too large: above {MAX_PROFILE_BYTES >> 20} MiB")
    try:
        profile = loads(text)
    except ValueError as error:
        raise JailError(
            f"{what} is not valid JSON: {error}",
            hint="write it in the form of linux.seccomp of the OCI runtime specification",
        ) from error
    if not isinstance(profile, dict):
        raise JailError(f"{what} is not a JSON object")
    return profile


def _set_hostname(config: Config, *, asked: bool) -> None:
    """Tell the payload the name of its host, as docker does, unless the user or image did.

    A UTS namespace that is joined keeps the name it has, unless the user asked for one.
    """
    joined = any(one["type"] == "uts" and "path" in one for one in config["linux"]["namespaces"])
    if joined and not asked:
        config.pop("hostname", None)
    environment = config["process"]["env"]
    if not any(each.startswith("HOSTNAME=") for each in environment):
        environment.append(f"HOSTNAME={config.get('hostname') or os.uname().nodename}")
