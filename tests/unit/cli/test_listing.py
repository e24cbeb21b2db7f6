"""The verbs ls and inspect on records of jails that have ended."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from jailrun.cli import listing, main
from jailrun.engine.identity import read_start_time
from jailrun.engine.record import Record
from jailrun.errors import JailError
from tests.unit.cli.records import make_record


def list_lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return what ls prints."""
    assert main(["ls", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_stopped_jails_are_listed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web", status=3)
    headings = ["NAME", "IMAGE", "STATUS", "PID", "ADDRESS", "PORTS", "CREATED", "COMMAND"]
    assert list_lines(capsys) == ["   ".join(headings)]
    heading, line = list_lines(capsys, "--all")
    assert heading.split() == headings
    assert line.startswith("web    busybox   stopped (3)   -     -         -       ")
    assert line.endswith("days ago   sleep 1")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web", status=137, labels={"tier": "db"}, finished=1700000001.5)
    assert main(["ls", "-a", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "web",
            "image": "busybox",
            "status": "stopped",
            "pid": None,
            "exit_status": 137,
            "created": "2023-11-14T22:13:20.000Z",
            "started": "2023-11-14T22:13:20.000Z",
            "finished": "2023-11-14T22:13:21.500Z",
            "command": ["sleep", "1"],
            "labels": {"tier": "db"},
            "addresses": [],
            "ports": [],
        }
    ]


def test_json_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["-a"], ["db1", "db2", "web"]),
        (["-a", "--filter", "name=db"], ["db1", "db2"]),
        (["-a", "-f", "name=db1", "-f", "name=web"], ["db1", "web"]),
        (["--filter", "status=stopped"], ["db1", "db2", "web"]),
        (["--filter", "status=exited"], ["db1", "db2", "web"]),
        (["--filter", "status=running"], []),
        (["-a", "--filter", "label=tier"], ["db1", "db2"]),
        (["-a", "--filter", "label=tier=db", "--filter", "label=disk=a=b"], ["db1"]),
        (["-a", "--filter", "label=tier=x"], []),
    ],
)
def test_filters(capsys: pytest.CaptureFixture[str], words: list[str], names: list[str]) -> None:
    make_record("db1", labels={"tier": "db", "disk": "a=b"})
    make_record("db2", labels={"tier": "db"})
    make_record("web")
    assert list_lines(capsys, "--quiet", *words) == names


@pytest.mark.parametrize(
    "word", ["", "name", "name=", "=x", "color=red", "status=gone", "Status=running"]
)
def test_bad_filters(word: str) -> None:
    with pytest.raises(JailError, match="--filter"):
        listing.Filter([word])


def test_hostile_words_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web", config={"process": {"args": ["\x1b]0;mine\x07"]}}, image="\x1b[2J")
    assert "\x1b" not in "".join(list_lines(capsys, "--all"))


def test_long_commands_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web", config={"process": {"args": ["sh", "-c", "x" * 100]}})
    line = list_lines(capsys, "--all")[1]
    assert line.endswith("…")
    assert len(line) < 130


def test_half_made_jail_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record("web")
    record.owner_pid = os.getpid()
    record.owner_start_time = read_start_time(record.owner_pid)
    record.claim()
    record.unlock()
    line = list_lines(capsys, "--all")[1]
    assert line.split() == ["web", "-", "creating", "-", "-", "-", "-", "-"]
    assert main(["inspect", "web"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["config"] is None


def test_damaged_record_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web")
    (damaged := Record("bad")).claim()
    with open(f"{damaged.folder}/record.json", "w") as file:  # noqa: PTH123
        file.write("{")
    assert list_lines(capsys, "-aq") == ["web"]
    assert main(["inspect", "bad", "web"]) == 125
    said = capsys.readouterr()
    assert "is damaged" in said.err
    assert [one["name"] for one in json.loads(said.out)] == ["web"]


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    make_record("web", log="/x/web.log", events={"oom_kill": 1})
    assert main(["inspect", "web"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["config"]["process"]["args"] == ["sleep", "1"]
    assert found["events"] == {"oom_kill": 1}
    assert found["limits"] is None
    assert found["log"] == "/x/web.log"


def network_of(**values: Any) -> dict[str, Any]:
    """Return a record's network; see `jailrun.net.model`."""
    keys = ("nics", "publish", "firewall", "shared", "devices", "names")
    return {key: [] for key in keys} | values


def test_addresses_and_ports(capsys: pytest.CaptureFixture[str]) -> None:
    port = {"protocol": "tcp", "host_address": "", "host_port": 8080, "jail_port": 80, "count": 1}
    nics = [
        {"address": "10.87.0.2", "address6": "fd00::2"},
        {"address": "10.88.0.2", "address6": ""},
    ]
    make_record("web", network=network_of(nics=nics, publish=[port, {**port, "protocol": "udp"}]))
    make_record("own", network=network_of(shared=["192.0.2.5"]))
    devices = [{"device": "en0", "address": "192.0.2.7/24"}, {"device": "en1"}]
    make_record("moved", network=network_of(devices=devices))
    lines = list_lines(capsys, "--all")[1:]
    assert [line.split()[5] for line in lines] == ["192.0.2.7", "192.0.2.5", "10.87.0.2"]
    assert "8080:80, 8080:80/udp" in lines[-1]
    assert main(["ls", "-a", "--format", "json", "--filter", "name=web"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["addresses"] == ["10.87.0.2", "10.88.0.2", "fd00::2"]
    assert found["ports"] == ["8080:80", "8080:80/udp"]
    assert main(["inspect", "web"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["network"]["nics"] == nics


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.00"), (62.3, "1:02.30"), (3599, "59:59.00"), (7384, "2:03:04")]
)
def test_cpu_time(seconds: float, text: str) -> None:
    assert listing.format_cpu(seconds) == text
