"""Rates: what a bucket holds, and which interface cannot have one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import UnsupportedError
from jailrun.net.shaping import MAX_RATE, check_rates, plan_bucket, shape, unshape
from tests.unit.net.test_links import make_nic


@given(st.integers(1, MAX_RATE), st.integers(68, 65535))
def test_bucket(rate: int, mtu: int) -> None:
    """It holds a frame, and numbers that the kernel can take; more waits than it holds."""
    bucket = plan_bucket(rate, mtu)
    assert bucket["rate"] == rate
    assert mtu + 14 < bucket["burst"] < bucket["limit"] < 2**32


@pytest.mark.parametrize(
    ("rate", "burst", "limit"),
    [(125, 3044, 18264), (1_250_000, 12_500, 75_000), (125_000_000, 1_250_000, 7_500_000)],
)
def test_ordinary_rates(rate: int, burst: int, limit: int) -> None:
    """1 kbit, 10 mbit and 1 gbit."""
    assert plan_bucket(rate, 1500) == {"rate": rate, "burst": burst, "limit": limit}


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_no_end_on_the_host(driver: str) -> None:
    """A rate that cannot be limited is an error, never ignored."""
    check_rates(make_nic(driver=driver))
    with pytest.raises(UnsupportedError, match=f"driver {driver} has no end on the host"):
        check_rates(make_nic(driver=driver, rate_out=1))


def test_highest_rate() -> None:
    """What does not fit the kernel's number."""
    check_rates(make_nic(rate_in=MAX_RATE))
    with pytest.raises(UnsupportedError, match="counts up to 34gbit"):
        check_rates(make_nic(rate_in=MAX_RATE + 1))


@pytest.mark.parametrize(("mtu", "bits"), [(0, 96), (9000, 564)])
def test_lowest_rate(mtu: int, bits: int) -> None:
    """What the hint says is possible is."""
    check_rates(make_nic(mtu=mtu, rate_out=bits // 8 + 1))
    with pytest.raises(UnsupportedError, match="so low a rate") as caught:
        check_rates(make_nic(mtu=mtu, rate_out=1))
    assert caught.value.hint == f"ask for {bits}bit or more"


def test_interface_without_a_rate() -> None:
    """Nothing is asked of the kernel."""
    shape(make_nic())
    unshape(make_nic())
