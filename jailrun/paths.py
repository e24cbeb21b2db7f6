"""Where jailrun keeps its files.  Out of scope: what is in them.

Two roots, each moved by an environment variable (tests, nested use, several instances):

* ``JAILRUN_DATA``, ``/var/lib/jailrun``: images, networks, layers, logs; survives a reboot.
* ``JAILRUN_RUN``, ``/run/jailrun``: what is true only while a jail exists; lost at reboot.

Functions, not constants, so that a program may set the variables after the import.
"""

from __future__ import annotations

import os


def data_dir() -> str:
    """Return the folder of what is kept."""
    return os.environ.get("JAILRUN_DATA") or "/var/lib/jailrun"


def run_dir() -> str:
    """Return the folder of what is true only while a jail exists."""
    return os.environ.get("JAILRUN_RUN") or "/run/jailrun"


def jails_dir() -> str:
    """Return the folder of the records, one folder a jail."""
    return f"{run_dir()}/jails"


def network_runs_dir() -> str:
    """Return the folder of what networks have while the host is up: leases, their resolvers."""
    return f"{run_dir()}/networks"


def networks_dir() -> str:
    """Return the folder of the networks' definitions."""
    return f"{data_dir()}/networks"


def layers_dir() -> str:
    """Return the folder of the writable layers, one folder a jail."""
    return f"{data_dir()}/scratch"


def images_dir() -> str:
    """Return the folder of the image store."""
    return f"{data_dir()}/images"


def cache_dir() -> str:
    """Return the folder of what can be made again: compiled seccomp filters, host probes."""
    return f"{data_dir()}/cache"


def logs_dir() -> str:
    """Return the folder of the console logs of detached jails."""
    return f"{data_dir()}/logs"
