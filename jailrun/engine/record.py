"""The record of a jail: what must be known to undo it, written before it is done.

Owns: the folder ``<run>/jails/<name>`` with ``record.json`` (this record), ``config.json`` and,
while a created jail waits for its start, the FIFOs ``start`` and ``report``.  A record is written
to a temporary file and renamed.  Out of scope: what it means (`jailrun.engine.state`).
"""

from __future__ import annotations

import errno
import fcntl
import os

from jailrun import paths
from jailrun.errors import ConflictError, JailError, NotFoundError
from jailrun.jsontext import dumps, loads
from jailrun.kernel.files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jailrun.net.model import Network
    from jailrun.spec.model import Config, Hooks

_FIELDS = (
    "name", "bundle", "pid", "start_time", "owner_pid", "owner_start_time", "cgroups",
    "first_id", "cgroup_parents", "writable", "log", "remove", "attached", "created", "started",
    "finished", "status", "labels", "image", "events", "has_hooks", "network",
)  # fmt: skip


class Record:
    """What is known of one jail.

    ``pid`` and ``start_time`` (clock ticks, proc(5) field 22) name its init for as long as the
    host is up, ``owner_pid`` and ``owner_start_time`` the process that makes it, or waits for it
    in the foreground (``attached``).  ``created``, ``started``, ``finished`` are seconds since
    1970, ``status`` the exit status once it is known, ``first_id`` the first host id of its own
    range, ``network`` what it has in networks, ``writable`` its upper layer, ``cgroups`` its
    directories by hierarchy and ``cgroup_parents`` those above them that were not there before.
    """

    __slots__ = (*_FIELDS, "lock_fd")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock_fd = -1
        self.bundle = ""
        self.pid = 0
        self.start_time = 0
        self.owner_pid = 0
        self.owner_start_time = 0
        self.cgroups: dict[str, str] = {}
        self.cgroup_parents: list[str] = []
        self.first_id = 0
        self.writable: str | None = None
        self.log: str | None = None
        self.remove = False
        self.attached = False
        self.created = 0.0
        self.started = 0.0
        self.finished = 0.0
        self.status: int | None = None
        self.labels: dict[str, str] = {}
        self.image = ""
        self.has_hooks = False
        self.events: dict[str, Any] = {}
        self.network: Network | None = None

    @property
    def folder(self) -> str:
        """The folder of the record."""
        return f"{paths.jails_dir()}/{self.name}"

    def claim(self) -> None:
        """Take the name, with the record on disk and locked from the first moment on.

        Who wants to change the jail waits until `unlock`.  Raises ConflictError where the name is
        taken.
        """
        temporary = f"{paths.jails_dir()}/.new-{os.getpid()}-{os.urandom(5).hex()}"
        try:
            try:
                os.mkdir(temporary, 0o700)
            except FileNotFoundError:
                _make_folders()
                os.mkdir(temporary, 0o700)
            _write_new(f"{temporary}/record.json", self._format())
            self.lock_fd = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
            os.rename(temporary, self.folder)
        except OSError as error:
            self.unlock()
            _remove_folder(temporary)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                self.refuse_taken()
            raise JailError(
                f"cannot make {self.folder}: {error.strerror}",
                hint="jailrun is run as root" if os.geteuid() else None,
            ) from error

    def unlock(self) -> None:
        """Let others change the jail."""
        if self.lock_fd >= 0:
            fcntl.flock(self.lock_fd, fcntl.LOCK_UN)  # a process forked meanwhile has it, too
            os.close(self.lock_fd)
            self.lock_fd = -1

    def refuse_taken(self) -> None:
        """Raise ConflictError where there is a jail of this name."""
        if os.path.exists(self.folder):
            raise ConflictError(
                f"the name {self.name} is taken",
                hint=f"choose another, or remove that jail: jailrun rm {self.name}",
            )

    def hold(self) -> int:
        """Return the descriptor of who will note this jail's end.

        It holds a lock (flock(2)) until it is closed, also by the end of its last process; the
        exit status is written to it before that.
        """
        fd = self.open_alive()
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def open_alive(self) -> int:
        """Open the file that tells of the jail's end; see `hold`."""
        path = f"{self.folder}/alive"
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFoundError(f"there is no jail {self.name!r}") from None

    def write(self) -> None:
        """Put the record on disk, whole or not at all."""
        write_file(f"{self.folder}/record.json", self._format())

    def _format(self) -> str:
        return dumps({field: getattr(self, field) for field in _FIELDS})

    def write_config(self, config: Config) -> None:
        """Put the config beside the record."""
        write_file(f"{self.folder}/config.json", dumps(config))

    def read_config(self) -> Config:
        """Return the config that the jail was made with."""
        config: Config = read_json(f"{self.folder}/config.json")
        return config

    def read_hooks(self) -> Hooks:
        """Return the hooks of the config; none where a start was killed before any could run."""
        try:
            return self.read_config().get("hooks", {}) if self.has_hooks else {}
        except FileNotFoundError:
            return {}

    def remove_folder(self) -> None:
        """Forget the jail: the last step of a release; nothing where it is gone already."""
        # In one step, so that the name is never taken by half a record.
        removed = f"{paths.jails_dir()}/.old-{os.getpid()}-{os.urandom(5).hex()}"
        try:
            os.rename(self.folder, removed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JailError(f"cannot remove {self.folder}: {error.strerror}") from error
        _remove_folder(removed)


def _remove_folder(folder: str) -> None:
    try:
        for entry in os.listdir(folder):
            os.unlink(f"{folder}/{entry}")
        os.rmdir(folder)
    except FileNotFoundError:
        return  # `remove_remains` was quicker
    except OSError as error:
        raise JailError(f"cannot remove {folder}: {error.strerror}") from error


def remove_remains() -> None:
    """Remove what claims and removals left that were killed in the middle."""
    for entry in _list_folder():
        kind, _, rest = entry.partition("-")
        pid = rest.partition("-")[0]
        if kind in (".new", ".old") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            _remove_folder(f"{paths.jails_dir()}/{entry}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _make_folders() -> None:
    """Make the folder of the records; others may pass through to the roots' meeting place only."""
    os.makedirs(paths.run_dir(), 0o711, exist_ok=True)
    os.makedirs(paths.jails_dir(), 0o700, exist_ok=True)


def write_file(path: str, text: str) -> None:
    """Write a file of ours, whole or not at all."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        _write_new(temporary, text)
        os.rename(temporary, path)
    except OSError as error:
        _unlink(temporary)
        raise JailError(f"cannot write {path}: {error.strerror}") from error


def _write_new(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = text.encode()
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def read_json(path: str) -> Any:
    """Return what is in a file of ours."""
    return loads(read_file(path))


def load(name: str) -> Record:
    """Return the record of a jail; raise NotFoundError where there is none.

    A folder without a readable record is a jail whose making was cut short before the first
    write: nothing else of it exists yet.
    """
    record = Record(name)
    if not is_name(name) or not os.path.isdir(record.folder):
        raise NotFoundError(f"there is no jail {name!r}", hint="see them all: jailrun ls --all")
    try:
        values = read_json(f"{record.folder}/record.json")
    except FileNotFoundError:
        return record
    except ValueError as error:
        raise JailError(f"{record.folder}/record.json is damaged: {error}") from error
    for field in _FIELDS:
        if field in values:
            setattr(record, field, values[field])
    return record


def is_name(name: str) -> bool:
    """Return whether ``name`` can be a jail's: a file name of plain characters, 64 at most."""
    return (
        0 < len(name) <= 64
        and name.isascii()
        and name[0].isalnum()
        and all(character.isalnum() or character in "_.-" for character in name)
    )


def list_names() -> list[str]:
    """Return the names of all jails that have a record."""
    return sorted(name for name in _list_folder() if is_name(name))


def _list_folder() -> list[str]:
    try:
        return os.listdir(paths.jails_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JailError(f"cannot read {paths.jails_dir()}: {error.strerror}") from error


def random_name() -> str:
    """Return a name for a jail that was given none."""
    return f"jail-{os.urandom(5).hex()}"


class Lock:
    """The lock of one jail's record, held while its state is changed (flock(2)).

    It is on the folder, so that it leaves nothing behind; a jail that was removed while we waited
    for its lock is found missing after.  Without ``wait``, ConflictError where another holds it.
    """

    def __init__(self, name: str, *, wait: bool = True) -> None:
        self.name = name
        self.wait = wait
        self.fd = -1

    def __enter__(self) -> Record:
        folder = f"{paths.jails_dir()}/{self.name}"
        try:
            self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return load(self.name)  # says that there is none
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
            return load(self.name)
        except BlockingIOError:
            self.__exit__()
            raise ConflictError(f"jail {self.name} is being changed") from None
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1
