"""The types of what a config has beyond the OCI runtime specification, under the key ``jailrun``.

Owns: the names of these fields, as ``TypedDict`` for mypy; see `jailrun.spec.model`, and
``docs/reference/config-extensions.md`` for what they mean.  Lean modules import this under
``TYPE_CHECKING`` only.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Nic(TypedDict):
    """One network interface of a jail, in a network of ours."""

    network: str
    name: str
    address: NotRequired[str]
    address6: NotRequired[str]
    mac: NotRequired[str]
    rate_in: NotRequired[int]  # bytes/s to the jail
    rate_out: NotRequired[int]  # bytes/s from the jail


class MovedDevice(TypedDict):
    """An interface of the host that the jail has to itself until its end."""

    device: str
    name: NotRequired[str]
    address: NotRequired[str]  # with its prefix, as 192.0.2.7/24
    gateway: NotRequired[str]


class PublishedPort(TypedDict):
    """Ports of the host that lead to the jail: ``count`` of them, one after the other."""

    protocol: str
    host_address: str  # empty: all of the host's
    host_port: int
    jail_port: int
    count: int


class TrafficRule(TypedDict):
    """What a jail may send (``out``) or receive (``in``)."""

    action: str
    direction: str
    protocol: str  # any, tcp, udp, icmp
    address: str  # of the other side, with a prefix; empty: any
    port: int  # of the receiver; 0: any
    last_port: int


class Names(TypedDict, total=False):
    """What /etc/hosts and /etc/resolv.conf shall have beside what they have by themselves."""

    dns: list[str]
    search: list[str]
    options: list[str]
    hosts: list[list[str]]  # pairs of name and address


class Extensions(TypedDict, total=False):
    """What the specification has no words for, under the key ``jailrun``."""

    image: str  # the reference as the user gave it
    layers: list[str]  # host folders, read-only, top first; without them root.path is the root
    writable: Literal["disk", "none", "direct"]  # where writes to the root go
    id_shift: Literal["idmap", "none"]  # idmap: ids on disk stay unshifted
    init: bool  # our small init is PID 1
    swap: Literal["default"]  # memory.swap was not asked for: leave it out where it cannot be set
    seccomp: Literal["default", "unconfined"]  # where linux.seccomp is not there; unset is none
    allow: list[str]  # what was allowed by name; the engine's own profile follows it
    securebits: list[str]  # names of capabilities(7), as "noroot-locked"
    user_range: Literal["auto"]  # the engine fills in hostID from the jail's own range
    networks: list[Nic]
    devices_in: list[MovedDevice]
    publish: list[PublishedPort]
    firewall: list[TrafficRule]
    shared_addresses: list[str]  # the host's network, locked to these addresses of it
    names: Names  # write /etc/hosts, /etc/resolv.conf, /etc/hostname
