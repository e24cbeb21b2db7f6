"""Whole jails in the host's network, locked to an address: with their user namespace, and exec.

Out of scope: what each of the lock's programs does (test_shared_stack.py).
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from jailrun.errors import NetworkError, SpecError
from tests.integration.jails import Build, Config, Jails

ONE, TWO = "198.51.100.5", "198.51.100.6"
SERVE = "echo $0 >/tmp/index.html; httpd -p 80 -h /tmp; echo ready; read end"


@pytest.fixture(autouse=True)
def addresses(leaves_host_as_it_was: None) -> Iterator[None]:
    """Give the host two addresses."""
    for action in ("add", "del"):
        lines = "\n".join(f"address {action} {one}/32 dev lo" for one in (ONE, TWO))
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        if action == "add":
            yield


def shared(config: Build, *args: str, address: str = ONE, **changes: object) -> Config:
    """Return the config of a locked jail."""
    ours = {"shared_addresses": [address]}
    return config(*args, without=["network", *changes.pop("without", ())], jailrun=ours, **changes)  # type: ignore[misc]


def ask(address: str) -> str:
    """Ask a server as the host does."""
    with socket.create_connection((address, 80), 30) as one, one.makefile("rw") as file:
        file.write("GET / HTTP/1.0\n\n")
        file.flush()
        return file.read().split()[-1]


@pytest.mark.parametrize("executor", ["native", "ctypes"])
def test_two_servers_on_port_80(
    jails: Jails, config: Build, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root of a user namespace has no right to a low port of the host's, but the lock lets it."""
    monkeypatch.setenv("JAILRUN_EXECUTOR", executor)
    for address in (ONE, TWO):
        jails.begin(shared(config, "sh", "-c", SERVE, address, address=address))
    assert (ask(ONE), ask(TWO)) == (ONE, TWO)


def test_who_enters_is_locked_as_well(jails: Jails, config: Build) -> None:
    running = jails.begin(shared(config, "sh", "-c", "echo; read end"))
    jails.begin(shared(config, "sh", "-c", SERVE, "two", address=TWO))
    said = jails.execute(running.name, "httpd", "-f", "-p", f"{TWO}:81")
    assert said.status != 0
    assert "bind" in said.stderr
    assert jails.execute(running.name, "wget", "-qO-", f"http://{TWO}/").stdout == "two\n"
    assert jails.execute(running.name, "wget", "-qO-", "http://127.0.0.1/").status != 0


def test_an_address_that_the_host_does_not_have(jails: Jails, config: Build) -> None:
    with pytest.raises(NetworkError, match=r"the host has no such address"):
        jails.run(shared(config, "true", address="198.51.100.99"))


def test_rights_over_the_hosts_network_are_refused(jails: Jails, config: Build) -> None:
    """Without a user namespace of its own a jail could send what no socket program sees."""
    capabilities = {"bounding": ["CAP_NET_RAW"]}
    with pytest.raises(SpecError, match="CAP_NET_RAW would let the jail"):
        jails.run(shared(config, "true", without=["user"], process={"capabilities": capabilities}))
