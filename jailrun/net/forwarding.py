"""The host's sysctls that networks need, and what they were before.

Owns: the values of a bridge's own interface, packet forwarding, and
``<run>/networks/forwarding.json``, in which the host's own values are written down before they are
changed, so that the removal of the last network puts them back.  Out of scope: links
(`jailrun.net.bridges`) and packet filters (`jailrun.net.rules`).

Switching forwarding on touches more than one file (ip-sysctl in the kernel's documentation): each
interface's ``forwarding``, the ``accept_redirects`` of all; and an interface on which IPv6 is
forwarded ignores router advertisements, by which the host may have its own address and routes,
unless its ``accept_ra`` is 2.
"""

from __future__ import annotations

import errno
import os

from jailrun import paths
from jailrun.errors import NetworkError
from jailrun.jsontext import dumps, loads
from jailrun.kernel.files import read_file
from jailrun.net.definition import make_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import TypedDict

    class Memory(TypedDict):
        """What was there before: interfaces, and the values of sysctls."""

        links: list[str]
        values: dict[str, str]


ROOT = "/proc/sys/net"
SWITCHES = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
# What changes with the switches: all but accept_ra by the kernel itself.
FOLLOWING = {"ipv4": ("forwarding", "accept_redirects"), "ipv6": ("forwarding", "accept_ra")}


def has_ipv6() -> bool:
    """Tell whether the kernel knows IPv6."""
    return os.path.exists(f"{ROOT}/ipv6/conf/all")


# --- a bridge of ours ----------------------------------------------------------------------------
def configure_bridge(link: str, *, internal: bool, ipv6: bool) -> None:
    """Set what the interface of a network's bridge needs; before it goes up."""
    forward = "0" if internal else "1"
    values = {
        "ipv4": {
            "forwarding": forward,
            "route_localnet": "1",  # ports published on 127.0.0.1 lead into the network
            "send_redirects": "0",  # jails of the network may be kept apart: the way is through us
            "accept_redirects": "0",
            "accept_source_route": "0",
        },
        "ipv6": {
            "disable_ipv6": "0" if ipv6 else "1",  # else each jail reaches fe80:: of the host
            "forwarding": forward,
            "accept_ra": "0",
            "accept_redirects": "0",
            "autoconf": "0",
            "accept_dad": "0",  # nobody else has our addresses, and they are to work at once
        },
    }
    for family, settings in values.items():
        if family == "ipv6" and not has_ipv6():
            continue
        for key, value in settings.items():
            _set(f"{family}/conf/{link}/{key}", value)


# --- forwarding ----------------------------------------------------------------------------------
def switch_on() -> bool:
    """Let the host forward packets of both families; return whether it did not before."""
    switches = [name for name in SWITCHES if _read(name) == "0"]
    if not switches:
        return False
    _check_writable(switches)
    _remember(switches)
    if "ipv6/conf/all/forwarding" in switches:
        # First: else the kernel forgets the routes that it was told by routers.
        for name in _files("ipv6", "accept_ra"):
            if _read(name) == "1":
                _set(name, "2")
    for name in switches:
        _set(name, "1")
    return True


def put_back(foreign_bridges: Collection[str]) -> bool:
    """Give the host's sysctls their values of before the first network; True where that was done.

    Nothing is changed while there is a bridge of somebody else, of ``foreign_bridges``, that was
    not there then: whoever made it found forwarding switched on, and needs it by now.  The next
    removal tries again.
    """
    memory = _load()
    if memory is None or any(link not in memory["links"] for link in foreign_bridges):
        return False
    values = memory["values"]
    for name in SWITCHES:
        if name in values:
            _set(name, values[name])
    for name, value in values.items():
        if name in SWITCHES or _read(name) is None:
            continue
        if name.endswith("/accept_ra") and (value, _read(name)) != ("1", "2"):
            continue  # what it is now is not by us
        _set(name, value)
    forget()
    return True


def is_changed() -> bool:
    """Tell whether there is something to put back."""
    return _load() is not None


def forget() -> None:
    """Remove the file of what was before."""
    for path in (_memory_path(), f"{_memory_path()}.new"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _remember(switches: list[str]) -> None:
    """Write down what following the switches will change; what was written before stays."""
    known = _load()
    values: dict[str, str] = {}
    for name in switches:
        version = name.partition("/")[0]
        for file in (name, *(file for key in FOLLOWING[version] for file in _files(version, key))):
            value = _read(file)
            if value is not None:
                values[file] = value
    links = known["links"] if known else _list_links("ipv4")
    values.update(known["values"] if known else {})
    temporary = f"{_memory_path()}.new"
    try:
        make_folder(paths.network_runs_dir(), 0o711)
        with open(temporary, "w") as file_object:
            file_object.write(dumps({"links": links, "values": values}))
        os.rename(temporary, _memory_path())
    except OSError as error:
        raise NetworkError(f"cannot write {_memory_path()}: {error.strerror}") from error


def _load() -> Memory | None:
    """Return what was before, None where nothing was changed (that we know of)."""
    try:
        values = loads(read_file(_memory_path()))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(values, dict) or set(values) != {"links", "values"}:
        return None
    return {"links": values["links"], "values": values["values"]}


def _memory_path() -> str:
    return f"{paths.network_runs_dir()}/forwarding.json"


def _list_links(version: str) -> list[str]:
    """Return what has sysctls of its own: "all", "default" and the interfaces."""
    try:
        return sorted(os.listdir(f"{ROOT}/{version}/conf"))
    except FileNotFoundError:
        return []


def _files(version: str, key: str) -> list[str]:
    return [f"{version}/conf/{link}/{key}" for link in _list_links(version)]


# --- files ---------------------------------------------------------------------------------------
def _read(name: str) -> str | None:
    try:
        return read_file(f"{ROOT}/{name}").decode().strip()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return None
        raise


def _check_writable(names: list[str]) -> None:
    for name in names:
        try:
            os.close(os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            raise _refusal(name, "1", error) from error


def _set(name: str, value: str) -> None:
    """Write a sysctl where it is not so already; one that does not exist is passed over."""
    if _read(name) in (value, None):
        return
    try:
        fd = os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except FileNotFoundError:
        return  # an interface that went away
    except OSError as error:
        raise _refusal(name, value, error) from error


def _refusal(name: str, value: str, error: OSError) -> NetworkError:
    sysctl = "net." + name.replace("/", ".")
    return NetworkError(
        f"cannot set {sysctl} to {value}, which a network needs: {error.strerror}",
        hint="let jailrun write to /proc/sys (in a container it is often read-only), "
        "or run the jail without network: --net none",
    )
