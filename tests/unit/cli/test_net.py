"""The verbs net and repair: what is asked of networks, and what is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jailrun.cli import main
from jailrun.cli.complete import complete_net, complete_network
from jailrun.errors import ConflictError, NotFoundError
from jailrun.net import networks
from jailrun.server import repair
from tests.unit.cli.records import make_record

NETWORK: dict[str, Any] = {
    "name": "default",
    "driver": "bridge",
    "link": "jailrun0",
    "parent": "",
    "subnet": "10.87.0.0/16",
    "subnet6": "fd00::/64",
    "state": "up",
    "members": {"web": ["10.87.0.2", "fd00::2"], "db": ["10.87.0.3"]},
}
LAN = {**NETWORK, "name": "lan", "driver": "macvlan", "link": "", "parent": "en0", "subnet6": ""}


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(networks, "create", lambda name, **asked: calls.append((name, asked)))
    return calls


def test_create(capsys: pytest.CaptureFixture[str], created: list[Any]) -> None:
    assert main(["net", "create", "backend"]) == 0
    assert capsys.readouterr().out == "backend\n"
    name, asked = created[0]
    assert name == "backend"
    assert {key: value for key, value in asked.items() if value} == {"driver": "bridge"}


def test_create_with_options(created: list[Any]) -> None:
    words = "--subnet 192.0.2.0/24 --ipv6 none --gateway 192.0.2.1 --internal --isolate --mtu 1400"
    more = "--driver macvlan --parent en0 lan"
    assert main(["net", "create", *words.split(), *more.split()]) == 0
    assert created == [
        (
            "lan",
            {
                "subnet": "192.0.2.0/24",
                "ipv6": "none",
                "gateway": "192.0.2.1",
                "internal": True,
                "driver": "macvlan",
                "parent": "en0",
                "mtu": 1400,
                "isolate": True,
            },
        )
    ]


@pytest.mark.parametrize("mtu", ["x", "0", "67", "65536", "-1"])
def test_impossible_mtu(capsys: pytest.CaptureFixture[str], created: list[Any], mtu: str) -> None:
    assert main(["net", "create", "--mtu", mtu, "lan"]) == 125
    assert f"mtu {mtu!r} is not valid" in capsys.readouterr().err
    assert not created


def test_ls(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "list_all", lambda: [NETWORK, LAN])
    assert main(["net", "ls"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["NAME", "DRIVER", "STATE", "LINK", "IPV4", "IPV6", "JAILS"],
        ["default", "bridge", "up", "jailrun0", "10.87.0.0/16", "fd00::/64", "2"],
        ["lan", "macvlan", "up", "en0", "10.87.0.0/16", "-", "2"],
    ]
    assert main(["net", "ls", "-q"]) == 0
    assert capsys.readouterr().out == "default\nlan\n"
    assert main(["net", "ls", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [NETWORK, LAN]


def test_inspect_goes_on_after_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def describe(name: str) -> dict[str, Any]:
        if name == "gone":
            raise NotFoundError("there is no network 'gone'")
        return {**NETWORK, "blocks": []}

    monkeypatch.setattr(networks, "describe", describe)
    assert main(["net", "inspect", "gone", "default"]) == 125
    said = capsys.readouterr()
    assert "there is no network 'gone'" in said.err
    assert json.loads(said.out) == [{**NETWORK, "blocks": []}]


def test_rm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(name: str) -> None:
        if name == "default":
            raise ConflictError("the network default is in use by web")

    monkeypatch.setattr(networks, "remove", remove)
    assert main(["net", "rm", "default", "lan"]) == 125
    said = capsys.readouterr()
    assert said.out == "lan\n"
    assert "in use by web" in said.err


@pytest.mark.parametrize("verb", ["create", "inspect", "rm"])
@pytest.mark.parametrize("name", ["../x", "a" * 16, "host", "", "A", "a/b"])
def test_impossible_names(capsys: pytest.CaptureFixture[str], verb: str, name: str) -> None:
    assert main(["net", verb, name]) == 125
    said = capsys.readouterr()
    assert "network" in said.err
    assert "hint: " in said.err


def test_nothing_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net", "ls", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert complete_network("") == []


def test_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jailrun.net.definition.list_names", lambda: ["default", "lan"])
    assert complete_network("l") == ["lan"]
    assert complete_net("") == ["default", "device:", "host", "lan", "none", "ns:", "shared:"]
    make_record("web")  # one that has ended
    assert complete_net("jail:") == []


# --- repair -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("done", "said"),
    [([], "nothing to mend\n"), (["removed \x1bx", "freed y"], "removed \\x1bx\nfreed y\n")],
)
def test_repair(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    done: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(repair, "repair", lambda: done)
    assert main(["repair"]) == 0
    assert capsys.readouterr().out == said
    assert main(["repair", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == done
