"""One resolver for each bridge network of ours: dnsmasq, which tells its jails one another's names.

Owns: starting it with the first jail of a network, stopping it after the last, and the names it
knows.  Out of scope: what a jail's own files say (`jailrun.net.names`), the firewall, who the
members of a network are (`jailrun.net.leases`).  Whoever calls holds the network's lock.

It runs in the host's network namespace and listens on the network's gateway addresses alone.  What
it does not know it asks those whom the host asks; in an internal network it asks nobody.  Names
without a dot never leave the host.

Files, below ``<run>/networks/NAME/``::

    hosts/JAIL      what it knows of one jail, in the form of hosts(5); it sees a change at once
    resolver.pid    its pid, written by itself, so that none is lost if we are killed meanwhile
    resolver.json   a pid, its start time, written by us, and whether that is the one which runs,
                    the one which starts it, or one which was told to end
    resolver.log    what it says while it starts

dnsmasq reads the hosts as an ordinary user: the folders down to NAME are 0711, hosts is 0755 and
the files in it 0644.  resolver.pid belongs to that user, so that it is not believed: a pid is the
resolver's only while that process's command line names this very file.

It outlives whoever started it, and others rely on it: it is a daemon in a session of its own, with
``/`` as its working directory and none of our descriptors.  It also leaves the caller's cgroup
where an init system (the v2 hierarchy, or systemd's own in v1) would end all that is in it together
with the unit: for the top of that hierarchy, which takes no folder that someone would have to
remove.  Where that is not allowed it stays, and the next start of a jail replaces it.

A jail in several networks asks one more, which knows the names of all of them: a view
(`jailrun.net.views`), which is here as if it were a network itself, with ``among``, the networks
whose hosts it reads.

A jail's name counts before what other jails call themselves: a host name that is the name of
another member is left out.  A host name that two have is answered with the addresses of both.
"""

from __future__ import annotations

import errno
import os

from jailrun.errors import NetworkError, UnsupportedError
from jailrun.jsontext import dumps, loads
from jailrun.kernel.execute import send_signal
from jailrun.kernel.files import read_file
from jailrun.net.daemon import SIGKILL, has_ended, leave_cgroup, read_start_time, spawn, wait
from jailrun.net.definition import make_folder, run_folder
from jailrun.net.leases import leases_folder
from jailrun.net.names import RESOLV_CONF, is_dns_name, is_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jailrun.net.definition import Definition

FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin", "/usr/local/bin")
START_SECONDS = 30.0  # it waits itself, up to 20 s, for an IPv6 address that is not usable yet
STOP_SECONDS = 2.0
CACHE_SIZE = 1000  # names
STARTS, RUNS, ENDS = "starts", "runs", "ends"


# --- the process ---------------------------------------------------------------------------------
def ensure_running(definition: Definition, among: Sequence[Definition] = ()) -> None:
    """Start the network's resolver unless it runs, and wait until it answers.

    Raises UnsupportedError where dnsmasq is not installed, NetworkError with its own words where it
    does not start.
    """
    folder = _folder(definition)
    pid, start_time, state = _read_note(folder)
    if state != STARTS:
        if not begin(definition, among):
            return
        pid, start_time, state = _read_note(folder)
    if read_start_time(pid) == start_time:
        wait(pid, START_SECONDS)  # and reap it, if it is our child
    # Where it failed since another of ours runs, started by someone who was killed, it is found.
    pid = find_process(definition)
    if not pid:
        raise _refusal(definition, _read_words(folder))
    _unlink(f"{folder}/resolver.log")
    leave_cgroup(pid)


def begin(definition: Definition, among: Sequence[Definition] = ()) -> bool:
    """Start the network's resolver unless it runs; return whether `ensure_running` is to wait."""
    folder = _folder(definition)
    pid, start_time, state = _read_note(folder)
    # In this order: once the process that starts it has ended, it is found.
    if state == STARTS and _lives(folder, pid, start_time):
        return True
    if find_process(definition):
        return False
    program = find_program()
    if not program:
        raise UnsupportedError(
            f"the network {definition['name']} needs dnsmasq, which is not installed",
            hint="apt-get install dnsmasq-base, or do without a network: --net none",
        )
    try:
        _wait_for_last(pid, start_time)  # killed, by us or by somebody
        make_folder(folder, 0o711)
        for one in among or (definition,):
            make_folder(f"{_folder(one)}/hosts", 0o755)
        _unlink(f"{folder}/resolver.pid")
        pid = spawn([program, *format_arguments(definition, among)], f"{folder}/resolver.log")
        _note(folder, pid, STARTS)
    except OSError as error:
        raise NetworkError(
            f"cannot start the resolver of the network {definition['name']}: {error.strerror}"
        ) from error
    return True


def _refusal(definition: Definition, said: str) -> NetworkError:
    why = " ".join(said.split()).removeprefix("dnsmasq: ") or "it ended at once"
    hint = None
    if "already in use" in why:
        hint = (
            "a name server of the host, or a jail's published port, is there on all addresses: "
            "give it one of its own; see it: ss -anup 'sport = :53'"
        )
    return NetworkError(
        f"cannot start the resolver of the network {definition['name']}: {why}", hint=hint
    )


def _read_words(folder: str) -> str:
    try:
        return read_file(f"{folder}/resolver.log")[:4096].decode("utf-8", "replace")
    except OSError:
        return ""


def stop_if_unused(definition: Definition) -> bool:
    """Stop the resolver if no jail is in the network any more; return whether that is so."""
    try:
        with os.scandir(leases_folder(definition["name"])) as leases:
            if next(leases, None) is not None:
                return False
    except FileNotFoundError:
        pass  # nobody has been in it
    stop(definition)
    for view in _list_entries(f"{_folder(definition)}/views"):  # what `jailrun repair` left
        stop({**definition, "name": f"{definition['name']}/views/{view}"})
    return True


def stop(definition: Definition) -> None:
    """Kill the resolver and forget what it knew; the next one waits for its end.

    The kernel takes some 15 ms to close what it watches files with: nobody has to wait for that who
    starts no other.
    """
    folder = _folder(definition)
    pid, start_time, state = _read_note(folder)
    if state == STARTS and read_start_time(pid) == start_time:
        wait(pid, START_SECONDS)
    pid = find_process(definition)
    if pid:
        _end(folder, pid)
    elif _read_note(folder)[2] != ENDS:
        _unlink(f"{folder}/resolver.json")
    for name in ("resolver.pid", "resolver.log"):
        _unlink(f"{folder}/{name}")
    for name in _list_entries(f"{folder}/hosts"):
        _unlink(f"{folder}/hosts/{name}")


def find_process(definition: Definition) -> int:
    """Return the pid of the network's resolver, 0 if it does not run."""
    folder = _folder(definition)
    pid, start_time, state = _read_note(folder)
    if pid and state != ENDS and _lives(folder, pid, start_time):
        return 0 if state == STARTS else pid
    # Whoever started it may have been killed before it was noted.
    try:
        pid = int(read_file(f"{folder}/resolver.pid"))
    except (OSError, ValueError):
        return 0
    if pid <= 0 or not _is_ours(folder, pid):
        return 0
    _note(folder, pid, RUNS)
    return pid


def _lives(folder: str, pid: int, start_time: int) -> bool:
    return _is_ours(folder, pid) and read_start_time(pid) == start_time


def _read_note(folder: str) -> tuple[int, int, str]:
    """Return what was noted: pid, start time and state; or nothing."""
    try:
        known = loads(read_file(f"{folder}/resolver.json"))
        return int(known["pid"]), int(known["start_time"]), str(known["state"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0, 0, ""


def _note(folder: str, pid: int, state: str) -> None:
    note = {"pid": pid, "start_time": read_start_time(pid), "state": state}
    _write(f"{folder}/resolver.json", f"{folder}/.resolver.json", dumps(note), 0o600)


def format_arguments(definition: Definition, among: Sequence[Definition] = ()) -> list[str]:
    """Return dnsmasq's arguments for a network, or a view of several."""
    folder = _folder(definition)
    networks = among or (definition,)
    subnets = [subnet for one in networks for subnet in (one["subnet"], one["subnet6"])]
    arguments = [
        "--conf-file=/dev/null",
        f"--pid-file={folder}/resolver.pid",
        "--bind-interfaces",
        *(f"--listen-address={one}" for one in _gateways(definition)),
        "--no-hosts",
        *(f"--hostsdir={_folder(one)}/hosts" for one in networks),
        "--domain-needed",
        # Nobody outside knows who has an address here.
        *(f"--rev-server={one}" for one in subnets if one),
        f"--cache-size={CACHE_SIZE}",
    ]
    if definition["internal"]:
        return [*arguments, "--no-resolv", "--local=/#/"]
    real = os.path.realpath(RESOLV_CONF)
    if os.path.islink(real) or not os.path.isdir(os.path.dirname(real)):
        return [*arguments, "--no-resolv"]  # a link to nowhere, which would keep it from starting
    # The link itself, not what it leads to now: it watches both.
    return [*arguments, f"--resolv-file={RESOLV_CONF}"]


def _gateways(definition: Definition) -> list[str]:
    return [one for one in (definition["gateway"], definition["gateway6"]) if one]


def find_program() -> str:
    """Return the path of dnsmasq, or nothing where it is not installed."""
    search = [*os.environ.get("PATH", "").split(":"), *FOLDERS]
    for folder in search:
        path = f"{folder}/dnsmasq"
        if folder.startswith("/") and os.access(path, os.X_OK):
            return path
    return ""


def _wait_for_last(pid: int, start_time: int) -> None:
    """Wait until the last resolver has ended, which lets go of its sockets after all else."""
    if pid <= 0 or not start_time or read_start_time(pid) != start_time:
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        has_ended(pidfd, STOP_SECONDS)
    finally:
        os.close(pidfd)


def _end(folder: str, pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _is_ours(folder, pid):  # not another that has the pid now
            _note(folder, pid, ENDS)
            send_signal(pidfd, SIGKILL)
    finally:
        os.close(pidfd)


def _is_ours(folder: str, pid: int) -> bool:
    """Return whether a process is the resolver that was started for this folder."""
    try:
        arguments = read_file(f"/proc/{pid}/cmdline").split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(f"--pid-file={folder}/resolver.pid") in arguments


def _folder(definition: Definition) -> str:
    """Return the network's folder by the one path that its resolver is known by."""
    return os.path.realpath(run_folder(definition["name"]))


# --- what it knows -------------------------------------------------------------------------------
def add_names(
    definition: Definition, jail: str, names: Iterable[str], addresses: Iterable[str]
) -> None:
    """Have ``jail`` found under its ``names``, the first of which is what its addresses are called.

    Names that cannot be asked for (a part of more than 63 characters, localhost) are left out.
    """
    folder = _folder(definition)
    known: dict[str, None] = {}
    for name in names:
        lower = name.lower()
        if not is_dns_name(lower) or is_local(lower) or lower in known:
            continue
        if name == jail or not os.path.lexists(f"{folder}/hosts/{name}"):
            known[lower] = None
    lines = [f"{address} {' '.join(known)}\n" for address in addresses if address]
    if not known or not lines:
        remove_names(definition, jail)
        return
    # Whole or not at all, for a reader that looks while we write; it passes over .* itself.
    _write(f"{folder}/hosts/{jail}", f"{folder}/hosts/.{jail}", "".join(lines), 0o644)


def remove_names(definition: Definition, jail: str) -> None:
    """Have ``jail`` found no more; nothing where it is not."""
    folder = _folder(definition) + "/hosts"
    _unlink(f"{folder}/{jail}")
    _unlink(f"{folder}/.{jail}")


def _list_entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


# --- files ---------------------------------------------------------------------------------------
def _write(path: str, temporary: str, text: str, mode: int) -> None:
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)
            data = text.encode()
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise NetworkError(f"cannot write {path}: {error.strerror}") from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NetworkError(f"cannot remove {path}: {error.strerror}") from error
