"""`jailrun.spec.compile`: what cannot be is refused by the option's name, whatever was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun import units
from jailrun.errors import JailError
from jailrun.spec.check import check
from jailrun.spec.compile import compile_config
from tests.unit.spec.compiling import GIGA, IMAGE, compiled

BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "a/b"}, "name 'a/b' is not valid"),
    ({"name": ".."}, "name '..' is not valid"),
    ({"name": ""}, "name '' is not valid"),
    ({"name": "x" * 65}, "is not valid"),
    ({"hostname": "a_b"}, "hostname 'a_b' is not valid"),
    ({"hostname": "a..b"}, "hostname 'a..b' is not valid"),
    ({"hostname": ""}, "hostname '' is not valid"),
    ({"hostname": "x", "uts": "host"}, "would rename the host"),
    ({"memory": "0"}, "memory '0' is too small"),
    ({"memory": "1M"}, "memory '1M' is too small"),
    ({"memory": "-1"}, "memory '-1' is not a size"),
    ({"memory": "9T"}, "memory '9T' is more than this host has"),
    ({"memory": "64M", "memory_reservation": "65M"}, "memory-reservation '65M' is more than"),
    ({"swap": "1M"}, "swap '1M' needs a limit of memory"),
    ({"memory": "64M", "swap": 2**63 - 1}, "swap 9223372036854775807 is too large"),
    ({"cpus": "0"}, "cpus '0' is too small"),
    ({"cpus": "9999"}, "cpus '9999' is more than this host has"),
    ({"cpus": "-1"}, "cpus '-1' is not a number of CPUs"),
    ({"cpuset": "0-7"}, "cpuset '0-7' names CPUs that are not there"),
    ({"cpu_shares": 1}, "cpu-shares 1 is not valid"),
    ({"pids": "0"}, "pids '0' is not valid"),
    ({"pids": 10**9}, "pids 1000000000 is not valid"),
    ({"io_weight": 5}, "io-weight 5 is not valid"),
    ({"device_read_bps": ["/dev/sda"]}, "device-read-bps '/dev/sda' is not valid"),
    ({"device_read_bps": ["/dev/fuse:1"]}, "is not a block device"),
    ({"device_write_iops": ["/dev/sda:0"]}, "would stop the device"),
    ({"ulimit": ["nofile=5000"]}, "ulimit 'nofile=5000' is more than this host lets us set"),
    ({"ulimit": ["nofile=unlimited"]}, "is more than this host lets us set"),
    ({"oom_score_adj": 1001}, "oom-score-adj 1001 is not valid"),
    ({"user": "root"}, "user 'root' is not a pair of ids"),
    ({"groups": ["-1"]}, "group '-1' is not valid"),
    ({"umask": "8"}, "umask '8' is not valid"),
    ({"workdir": "tmp"}, "workdir 'tmp' is not an absolute path"),
    ({"env": ["A"]}, "env 'A' is not a pair"),
    ({"env": {"A=B": "x"}}, "env 'A=B' is not the name of a variable"),
    ({"command": ["sh", "a\0"]}, "has a NUL in it"),
    ({"command": [""]}, "no command given"),
    ({"volumes": ["/data"]}, "has no source"),
    ({"volumes": ["data:/x"]}, "the source 'data' is not an absolute path"),
    ({"volumes": ["/a:x"]}, "volume target 'x' is not an absolute path"),
    ({"volumes": ["/a:/b/../c"]}, "is not an absolute path without .."),
    ({"volumes": ["/a:/"]}, "is the root of the jail"),
    ({"volumes": ["/a:/proc/sys"]}, "is in /proc"),
    ({"volumes": ["/a:/b:rx"]}, "'rx' is not an option of a volume"),
    ({"volumes": ["/a:/b:ro,rw"]}, "ro and rw exclude each other"),
    ({"volumes": ["/a:/b:c:d"]}, "is not valid"),
    ({"volumes": ["/a:/x", "/b:/x/"]}, "/x is the target of two mounts"),
    ({"tmpfs": ["/tmp:size=0"]}, "0 would be no limit"),
    ({"tmpfs": ["/tmp:size=101%"]}, "'101%' is not valid"),
    ({"tmpfs": ["/tmp:mode=9"]}, "'9' is not valid"),
    ({"tmpfs": ["/tmp:bogus"]}, "'bogus' is not an option of tmpfs"),
    ({"tmpfs": ["/tmp:"]}, "'' is not an option of tmpfs"),
    ({"tmpfs": ["/tmp:uid=root"]}, "'root' is not an id"),
    ({"shm_size": 0}, "shm-size 0 is no size"),
    ({"devices": ["/dev/none"]}, "/dev/none is not a device of this host"),
    ({"devices": ["/dev/fuse:rx"]}, "device '/dev/fuse:rx' is not valid"),
    ({"devices": ["/dev/fuse:/a:/b"]}, "is not valid"),
    ({"cap_add": ["foo"]}, "cap-add 'foo' is not a capability"),
    ({"cap_drop": ["bar"]}, "cap-drop 'bar' is not a capability"),
    ({"cap_add": ["chown"], "cap_drop": ["CAP_CHOWN"]}, "CAP_CHOWN is both added and dropped"),
    ({"security_opt": ["foo"]}, "security-opt 'foo' is not valid"),
    ({"security_opt": ["seccomp="]}, "security-opt 'seccomp=' is not valid"),
    ({"security_opt": ["seccomp=/x"]}, "the seccomp profile was not loaded"),
    ({"security_opt": ["unmask=x"]}, "unmask 'x' is not an absolute path"),
    ({"seccomp": []}, "seccomp profile: [] is not an object"),
    ({"seccomp": {"defaultAction": "x"}}, 'seccomp profile.defaultAction: "x" is not one of'),
    ({"allow": ["everything"]}, "allow 'everything' is not a name of something to allow"),
    ({"network": "Bridge"}, "network 'Bridge' is not valid"),
    ({"pid": "container:x"}, "pid 'container:x' is not valid"),
    ({"time_offsets": {"realtime": 1}}, "time offset 'realtime' is for no clock"),
    ({"time_offsets": {"monotonic": "x"}}, "time offset monotonic 'x' is not a duration"),
    ({"time_offsets": {"monotonic": 1}, "time": "host"}, "need a time namespace"),
    ({"sysctl": ["net.x"]}, "sysctl 'net.x' is not a pair"),
    ({"sysctl": ["kernel.panic=1"]}, 'linux.sysctl["kernel.panic"]: is the same for the whole'),
    ({"labels": ["=x"]}, "is not a pair"),
    ({"rootfs": "root"}, "rootfs 'root' is not an absolute path"),
    ({"rootfs": "/root", "image": IMAGE}, "exclude each other"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_bad_values_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(JailError) as caught:
        compiled(**asked)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_docker_profiles_are_not_taken_for_ours() -> None:
    rule = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}}
    with pytest.raises(JailError, match="which only docker knows"):
        compiled(seccomp={"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


def test_without_facts_nothing_is_beyond_the_host() -> None:
    config = compile_config(
        command=["sh"], memory="9T", cpus="512", cpuset="0-511", ulimit=["as=9"]
    )
    assert check(config) is config


words = st.text(max_size=6) | st.text("abc/:=,.-019%Mro", max_size=8)
texts = st.sampled_from(
    """
    name hostname memory swap cpus cpuset cpu_shares pids io_weight user workdir network pid userns
    shm_size umask oom_score_adj rootfs time network_path
    """.split()  # noqa: SIM905
)
lists = st.sampled_from(
    """
    command env tmpfs volumes cap_add cap_drop security_opt devices sysctl ulimit allow labels
    groups device_read_bps entrypoint network publish deny dns dns_search dns_option add_host
    """.split()  # noqa: SIM905
)


@given(st.dictionaries(texts, words) | st.dictionaries(lists, st.lists(words, max_size=2)))
def test_any_text_is_a_config_or_a_jail_error(asked: dict[str, Any]) -> None:
    try:
        compiled(**asked)
    except JailError as error:
        assert error.message


@given(st.integers(4 * 2**20, 8 * GIGA))
def test_memory_is_what_was_written(size: int) -> None:
    config = compiled(memory=units.format_size(size))
    assert config["linux"]["resources"]["memory"]["limit"] == size
