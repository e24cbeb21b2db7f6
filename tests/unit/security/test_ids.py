"""Ranges of host ids: one holder each, whatever runs at once; and the text of id maps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import SecurityError, SpecError
from jailrun.security import ids


def test_range_is_leased_and_released(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert ids.read_leases(run) == {}
    first = ids.allocate_range(run, "web")
    assert first == ids.FIRST_ID + ids.name_hash("web") * ids.RANGE_SIZE
    assert ids.read_leases(run) == {first: "web"}
    ids.release_range(run, first, "web")
    ids.release_range(run, first, "web")
    assert ids.read_leases(run) == {}
    assert ids.allocate_range(run, "web") == first


def test_two_jails_never_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "name_hash", lambda _name: ids.RANGES - 1)
    firsts = [ids.allocate_range(str(tmp_path), f"jail{number}") for number in range(3)]
    assert [ids.range_number(first) for first in firsts] == [ids.RANGES - 1, 0, 1]


def test_lease_of_another_is_not_released(tmp_path: Path) -> None:
    first = ids.allocate_range(str(tmp_path), "web")
    ids.release_range(str(tmp_path), first, "db")
    assert ids.read_leases(str(tmp_path)) == {first: "web"}


def test_release_without_folder(tmp_path: Path) -> None:
    ids.release_range(str(tmp_path / "gone"), ids.FIRST_ID, "web")


@pytest.mark.parametrize("first", [0, ids.FIRST_ID + 1, ids.FIRST_ID + 4096 * 65536])
def test_foreign_range_is_never_released(tmp_path: Path, first: int) -> None:
    with pytest.raises(SecurityError, match="not the first id of one of our ranges"):
        ids.release_range(str(tmp_path), first, "web")


def test_exhausted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "RANGES", 3)
    for number in range(3):
        ids.allocate_range(str(tmp_path), f"jail{number}")
    with pytest.raises(SecurityError, match="all 3 are in use") as caught:
        ids.allocate_range(str(tmp_path), "web")
    assert "jailrun rm" in str(caught.value.hint)


def test_stale(tmp_path: Path) -> None:
    run = str(tmp_path)
    leases = {name: ids.allocate_range(run, name) for name in ("web", "db", "gone")}
    (tmp_path / "ids" / "foreign").write_text("")
    assert ids.stale_ranges(run, {"web", "db"}) == [(leases["gone"], "gone")]


def test_ranges_stay_below_two_gibi() -> None:
    assert ids.FIRST_ID == 1879048192
    assert ids.FIRST_ID + ids.RANGES * ids.RANGE_SIZE <= 2**31


@given(st.text(min_size=1))
def test_hash_is_a_range(name: str) -> None:
    assert 0 <= ids.name_hash(name) < ids.RANGES


PROGRAM = """
import sys
from jailrun.security import ids
ids.name_hash = lambda name: 7
for number in range(50):
    name = f"{sys.argv[2]}-{number}"
    first = ids.allocate_range(sys.argv[1], name)
    print(first, name)
    if number % 2:
        ids.release_range(sys.argv[1], first, name)
        ids.release_range(sys.argv[1], first, name)
"""


@pytest.mark.runs_programs
def test_many_processes_at_once(tmp_path: Path) -> None:
    """All of them want the same range first; what each kept is in the end still its own."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), f"p{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    lines = [line.split() for process in running for line in process.communicate()[0].splitlines()]
    assert len(lines) == 250
    kept = {int(first): name for first, name in lines if int(name.partition("-")[2]) % 2 == 0}
    assert len(kept) == 125
    assert ids.read_leases(str(tmp_path)) == kept


def mapping(inside: object, outside: object, size: object) -> dict[str, Any]:
    return {"containerID": inside, "hostID": outside, "size": size}


def test_map_text() -> None:
    maps = [mapping(0, 1879048192, 65536), mapping(65536, 1000, 1)]
    assert ids.map_text(maps, "linux.uidMappings") == b"0 1879048192 65536\n65536 1000 1\n"


@pytest.mark.parametrize(
    ("maps", "path"),
    [
        ([], ""),
        ([mapping(0, 0, 1)] * 341, ""),
        ([mapping(0, 0, 0)], "[0].size"),
        ([mapping(0, 2**32 - 1, 1)], "[0].hostID"),
        ([mapping(2**32 - 2, 0, 2)], "[0].containerID"),
        ([mapping(0, 0, 1), mapping(-1, 0, 1)], "[1].containerID"),
        ([mapping("0", 0, 1)], "[0].containerID"),
        ([mapping(0, 0, True)], "[0].size"),
        ([mapping(0, 0, 10), mapping(9, 100, 1)], ""),
        ([mapping(0, 0, 10), mapping(10, 9, 1)], ""),
    ],
)
def test_map_refused(maps: list[dict[str, Any]], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        ids.map_text(maps, "linux.gidMappings")
    assert caught.value.path == f"linux.gidMappings{path}"


def test_both_maps() -> None:
    linux = {"uidMappings": [mapping(0, 1000, 2)], "gidMappings": [mapping(0, 2000, 3)]}
    assert ids.user_maps(linux) == (b"0 1000 2\n", b"0 2000 3\n")
    with pytest.raises(SpecError, match=r"linux\.gidMappings: a user namespace needs"):
        ids.user_maps({"uidMappings": [mapping(0, 1000, 2)]})


def test_host_id() -> None:
    maps = [mapping(0, 1000, 10), mapping(100, 5, 1)]
    assert [ids.host_id(maps, inside) for inside in (0, 9, 10, 100)] == [1000, 1009, None, 5]


def test_payload_must_be_mapped() -> None:
    linux = {"uidMappings": [mapping(0, 1000, 10)], "gidMappings": [mapping(0, 1000, 20)]}
    ids.check_mapped({"user": {"uid": 9, "gid": 19}}, linux)
    ids.check_mapped({"user": {"uid": 99}}, {})
    for user, key in (
        ({"uid": 10}, "uid"),
        ({"gid": 20}, "gid"),
        ({"additionalGids": [1, 20]}, "additionalGids[1]"),
    ):
        with pytest.raises(SpecError) as caught:
            ids.check_mapped({"user": user}, linux)
        assert caught.value.path == f"process.user.{key}"
