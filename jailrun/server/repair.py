"""Putting right what crashes, reboots and other hands have left: ``jailrun repair``.

Owns: the order of it, and what belongs to no jail that exists.  Every start already removes jails
that nobody will finish (`jailrun.engine.lifecycle.recover`); this looks at everything else, too:
networks whose bridge or rules are gone under running jails, leases, layers and logs whose record
went with a reboot.  Out of scope: each repair's how, which is that facility's release.
"""

from __future__ import annotations

import os

from jailrun import paths, rootfs
from jailrun.engine.lifecycle import recover
from jailrun.engine.network import rejoin_all
from jailrun.engine.record import is_name
from jailrun.errors import JailError
from jailrun.net import definition, leases, member
from jailrun.security.ids import release_range, stale_ranges


class _Records:
    """The names that have a record now, not when the question was prepared.

    Leases are taken after the record: one that is seen and has none is nobody's.
    """

    def __contains__(self, name: object) -> bool:
        return os.path.isdir(f"{paths.jails_dir()}/{name}")  # noqa: PTH112 - as the engine does


def repair() -> list[str]:
    """Put right what can be; return what was done, in words.  Twice is once.

    Raises the first error after everything has been tried.
    """
    records = _Records()
    steps = (_recover, lambda: _free(records), rejoin_all, lambda: _remove_files(records))
    done: list[str] = []
    first: JailError | None = None
    for step in steps:
        try:
            done += step()
        except JailError as error:
            first = first or error
    if first is not None:
        raise first
    return done


def _recover() -> list[str]:
    return [f"removed what was left of jail {name}" for name in recover()]


def _free(records: _Records) -> list[str]:
    """Give back the addresses and the ids of jails that are gone."""
    done = []
    for name in sorted({*definition.list_names(), *definition.list_run_folders()}):
        for key, jail in leases.stale(name, records):
            leases.release(name, jail)
            done.append(f"freed {key} of network {name}, which {jail} had")
        member.end_unused(name)
    for first_id, jail in stale_ranges(paths.run_dir(), records):
        release_range(paths.run_dir(), first_id, jail)
        done.append(f"freed the user ids from {first_id} on, which {jail} had")
    return done


def _remove_files(records: _Records) -> list[str]:
    """Remove writable layers and logs whose jail was forgotten by a reboot."""
    done = []
    for name in _list(paths.layers_dir()):
        if is_name(name) and name not in records:
            rootfs.release(f"{paths.layers_dir()}/{name}")
            done.append(f"removed the writable layer of {name}")
    for file in _list(paths.logs_dir()):
        name = file.removesuffix(".log")
        if file.endswith(".log") and is_name(name) and name not in records:
            os.unlink(f"{paths.logs_dir()}/{file}")  # noqa: PTH108
            done.append(f"removed the log of {name}")
    return done


def _list(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except FileNotFoundError:
        return []
