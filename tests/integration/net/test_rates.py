"""Rates in and out, measured: within a tenth of what was asked for."""

from __future__ import annotations

import json

import pytest

from tests.integration.net.world import OUTSIDE, OUTSIDE6, Server, Servers

SECONDS = 3
MEGA = 1_000_000
pytestmark = pytest.mark.requires("tool:iperf3")


def measure(servers: Servers, server: Server, address: str, *, into: bool) -> float:
    """Return the bits per second that a jail exchanges with the outside."""
    world = servers.world
    listening = world.outside.start("iperf3", "--server", "--one-off", "--forceflush")
    try:
        assert listening.stdout is not None
        while "listening" not in listening.stdout.readline():
            pass
        words = ("iperf3", "--json", "--client", address, "--time", str(SECONDS))
        # What a bucket has saved up in the beginning is no part of a rate.
        done = server.place.run(*words, "--omit", "1", *(["--reverse"] if into else []))
        result = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
    finally:
        listening.kill()
        listening.communicate()
    return float(result)


def test_one_rate_for_both(servers: Servers) -> None:
    web = servers.start("--net", "default,rate=40mbit")
    for into in (True, False):
        assert measure(servers, web, OUTSIDE, into=into) == pytest.approx(40 * MEGA, rel=0.1)


def test_rates_of_their_own(servers: Servers) -> None:
    """By the other family, which counts as well."""
    web = servers.start("--net", "default,rate=in:80mbit/out:20mbit")
    for into, rate in ((True, 80), (False, 20)):
        assert measure(servers, web, OUTSIDE6, into=into) == pytest.approx(rate * MEGA, rel=0.1)


def test_others_are_not_slowed(servers: Servers) -> None:
    servers.start("--net", "default,rate=10mbit")
    web = servers.start()
    assert measure(servers, web, OUTSIDE, into=True) > 200 * MEGA
