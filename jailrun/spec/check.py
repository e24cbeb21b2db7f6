"""Is this a config?  The one door through which every config comes, whoever wrote it.

Owns: `check`, and `find_problems` for whoever wants them as a list.  Out of scope: what fields
there are (`jailrun.spec.tables`), what contradicts what (`jailrun.spec.rules`), what the engine
does not do (`jailrun.spec.unsupported`), what exists on the host (the facilities).
"""

from __future__ import annotations

from jailrun.errors import SpecError
from jailrun.spec.fields import Problems
from jailrun.spec.rules import RULES
from jailrun.spec.tables import CONFIG, PROCESS, RESOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import cast

    from jailrun.spec.fields import Kind, Path
    from jailrun.spec.model import Config, Process, Resources

_MOST = 10  # problems in one message


def find_problems(config: object) -> Problems:
    """Return all that is wrong: JSON path, message, hint or None; empty for a config."""
    problems = Problems()
    CONFIG(config, None, problems)
    if not problems:
        for rule in RULES:
            problems.extend(rule(config))
    return problems


def check(config: object) -> Config:
    """Return the config that ``config`` is; SpecError says where it is none, up to ten problems.

    What may be written in two ways comes back in one, in a copy: fields that are null are left
    out, and a mount's destination is absolute (old tools write it without the first slash).
    """
    problems = find_problems(config)
    _raise_first(problems)
    if problems.has_null:
        config = without_nulls(config)
    if TYPE_CHECKING:
        config = cast("Config", config)
    return _with_absolute_destinations(config)


def check_process(process: object) -> Process:
    """Return ``process``, which is a config's process: for a program run in a jail that exists."""
    process = _check_part(PROCESS, process, "process")
    if TYPE_CHECKING:
        process = cast("Process", process)
    return process


def check_resources(resources: object) -> Resources:
    """Return ``resources``, which are a config's linux.resources: for an update of limits."""
    resources = _check_part(RESOURCES, resources, "linux", "resources")
    if TYPE_CHECKING:
        resources = cast("Resources", resources)
    return resources


def without_nulls(value: object) -> object:
    """Return a copy of ``value`` without the members of objects that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def _check_part(kind: Kind, value: object, *path: str) -> object:
    place: Path = None
    whole = value
    for key in path:
        place = (place, key)
    for key in reversed(path):
        whole = {key: whole}
    problems = Problems()
    kind(value, place, problems)
    if not problems:
        before = ".".join(path)
        for rule in RULES:
            problems += [each for each in rule(whole) if each[0].startswith(before)]
    _raise_first(problems)
    return without_nulls(value) if problems.has_null else value


def _raise_first(problems: Problems) -> None:
    if not problems:
        return
    path, message, hint = problems[0]
    lines = [message]
    lines += [f"{path}: {message}" if path else message for path, message, _ in problems[1:_MOST]]
    if len(problems) > _MOST:
        lines.append(f"and {len(problems) - _MOST} more")
    raise SpecError(path, "\n".join(lines), hint=hint)


def _with_absolute_destinations(config: Config) -> Config:
    mounts = config.get("mounts") or []
    if all(mount["destination"].startswith("/") for mount in mounts):
        return config
    changed = config.copy()
    changed["mounts"] = [
        mount
        if mount["destination"].startswith("/")
        else {**mount, "destination": f"/{mount['destination']}"}
        for mount in mounts
    ]
    return changed
