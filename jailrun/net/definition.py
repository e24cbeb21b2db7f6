"""What a network is: its definition on disk, its name, the locks.

Owns: ``<data>/networks/NAME.json``, written whole or not at all, and the folders
``<run>/networks`` and ``<run>/networks/NAME``, which are what is locked (flock(2)): the first
where networks are made and removed, the other where its members, or its resolver, change.  Out of
scope: the kernel objects that a definition describes (`jailrun.net.networks`), leases
(`jailrun.net.leases`).
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, LOCK_UN, flock

from jailrun import paths
from jailrun.errors import ConflictError, JailError, NetworkError, NotFoundError
from jailrun.jsontext import dumps, loads
from jailrun.kernel.files import read_file
from jailrun.spec.names import LONGEST_NETWORK, NOT_A_NETWORK, is_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    class Definition(TypedDict):
        """A network as it is kept; what does not apply is empty: "", 0, []."""

        name: str
        driver: str  # one of DRIVERS
        link: str  # the bridge's interface on the host: ours, or the host's own ("host-bridge")
        parent: str  # the interface that macvlan and ipvlan are on
        subnet: str  # as "10.87.0.0/16"
        gateway: str
        subnet6: str
        gateway6: str
        reserved: list[str]  # addresses of the subnets that somebody else has
        mtu: int
        internal: bool  # nothing outside is reached
        isolate: bool  # its jails do not reach each other
        created: float  # seconds since 1970


DEFAULT = "default"
DRIVERS = ("bridge", "macvlan", "ipvlan", "host-bridge")
BRIDGE_DRIVERS = ("bridge", "host-bridge")
_FIELDS: dict[str, Any] = {
    "name": "", "driver": "bridge", "link": "", "parent": "", "subnet": "", "gateway": "",
    "subnet6": "", "gateway6": "", "reserved": [], "mtu": 0, "internal": False, "isolate": False,
    "created": 0.0,
}  # fmt: skip


# --- names ---------------------------------------------------------------------------------------
def check_name(name: str) -> None:
    """Refuse what cannot be a network's name, and say why."""
    if is_network_name(name):
        return
    if name in NOT_A_NETWORK:
        why = "the word has a meaning of its own for --net"
    elif len(name) > LONGEST_NETWORK:
        why = f"it has {len(name)} characters, {LONGEST_NETWORK} are possible"
    elif is_network_name(name.lower()):
        why = "capital letters are not possible"
    else:
        why = "it must be letters a to z, digits, - and _, and begin with a letter or digit"
    raise NetworkError(
        f"{name!r} cannot be the name of a network: {why}", hint="jailrun net create backend"
    )


# --- definitions ---------------------------------------------------------------------------------
def definition_path(name: str) -> str:
    """Return the file of a definition."""
    return f"{paths.networks_dir()}/{name}.json"


def _temporary_path(name: str) -> str:
    return f"{paths.networks_dir()}/.{name}.new"


def load(name: str) -> Definition:
    """Return the definition of a network; raise NotFoundError where there is none."""
    check_name(name)
    path = definition_path(name)
    try:
        text = read_file(path)
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no network {name!r}",
            hint=f"see them all: jailrun net ls; make it: jailrun net create {name}",
        ) from None
    except OSError as error:
        raise NetworkError(
            f"cannot read {path}: {error.strerror}",
            hint="jailrun is run as root" if error.errno == errno.EACCES else None,
        ) from error
    try:
        return _check_values(name, loads(text))
    except ValueError as error:
        raise NetworkError(
            f"the definition of the network {name}, {path}, is damaged: {error}",
            hint=f"mend the file, or remove it and make the network again: rm {path}",
        ) from error


def _check_values(name: str, values: object) -> Definition:
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - as of the JSON reader
    found: dict[str, Any] = {}
    for field, default in _FIELDS.items():
        value = values.get(field, default)
        kinds = (int, float) if field == "created" else (type(default),)
        if type(value) not in kinds:
            raise ValueError(f"{field} is {value!r}")
        found[field] = list(value) if kinds == (list,) else value
    if found["name"] != name:
        raise ValueError(f"it is that of {found['name']!r}")
    if found["driver"] not in DRIVERS:
        raise ValueError(f"driver is {found['driver']!r}, none of {', '.join(DRIVERS)}")
    definition: Definition = found  # type: ignore[assignment]
    return definition


def save(definition: Definition) -> None:
    """Put a definition on disk, where it also survives a loss of power.

    The caller holds the lock of all networks.
    """
    path, temporary = definition_path(definition["name"]), _temporary_path(definition["name"])
    try:
        make_folder(paths.data_dir(), 0o711)
        make_folder(paths.networks_dir(), 0o700)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = f"{dumps(definition, indent=True)}\n".encode()
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        _unlink(temporary)
        raise NetworkError(
            f"cannot write {path}: {error.strerror}",
            hint="jailrun is run as root" if os.geteuid() else None,
        ) from error


def remove(name: str) -> None:
    """Forget a network; nothing where it is forgotten already."""
    try:
        _unlink(_temporary_path(name))
        _unlink(definition_path(name))
    except OSError as error:
        raise NetworkError(f"cannot remove {definition_path(name)}: {error.strerror}") from error


def exists(name: str) -> bool:
    """Tell whether there is a definition, a damaged one included."""
    return os.path.lexists(definition_path(name))


def make_empty(name: str) -> Definition:
    """Return a definition in which nothing but the name is said."""
    return _check_values(name, {"name": name})


def list_names() -> list[str]:
    """Return the names of all networks."""
    entries = _list_entries()
    names = [entry.removesuffix(".json") for entry in entries if entry.endswith(".json")]
    return sorted(name for name in names if is_network_name(name))


def remove_remains() -> None:
    """Remove what was written by those who were killed then; the caller holds the lock of all."""
    for entry in _list_entries():
        if entry.startswith(".") and entry.endswith(".new"):
            _unlink(f"{paths.networks_dir()}/{entry}")


def _list_entries() -> list[str]:
    try:
        return os.listdir(paths.networks_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NetworkError(f"cannot read {paths.networks_dir()}: {error.strerror}") from error


def load_all() -> list[Definition]:
    """Return all definitions that can be read."""
    found = []
    for name in list_names():
        try:
            found.append(load(name))
        except JailError:
            continue  # whoever asks for it by name is told
    return found


# --- folders and locks ---------------------------------------------------------------------------
def run_folder(name: str) -> str:
    """Return the folder of what a network has while the host is up."""
    return f"{paths.network_runs_dir()}/{name}"


def list_run_folders() -> list[str]:
    """Return the names of the networks that have such a folder."""
    try:
        return sorted(
            name for name in os.listdir(paths.network_runs_dir()) if is_network_name(name)
        )
    except FileNotFoundError:
        return []


def make_folder(path: str, mode: int) -> None:
    """Make a folder of that mode, whatever the umask, and those above it; or leave it as it is."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
        make_folder(path, mode)
        return
    os.chmod(path, mode)


def lock(name: str) -> Lock:
    """Return the lock of one network, held while its members or its resolver change.

    Its folder is made if it is missing.
    """
    check_name(name)
    return Lock(run_folder(name))


def lock_all() -> Lock:
    """Return the lock of all networks, held while one is made or removed.

    Taken before that of a network, never after it.
    """
    return Lock(paths.network_runs_dir())


class Lock:
    """An exclusive lock (flock(2)) on a folder; not to be taken twice by one thread.

    Who removes the folder holds the lock: whoever waited for it makes the folder again.
    """

    __slots__ = ("fd", "folder")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.fd = -1

    def __enter__(self) -> None:
        try:
            while self.fd < 0:
                self._try()
        except OSError as error:
            raise NetworkError(
                f"cannot lock {self.folder}: {error.strerror}",
                hint="jailrun is run as root" if os.geteuid() else None,
            ) from error

    def _try(self) -> None:
        make_folder(paths.run_dir(), 0o711)
        # Others pass through to the files of a network's resolver, which is not run by root.
        make_folder(paths.network_runs_dir(), 0o711)
        make_folder(self.folder, 0o711)
        try:
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            flock(fd, LOCK_EX)
            if _is_same(fd, self.folder):
                self.fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            flock(self.fd, LOCK_UN)  # a process forked meanwhile has the descriptor, too
            os.close(self.fd)
            self.fd = -1


def _is_same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def refuse_taken(name: str) -> None:
    """Raise ConflictError where there is a network of this name."""
    if exists(name):
        raise ConflictError(
            f"there is a network {name} already",
            hint=f"see it: jailrun net inspect {name}; remove it: jailrun net rm {name}",
        )
