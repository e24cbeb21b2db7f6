"""A jail's network as its record has it: `Network`.  Types alone; mypy reads them, no start does.

All that a release needs is in it.  What does not apply is empty: "", 0, [].
"""

from __future__ import annotations

from typing import TypedDict

from jailrun.spec.extensions import MovedDevice, PublishedPort, TrafficRule


class NetworkNic(TypedDict):
    """One interface in a network of ours.

    ``link`` is the host's end, ``shaper`` the device that limits what comes from it; both names are
    new for each start, since the kernel takes links down a while after their namespace has ended.
    """

    network: str
    driver: str
    bridge: str
    parent: str
    link: str
    shaper: str
    name: str
    address: str
    prefix: int
    gateway: str
    address6: str
    prefix6: int
    gateway6: str
    mac: str
    mtu: int
    rate_in: int
    rate_out: int
    internal: bool
    isolate: bool


class Network(TypedDict):
    """All that a jail has of the host's network."""

    nics: list[NetworkNic]
    publish: list[PublishedPort]
    firewall: list[TrafficRule]
    shared: list[str]
    devices: list[MovedDevice]
    names: list[str]
