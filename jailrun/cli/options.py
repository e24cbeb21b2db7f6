"""The options that describe a jail, as Typer types, and what they come to.

Owns: the types shared by the verbs that make a jail (``run``, later ``create``) and by ``exec``,
the variables from ``--env`` and ``--env-file``, and `make_request`.  Out of scope: what the values
mean, which `jailrun.spec.compile` says for all faces: here a value stays what the user wrote.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Argument, Option

from jailrun.errors import JailError
from jailrun.units import parse_pair, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jailrun.spec.request import Request

# Options after the first argument belong to the command in the jail.
CONTEXT_SETTINGS = {"allow_interspersed_args": False}

MAX_ENV_FILE_BYTES = 1 << 20

Text = str | None
Texts = list[str] | None
Flag = bool

Image = Annotated[
    str,
    Argument(
        metavar="IMAGE|FOLDER|FILE",
        help="Name of an image; or path, with / or . first, of a root folder or its tar file.",
    ),
]
Command = Annotated[
    Texts, Argument(metavar="[COMMAND]...", help="What to run instead of the image's own command.")
]
Jail = Annotated[str, Argument(metavar="NAME", help="Name of a running jail.")]
Inside = Annotated[list[str], Argument(metavar="COMMAND...", help="What to run in the jail.")]

# --- how it runs ---
Interactive = Annotated[Flag, Option("-i", "--interactive", help="Pass standard input on.")]
Tty = Annotated[Flag, Option("-t", "--tty", help="Give the command a terminal.")]
Detach = Annotated[Flag, Option("-d", "--detach", help="Run in the background; print the name.")]
DetachExec = Annotated[Flag, Option("-d", "--detach", help="Do not wait; throw its output away.")]
Remove = Annotated[Flag, Option("--rm", help="Remove the jail when it has ended.")]
Name = Annotated[Text, Option("--name", metavar="NAME", help="Name of the jail.")]
Explain = Annotated[Flag, Option("--explain", help="Print what would be done, and do nothing.")]
Format = Annotated[
    str, Option("--format", metavar="text|json", help="Form of what -d and --explain print.")
]
Quiet = Annotated[Flag, Option("-q", "--quiet", help="Show no progress of making an image.")]
# --- resources ---
Memory = Annotated[Text, Option("-m", "--memory", metavar="SIZE", help="Memory limit, as 64M.")]
Swap = Annotated[
    Text, Option("--swap", metavar="SIZE", help="Swap beyond the memory; -1: no limit.")
]
MemoryReservation = Annotated[
    Text, Option("--memory-reservation", metavar="SIZE", help="Memory kept when the host is short.")
]
ShmSize = Annotated[Text, Option("--shm-size", metavar="SIZE", help="Size of /dev/shm.")]
Cpus = Annotated[Text, Option("--cpus", metavar="N", help="CPU time in CPUs, as 0.5.")]
Cpuset = Annotated[
    Text, Option("--cpuset", "--cpuset-cpus", metavar="LIST", help="CPUs to run on, as 0-1,3.")
]
CpuShares = Annotated[
    Text, Option("-c", "--cpu-shares", metavar="N", help="Weight against other jails; 1024.")
]
Pids = Annotated[
    Text, Option("--pids", "--pids-limit", metavar="N", help="Most processes and threads at once.")
]
_RATE = "DEVICE:RATE"
ReadBps = Annotated[
    Texts, Option("--device-read-bps", metavar=_RATE, help="Bytes read per second at most.")
]
WriteBps = Annotated[
    Texts, Option("--device-write-bps", metavar=_RATE, help="Bytes written per second at most.")
]
ReadIops = Annotated[
    Texts, Option("--device-read-iops", metavar=_RATE, help="Reads per second at most.")
]
WriteIops = Annotated[
    Texts, Option("--device-write-iops", metavar=_RATE, help="Writes per second at most.")
]
Ulimit = Annotated[
    Texts, Option("--ulimit", metavar="NAME=SOFT[:HARD]", help="Resource limit, as nofile=1024.")
]
OomScore = Annotated[
    Text, Option("--oom-score-adj", metavar="N", help="From -1000 to 1000: 1000 dies first.")
]
# --- the process ---
User = Annotated[
    Text, Option("-u", "--user", metavar="USER[:GROUP]", help="Names or numbers, as in the image.")
]
Groups = Annotated[Texts, Option("--group-add", metavar="GROUP", help="One more group.")]
Workdir = Annotated[Text, Option("-w", "--workdir", metavar="PATH", help="Working directory.")]
Env = Annotated[
    Texts,
    Option("-e", "--env", metavar="NAME[=VALUE]", help="Variable; NAME alone: as it is here."),
]
EnvFile = Annotated[Texts, Option("--env-file", metavar="FILE", help="File of NAME=VALUE lines.")]
Entrypoint = Annotated[
    Text, Option("--entrypoint", metavar="PROGRAM", help="Program that the command is given to.")
]
Init = Annotated[Flag, Option("--init", help="Run a small init that reaps and passes signals on.")]
Hostname = Annotated[Text, Option("-h", "--hostname", metavar="NAME", help="Host name inside.")]
Domainname = Annotated[Text, Option("--domainname", metavar="NAME", help="NIS domain name inside.")]
# --- files ---
Volumes = Annotated[
    Texts,
    Option(
        "-v",
        "--volume",
        metavar="SOURCE:TARGET[:OPTIONS]",
        help="Show a file or folder of the host inside; options as ro, idmap.",
    ),
]
Tmpfs = Annotated[
    Texts, Option("--tmpfs", metavar="TARGET[:OPTIONS]", help="Folder in memory, as /tmp:size=64M.")
]
ReadOnly = Annotated[Flag, Option("--read-only", help="Make the root file system read-only.")]
Devices = Annotated[
    Texts, Option("--device", metavar="HOST[:JAIL][:rwm]", help="Device of the host, as /dev/fuse.")
]
# --- rights ---
CapAdd = Annotated[Texts, Option("--cap-add", metavar="NAME", help="Add a capability, or ALL.")]
CapDrop = Annotated[Texts, Option("--cap-drop", metavar="NAME", help="Drop a capability, or ALL.")]
SecurityOpt = Annotated[
    Texts,
    Option("--security-opt", metavar="NAME=VALUE", help="As seccomp=FILE, seccomp=unconfined."),
]
Allow = Annotated[
    Texts,
    Option("--allow", metavar="NAME", help="Allow one thing by name, as mount, fuse, ptrace."),
]
Sysctl = Annotated[
    Texts, Option("--sysctl", metavar="NAME=VALUE", help="Kernel setting of the jail's own.")
]
Privileged = Annotated[
    Flag, Option("--privileged", help="Take the fences down, but for the namespaces. Unsafe.")
]
# --- namespaces ---
_OWN = "private|host|PATH"
Net = Annotated[
    Text, Option("--net", "--network", metavar="none|host|PATH", help="Network to be in.")
]
Pid = Annotated[Text, Option("--pid", metavar=_OWN, help="Whose processes to see.")]
Ipc = Annotated[Text, Option("--ipc", metavar=_OWN, help="Whose shared memory and queues to see.")]
Uts = Annotated[Text, Option("--uts", metavar=_OWN, help="Whose host name to have.")]
Userns = Annotated[Text, Option("--userns", metavar=_OWN, help="Whose user ids to have.")]
Cgroupns = Annotated[Text, Option("--cgroupns", metavar=_OWN, help="Whose cgroup root to see.")]
TimeOffset = Annotated[
    Texts,
    Option("--time-offset", metavar="CLOCK=TIME", help="Shift monotonic or boottime, as -1h."),
]
Labels = Annotated[Texts, Option("-l", "--label", metavar="KEY[=VALUE]", help="Note on the jail.")]

# The options that are handed on as they are, under the names that the compiler has for them.
_SAME = (
    *("allow", "cap_add", "cap_drop", "cgroupns", "cpu_shares", "cpus", "cpuset", "devices"),
    *("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops"),
    *("domainname", "groups", "hostname", "init", "ipc", "memory", "memory_reservation", "name"),
    *("network", "oom_score_adj", "pid", "pids", "privileged", "read_only", "security_opt"),
    *("shm_size", "swap", "sysctl", "tmpfs", "tty", "ulimit", "user", "userns", "uts", "workdir"),
)


def make_request(given: Mapping[str, Any]) -> Request:
    """Return what the options come to; ``given`` has them by the names of their parameters."""
    asked: dict[str, Any] = {key: given[key] for key in _SAME if given[key] not in (None, False)}
    asked["env"] = read_environment(given["env"] or (), given["env_file"] or ())
    asked["labels"] = parse_labels(given["labels"] or ())
    if given["volumes"]:
        asked["volumes"] = [_make_absolute(text) for text in given["volumes"]]
    if given["time_offset"]:
        pairs = [parse_pair(text, "time-offset") for text in given["time_offset"]]
        asked["time_offsets"] = dict(pairs)
    if given["entrypoint"] is not None:
        # docker: an empty one takes the image's away
        asked["entrypoint"] = [given["entrypoint"]] if given["entrypoint"] else []
    return cast("Request", asked)


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return labels by key; one without a value has the empty one."""
    labels = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise JailError(f"label {show(text)} is not valid", hint="write KEY=VALUE")
        labels[key] = value
    return labels


def _make_absolute(volume: str) -> str:
    """Return a volume whose source, given from the current folder on (./…), is a full path."""
    source, colon, rest = volume.partition(":")
    if source in (".", "..") or source.startswith(("./", "../")):
        return f"{os.path.abspath(source)}{colon}{rest}"  # noqa: PTH100 - resolves no links
    return volume


# --- variables ---
def read_environment(
    texts: Iterable[str], files: Iterable[str], own: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the variables of ``--env-file``, and above them those of ``--env``.

    A name alone takes the value of the caller's ``own`` variable, or stands for nothing.
    """
    variables: dict[str, str] = {}
    for path in files:
        for place, line in _read_lines(path):
            _add_variable(variables, line, place, own)
    for text in texts:
        _add_variable(variables, text, "env", own)
    return variables


def _add_variable(variables: dict[str, str], text: str, what: str, own: Mapping[str, str]) -> None:
    name, equals, value = text.partition("=")
    if not name or "\0" in text or any(character.isspace() for character in name):
        raise JailError(
            f"{what}: {show(text)} is not a variable", hint="write NAME=VALUE, or NAME alone"
        )
    if equals:
        variables[name] = value
    elif name in own:
        variables[name] = own[name]


def _read_lines(path: str) -> list[tuple[str, str]]:
    """Return the lines of a file that say something, each with its place; docker's form."""
    what = f"the environment file {path}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(MAX_ENV_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise JailError(f"cannot read {what}: {why}") from error
    if len(data) > MAX_ENV_FILE_BYTES:
        raise JailError(f"{what} is too large: above {MAX_ENV_FILE_BYTES >> 20} MiB")
    lines = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = os.fsdecode(raw.removesuffix(b"\r")).lstrip()
        if line and not line.startswith("#"):
            lines.append((f"{path}:{number}", line))
    return lines
