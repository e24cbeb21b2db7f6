"""The choice of a filter and the cache: warm, cold, damaged, unwritable, shared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import SpecError, UnsupportedError
from jailrun.security import compile as compiler
from jailrun.security import seccomp

PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.fixture(autouse=True)
def empty_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_filters", {})


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_seccomp: object) -> NoReturn:
        pytest.fail("the filter was compiled although it is in the cache")

    monkeypatch.setattr(compiler, "compile_profile", forbidden)


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "seccomp").iterdir())


def forget() -> None:
    seccomp._filters.clear()


def test_no_profile_is_no_filter(tmp_path: Path) -> None:
    assert seccomp.load_filter(None, str(tmp_path)) is None
    assert seccomp.load_config_filter({}, str(tmp_path)) is None
    assert seccomp.load_config_filter({"jailrun": {"seccomp": "unconfined"}}, str(tmp_path)) is None


def test_entry_is_made_and_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    body = seccomp.load_filter(PROFILE, str(tmp_path))
    assert body
    (entry,) = entries(tmp_path)
    assert entry.stat().st_mode & 0o777 == 0o600
    forget()
    request.getfixturevalue("no_compiler")
    assert seccomp.load_filter(PROFILE, str(tmp_path)) == body
    # The order of the keys does not matter, and what was loaded once is not even read again.
    assert seccomp.load_filter(dict(reversed(PROFILE.items())), "/nonexistent") == body


def test_default_profile(tmp_path: Path) -> None:
    config = {
        "process": {"capabilities": {"bounding": ["CAP_SYS_TIME"]}},
        "jailrun": {"seccomp": "default", "allow": ["bpf"]},
    }
    strict = seccomp.load_default_filter([], [], str(tmp_path))
    loosened = seccomp.load_config_filter(config, str(tmp_path))
    assert loosened not in (None, strict)
    assert len(entries(tmp_path)) == 2
    own = {**config, "linux": {"seccomp": PROFILE}}
    assert seccomp.load_config_filter(own, str(tmp_path)) == compiler.compile_profile(PROFILE)


def test_unknown_profile(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'strict' is not a profile"):
        seccomp.load_config_filter({"jailrun": {"seccomp": "strict"}}, str(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-8],
        lambda data: data[:-1],
        lambda data: data + bytes(8),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:32],
        lambda data: os.urandom(40000),
    ],
)
def test_damaged_entry_is_made_again(tmp_path: Path, damage: Any) -> None:
    body = seccomp.load_filter(PROFILE, str(tmp_path))
    (entry,) = entries(tmp_path)
    sound = entry.read_bytes()
    entry.write_bytes(damage(sound))
    assert seccomp.read_entry(str(entry)) is None
    forget()
    assert seccomp.load_filter(PROFILE, str(tmp_path)) == body
    assert entry.read_bytes() == sound


def test_entry_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    seccomp.load_filter(PROFILE, str(tmp_path))
    (entry,) = entries(tmp_path)
    entry.chmod(0o666)
    assert seccomp.read_entry(str(entry)) is None


def test_link_is_not_followed(tmp_path: Path) -> None:
    seccomp.load_filter(PROFILE, str(tmp_path))
    (entry,) = entries(tmp_path)
    (tmp_path / "link").symlink_to(entry)
    assert seccomp.read_entry(str(tmp_path / "link")) is None


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert seccomp.load_filter(PROFILE, str(blocked)) == compiler.compile_profile(PROFILE)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert not seccomp.write_entry(str(tmp_path / "seccomp" / "x.bpf"), bytes(8))
    assert entries(tmp_path) == []


def test_version_of_the_library_is_part_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("2.5.4", "2.6.0"):
        forget()
        monkeypatch.setattr(seccomp, "library_version", lambda version=version: version)
        seccomp.load_filter(PROFILE, str(tmp_path))
    assert len(entries(tmp_path)) == 2


def test_malformed_profile_is_not_cached(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(SpecError):
            seccomp.load_filter({"defaultAction": "no"}, str(tmp_path))
    assert not (tmp_path / "seccomp").exists()


@pytest.mark.parametrize(
    "wanted",
    [
        {**PROFILE, "listenerPath": "/run/socket"},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {**PROFILE, "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_NOTIFY"}]},
    ],
)
def test_listener_is_refused(tmp_path: Path, wanted: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="listener"):
        seccomp.load_filter(wanted, str(tmp_path))


def test_flags() -> None:
    assert seccomp.filter_flags(None) == 4
    assert seccomp.filter_flags({}) == 4
    assert seccomp.filter_flags({"flags": []}) == 0
    names = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert seccomp.filter_flags({"flags": names}) == 2
    with pytest.raises(SpecError, match=r"linux\.seccomp\.flags\[0\]"):
        seccomp.filter_flags({"flags": ["LOG"]})


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.text() | st.none() | st.booleans())))
def test_canonical_json_is_json(value: dict[str, Any]) -> None:
    import json

    assert seccomp.canonical_json(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))


PROGRAM = """
import sys
from jailrun.security import seccomp
body = seccomp.load_default_filter(["CAP_CHOWN"], [], sys.argv[1])
print(len(body), "ctypes" in sys.modules, "jailrun.security.profile" in sys.modules)
"""


@pytest.mark.runs_programs
def test_many_processes_share_a_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    outputs = {process.communicate()[0].split()[0] for process in running}
    assert len(outputs) == 1
    assert len(entries(tmp_path)) == 1
    warm = subprocess.run(command, check=True, capture_output=True, text=True)
    assert warm.stdout.split()[1:] == ["False", "False"]
