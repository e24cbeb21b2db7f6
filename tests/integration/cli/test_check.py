"""The verb check, and completion by a real shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jailrun.cgroups.hierarchy import read_hierarchies
from tests.integration.cli.command import PROGRAM, jailrun, output_of
from tests.integration.cli.test_servers import start_detached


def test_this_host_can() -> None:
    found = json.loads(output_of("check", "--format", "json"))
    assert found["can_run"] is True
    states = {one["subject"]: one["state"] for one in found["findings"]}
    assert states["trial jail"] == "ok"
    assert states["user namespace"] == "ok"
    assert all(one["hint"] for one in found["findings"] if one["state"] != "ok")


def test_table() -> None:
    lines = output_of("check").splitlines()
    assert lines[-1] == "This host can run jails."
    assert any(line.split()[:2] == ["ok", "kernel"] for line in lines)
    assert not any(line.startswith("ok") for line in output_of("check", "--quiet").splitlines())


def test_data_folder_is_made_and_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data = tmp_path / "a/b"
    done = jailrun("check", env={"JAILRUN_DATA": str(data)})
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_data_folder_that_cannot_be() -> None:
    done = jailrun("check", env={"JAILRUN_DATA": "/proc/nope"})
    assert done.returncode == 1
    assert "MISSING  data folder" in done.stdout
    assert "→ set JAILRUN_DATA" in done.stdout
    assert done.stdout.endswith("This host cannot run jails.\n")


def test_file_system_without_id_mapping() -> None:
    """In a cgroup hierarchy folders can be made, and neither files nor id-mapped mounts."""
    mount = next(item.mount for item in read_hierarchies().items if item.writable)
    done = jailrun("check", "--quiet", env={"JAILRUN_DATA": mount})
    assert done.returncode == 1
    assert done.stderr == ""
    assert "MISSING  data folder" in done.stdout
    assert "→ set JAILRUN_DATA to a folder on ext4" in done.stdout


def complete(*words: str) -> list[str]:
    """Return what bash offers for the last of some words."""
    bash = shutil.which("bash")
    assert bash
    script = (
        'eval "$("$0" --show-completion bash 2>/dev/null || SHELL=bash "$0" --show-completion)"\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        '_jailrun_completion "$1"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(
        [bash, "-c", script, PROGRAM, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"},
    )
    return result.stdout.split()


@pytest.mark.requires("tool:bash")
def test_completion(name: str, no_jails_stay: None) -> None:
    assert complete("jailrun", "sto") == ["stop"]
    assert complete("jailrun", "image", "in") == ["inspect"]
    assert complete("jailrun", "image", "rm", "bus") == ["busybox"]
    assert complete("jailrun", "update", "--cpuse") == ["--cpuset", "--cpuset-cpus"]
    start_detached(name, "sleep", "1000")
    assert complete("jailrun", "stop", name[:6]) == [name]
    output_of("stop", name)
    assert complete("jailrun", "stop", name[:6]) == []
    assert complete("jailrun", "rm", name[:6]) == [name]
