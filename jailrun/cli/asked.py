"""What the options that describe a jail come to, without the library that reads them.

Owns: `make_request`, the variables from ``--env`` and ``--env-file``, labels, the network of a jail
whose command line names none.  Out of scope: the options' types and help (`jailrun.cli.options`),
and what the values mean, which `jailrun.spec.compile` says for all faces: here a value stays what
the user wrote.
"""

from __future__ import annotations

import os

from jailrun.errors import JailError
from jailrun.units import parse_pair, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from jailrun.spec.request import Request

MAX_ENV_FILE_BYTES = 1 << 20

# The options that are handed on as they are, under the names that the compiler has for them.
_SAME = (
    *("add_host", "allow", "cap_add", "cap_drop", "cgroupns", "cpu_shares", "cpus", "cpuset"),
    *("deny", "devices", "device_read_bps", "device_read_iops", "device_write_bps"),
    *("device_write_iops", "dns", "dns_option", "dns_search", "domainname", "groups", "hostname"),
    *("init", "ipc", "memory", "memory_reservation", "name", "oom_score_adj", "pid", "pids"),
    *("privileged", "publish", "read_only", "security_opt", "shm_size", "swap", "sysctl", "tmpfs"),
    *("tty", "ulimit", "user", "userns", "uts", "workdir"),
)
# docker's options for the first network, and what they are there.
_FIRST_NETWORK = (("ip", "ip"), ("ip6", "ip6"), ("mac_address", "mac"))
DEFAULT_NETWORK = "default"


def make_request(given: Mapping[str, Any]) -> Request:
    """Return what the options come to; ``given`` has them by the names of their parameters."""
    asked: dict[str, Any] = {key: given[key] for key in _SAME if given[key] not in (None, False)}
    asked["env"] = read_environment(given["env"] or (), given["env_file"] or ())
    asked["labels"] = parse_labels(given["labels"] or ())
    asked["network"] = _find_networks(given)
    if given["volumes"]:
        asked["volumes"] = [_make_absolute(text) for text in given["volumes"]]
    if given["time_offset"]:
        pairs = [parse_pair(text, "time-offset") for text in given["time_offset"]]
        asked["time_offsets"] = dict(pairs)
    if given["entrypoint"] is not None:
        # docker: an empty one takes the image's away
        asked["entrypoint"] = [given["entrypoint"]] if given["entrypoint"] else []
    request: Request = asked  # type: ignore[assignment]
    return request


def _find_networks(given: Mapping[str, Any]) -> list[str]:
    """Return the networks; unless one is named a command line is for a jail in the default one."""
    networks: list[str] = list(given["network"] or ()) or [DEFAULT_NETWORK]
    for option, setting in _FIRST_NETWORK:
        value = given[option]
        if value is None:
            continue
        if not value or "," in value:
            raise JailError(
                f"{option.replace('_', '-')} {show(value)} is not an address",
                hint=f"for one of several networks: --net NAME,{setting}=ADDRESS",
            )
        networks[0] += f",{setting}={value}"
    return networks


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
