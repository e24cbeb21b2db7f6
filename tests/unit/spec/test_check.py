"""`jailrun.spec.check`: what is a config, and how what is none is told."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import SpecError
from jailrun.spec import model
from jailrun.spec.check import check, check_process, check_resources, find_problems
from jailrun.spec.default import default_config
from jailrun.spec.fields import show_path

# Fields of other platforms, which are no business of ours.
IGNORED = {"process.commandLine", "process.user.username"}


def put(config: Any, path: list[Any], value: object) -> Any:
    """Return a copy of ``config`` with ``value`` at ``path``, made as deep as that needs."""
    config = copy.deepcopy(config)
    place = config
    for key, following in zip(path, [*path[1:], None], strict=True):
        if following is None:
            if isinstance(place, list) and key == len(place):
                place.append(None)
            place[key] = value
        elif isinstance(place, list):
            if key == len(place):
                place.append([] if isinstance(following, int) else {})
        else:
            place.setdefault(key, [] if isinstance(following, int) else {})
        place = place[key]
    return config


def leaves(kind: Any, path: list[Any]) -> Iterator[list[Any]]:
    """Yield the path of each field that the model knows."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        for name, hint in get_type_hints(kind, include_extras=False).items():
            yield from leaves(hint, [*path, name])
    elif origin is NotRequired:
        yield from leaves(arguments[0], path)
    elif origin is list:
        yield path
        yield from leaves(arguments[0], [*path, 0])
    elif origin is dict:
        yield path
        key = "monotonic" if path[-1] == "timeOffsets" else "memory.high"
        yield from leaves(arguments[1], [*path, key])
    else:
        assert kind in (str, int, bool) or origin is Literal
        yield path


LEAVES = [path for path in leaves(model.Config, []) if ".".join(map(str, path)) not in IGNORED]


def words(path: list[Any]) -> str:
    place: Any = None
    for key in path:
        place = (place, key)
    return show_path(place)


@pytest.mark.parametrize("path", LEAVES, ids=words)
def test_every_field_of_the_specification_is_checked(path: list[Any]) -> None:
    problems = find_problems(put({"ociVersion": "1.2.1"}, path, {}))
    is_object = any(problem[0].startswith(f"{words(path)}.") for problem in problems)
    found = {problem[0] for problem in problems}
    assert words(path) in found or is_object or accepts_empty_object(path), problems


def accepts_empty_object(path: list[Any]) -> bool:
    """Tell whether the field is a map, for which an empty object is right and a number wrong."""
    problems = find_problems(put({"ociVersion": "1.2.1"}, path, 7))
    return any(problem[0] == words(path) for problem in problems)


def test_the_model_is_whole() -> None:
    assert len(LEAVES) > 150


def test_the_default_is_a_config() -> None:
    config = default_config()
    assert check(config) is config


def test_a_config_of_another_engine_is_a_config() -> None:
    """As a Go program writes it: null, "" and 0 for what is not set."""
    config: dict[str, Any] = {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "cwd": "/",
            "capabilities": {"bounding": None, "ambient": []},
            "rlimits": None,
            "apparmorProfile": "",
            "env": None,
            "futureField": {"x": 1},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "proc", "type": "proc", "source": "proc", "options": None},
            {"destination": "/x", "type": "bind", "source": "/y", "options": ["rbind", "rprivate"]},
        ],
        "hostname": "",
        "annotations": None,
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid", "path": ""}, {"type": "uts"}],
            "cgroupsPath": "system.slice:docker:abc",
            "rootfsPropagation": "",
            "resources": {
                "memory": {"limit": -1, "swap": -1, "swappiness": None},
                "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
                "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "a"}],
                "blockIO": {"weight": 0},
                "pids": {"limit": 0},
            },
        },
        "windows": "whatever",
    }
    result: Any = check(config)
    assert result["mounts"][0] == {"destination": "/proc", "type": "proc", "source": "proc"}
    assert "annotations" not in result
    assert "env" not in result["process"]
    assert result["process"]["capabilities"] == {"ambient": []}
    assert config["annotations"] is None, "the argument was changed"
    assert check(result) is result


SWAP = ["linux", "resources", "memory"]
CPU = ["linux", "resources", "cpu"]
SECCOMP = ["linux", "seccomp"]
ALLOW: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}
OWN = [{"type": kind} for kind in ("mount", "pid")]
USER = {"containerID": 0, "hostID": 0, "size": 9}

WRONG: list[tuple[list[Any], object, str]] = [
    (["ociVersion"], "2.0.0", 'ociVersion: "2.0.0" is not a version of the specification'),
    (["ociVersion"], "1.0", 'ociVersion: "1.0" is not a version'),
    (["ociVersion"], None, "ociVersion: is required and not there"),
    (["root"], None, "root: is required and not there"),
    (["root", "path"], "", 'root.path: "" is not a path'),
    (["process", "cwd"], "tmp", 'process.cwd: "tmp" is not an absolute path'),
    (["process", "cwd"], "/a\0b", 'process.cwd: "/a\\u0000b" is not an absolute path'),
    (["process", "args"], [], "process.args: [] is not a list of 1 or more"),
    (["process", "args"], [""], "process.args[0]: is empty"),
    (["process", "args"], None, "process.args: is required"),
    (["process", "env"], ["A"], 'process.env[0]: "A" is not a variable as NAME=value'),
    (["process", "user", "uid"], -1, "process.user.uid: -1 is not a whole number from 0"),
    (["process", "user", "uid"], 2**32 - 1, "process.user.uid: 4294967295 is not"),
    (["process", "user", "uid"], True, "process.user.uid: true is not a whole number"),
    (["process", "user", "umask"], 0o1000, "process.user.umask: 512 is not a mask"),
    (
        ["process", "oomScoreAdj"],
        1001,
        "process.oomScoreAdj: 1001 is not a whole number from -1000",
    ),
    (["process", "terminal"], 1, "process.terminal: 1 is not true or false"),
    (["process", "capabilities", "bounding"], ["CAP_X"], '[0]: "CAP_X" is not a capability'),
    (["process", "capabilities", "effective"], ["CAP_BPF"], "CAP_BPF cannot be effective without"),
    (
        ["process", "rlimits"],
        [{"type": "RLIMIT_X", "soft": 0, "hard": 0}],
        "is not one of RLIMIT_AS",
    ),
    (["process", "rlimits"], [{"type": "RLIMIT_AS", "soft": 1, "hard": 0}], "1 is above the hard"),
    (
        ["process", "rlimits"],
        [{"type": "RLIMIT_AS", "soft": 0, "hard": 0}] * 2,
        'process.rlimits[1].type: "RLIMIT_AS" is there twice',
    ),
    (["process", "scheduler"], {"policy": "SCHED_FIFO"}, "process.scheduler.priority: is from 1"),
    (["process", "scheduler"], {"policy": "SCHED_OTHER", "runtime": 5}, "for SCHED_DEADLINE only"),
    (["process", "scheduler"], {}, "process.scheduler.policy: is required"),
    (["process", "ioPriority"], {"class": "IOPRIO_CLASS_BE", "priority": 8}, "from 0 to 7"),
    (["mounts", 0, "destination"], "", 'mounts[0].destination: "" is not a path'),
    (["mounts", 1, "options"], ["x=1"], 'mounts[1].options: "x=1" is not an option of tmpfs'),
    (["mounts", 1, "options"], ["rbind", "nosiud"], '"nosiud" is not an option of a bind mount'),
    (["mounts", 0], {"destination": "/x"}, "mounts[0].type: is required"),
    (["mounts", 0], {"destination": "/x", "type": "bind"}, "mounts[0].source: is required"),
    (["mounts", 0, "options"], ["tmpcopyup"], '"tmpcopyup" is for tmpfs only'),
    (["mounts", 0, "uidMappings"], [USER], "mounts[0].gidMappings: is required"),
    (["hostname"], "x" * 65, "is not a host name of at most 64 bytes"),
    (["hooks"], {"prestart": [{"path": "x"}]}, 'hooks.prestart[0].path: "x" is not an absolute'),
    (["hooks"], {"poststop": [{"path": "/x", "timeout": 0}]}, "poststop[0].timeout: 0 is not"),
    (["annotations"], {"": "x"}, 'annotations: the key "" is not a name'),
    (["annotations"], {"a": 1}, "annotations.a: 1 is not a string"),
    (["linux", "namespaces"], [{"type": "mnt"}], 'namespaces[0].type: "mnt" is not one of pid'),
    (["linux", "namespaces"], [*OWN, *OWN], 'linux.namespaces[2].type: "mount" is there twice'),
    (["linux", "namespaces"], [{"type": "pid", "path": "x"}], '[0].path: "x" is not an absolute'),
    (["linux", "namespaces"], OWN, "linux.uidMappings: has no meaning without a user namespace"),
    (["linux", "uidMappings"], [], "linux.uidMappings: is required for a new user namespace"),
    (["linux", "uidMappings"], [USER, USER], "overlaps with linux.uidMappings[0]"),
    (["linux", "uidMappings"], [{**USER, "size": 0}], "linux.uidMappings[0].size: 0 is not"),
    (["linux", "uidMappings"], [{**USER, "hostID": 2**32 - 5}], "beyond the largest id"),
    (["linux", "timeOffsets"], {"monotonic": {"secs": 1}}, "timeOffsets: needs a new time"),
    (["linux", "timeOffsets"], {"realtime": {}}, '"realtime" is not monotonic or boottime'),
    (["linux", "timeOffsets"], {"monotonic": {"nanosecs": 10**9}}, "monotonic.nanosecs"),
    (["linux", "devices"], [{"type": "c", "path": "/x"}], "linux.devices[0].major: is required"),
    (["linux", "devices"], [{"type": "x", "path": "/x"}], '"x" is not one of c, b, u, p'),
    (["linux", "devices"], [{"type": "p", "path": "/x"}] * 2, '"/x" is there twice'),
    (["linux", "cgroupsPath"], "/a/../b", "is not a path without .."),
    (["linux", "rootfsPropagation"], "x", '"x" is not one of shared, slave, private'),
    (["linux", "maskedPaths"], ["proc"], 'linux.maskedPaths[0]: "proc" is not an absolute'),
    (["linux", "personality"], {"domain": "BSD"}, '"BSD" is not one of LINUX, LINUX32'),
    (["linux", "sysctl"], {"kernel.panic": "1"}, 'sysctl["kernel.panic"]: is the same for the'),
    (["linux", "sysctl"], {"net.../x": "1"}, "is not the name of a kernel parameter"),
    (["linux", "sysctl"], {"net/../kernel": "1"}, "is not the name of a kernel parameter"),
    (["linux", "sysctl"], {"kernel.hostname": "x"}, "is set by hostname"),
    (["linux", "sysctl"], {"net.core.somaxconn": 1}, "1 is not a string"),
    (SWAP, {"limit": -2}, "memory.limit: -2 is not a number of bytes, or -1 for no limit"),
    (SWAP, {"swap": 5}, "memory.swap: 5 needs a limit of memory"),
    (SWAP, {"limit": 9, "swap": 5}, "memory.swap: 5 is less than the limit of memory, 9"),
    (SWAP, {"swappiness": 101}, "memory.swappiness: 101 is not a whole number from 0 to 100"),
    (CPU, {"cpus": "0-"}, 'cpu.cpus: "0-" is not a list of numbers, as 0-1,3'),
    (CPU, {"quota": 999}, "cpu.quota: 999 is less than 1000 microseconds"),
    (CPU, {"quota": -2}, "cpu.quota: -2 is not"),
    (CPU, {"period": 999}, "cpu.period: 999 is less than 1000 microseconds"),
    (CPU, {"period": 1_000_001}, "cpu.period: 1000001 is not a period from 1000"),
    (CPU, {"quota": 5000, "burst": 6000}, "cpu.burst: 6000 is more than the quota, 5000"),
    (CPU, {"idle": 2}, "cpu.idle: 2 is not"),
    (["linux", "resources", "pids"], {}, "linux.resources.pids.limit: is required"),
    (["linux", "resources", "devices"], [{"allow": True, "access": "rx"}], "made of r, w and m"),
    (["linux", "resources", "blockIO"], {"weight": 1001}, "1001 is not a weight from 10 to 1000"),
    (
        ["linux", "resources", "blockIO"],
        {"weightDevice": [{"major": 8, "minor": 0}]},
        "weightDevice[0]: has neither weight nor leafWeight",
    ),
    (["linux", "resources", "rdma"], {"a b": {}}, 'rdma["a b"]: has neither hcaHandles nor'),
    (["linux", "resources", "unified"], {"../x.y": "1"}, "is not the name of a cgroup file"),
    (
        ["linux", "resources", "hugepageLimits"],
        [{"pageSize": "2M", "limit": 0}],
        '"2M" is not the size of a huge page, as 2MB or 1GB',
    ),
    (
        ["linux", "resources", "hugepageLimits"],
        [{"pageSize": "2MB", "limit": 0}] * 2,
        '[1].pageSize: "2MB" is there twice',
    ),
    (SECCOMP, {}, "linux.seccomp.defaultAction: is required"),
    (SECCOMP, {**ALLOW, "defaultErrnoRet": 1}, "SCMP_ACT_ALLOW takes no errno"),
    (SECCOMP, {**ALLOW, "architectures": ["x86"]}, '"x86" is not one of SCMP_ARCH_X86'),
    (SECCOMP, {**ALLOW, "listenerMetadata": "x"}, "has no meaning without listenerPath"),
    (SECCOMP, {"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be the default"),
    (
        SECCOMP,
        {**ALLOW, "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]},
        "syscalls[0].names",
    ),
    (
        SECCOMP,
        {**ALLOW, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]},
        "linux.seccomp.listenerPath: is required for SCMP_ACT_NOTIFY",
    ),
    (
        SECCOMP,
        {**ALLOW, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "errnoRet": 1}]},
        "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_LOG takes no errno",
    ),
    (["jailrun", "foo"], 1, "jailrun.foo: there is no such field; there are image, layers"),
    (["jailrun", "layers"], ["x"], 'jailrun.layers[0]: "x" is not an absolute path'),
    (["jailrun", "writable"], "none", 'jailrun.writable: "none" is for a read-only root'),
    (["linux", "seccomp"], ALLOW, "jailrun.seccomp: is not for a config that has linux.seccomp"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_what_is_wrong_is_told_with_its_path(path: list[Any], value: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        check(put(default_config(), path, value))
    assert message in str(caught.value)


def test_the_host_is_not_renamed_or_mounted_on() -> None:
    config: Any = default_config()
    config["hostname"] = "web"
    config["linux"]["namespaces"] = [{"type": "user"}]
    config["linux"]["sysctl"] = {"net.core.somaxconn": "1", "kernel.shmmax": "1"}
    found = {path: message for path, message, _ in find_problems(config)}
    assert found["hostname"] == '"web" would rename the host'
    assert "mounts" in found
    assert "linux.maskedPaths" in found
    assert "the jail has no network namespace" in found['linux.sysctl["net.core.somaxconn"]']
    assert "the jail has no ipc namespace" in found['linux.sysctl["kernel.shmmax"]']


@pytest.mark.parametrize("name", ["net/ipv4/conf/eth0.5/forwarding", "fs.mqueue.msg_max"])
def test_parameters_of_own_namespaces_are_right(name: str) -> None:
    check(put(default_config(), ["linux", "sysctl"], {name: "1"}))


def test_all_problems_are_told_up_to_ten() -> None:
    config: Any = default_config()
    config["process"]["env"] = ["A"] * 12
    with pytest.raises(SpecError) as caught:
        check(config)
    lines = str(caught.value).split("\n")
    assert lines[0] == 'process.env[0]: "A" is not a variable as NAME=value'
    assert lines[9].startswith("process.env[9]: ")
    assert lines[10] == "and 2 more"
    assert caught.value.path == "process.env[0]"


def test_parts_are_checked_alone() -> None:
    assert check_process({"cwd": "/", "args": ["sh"], "env": None}) == {"cwd": "/", "args": ["sh"]}
    with pytest.raises(SpecError, match=r"^process.args: is required"):
        check_process({"cwd": "/"})
    assert check_resources({"pids": {"limit": 5}}) == {"pids": {"limit": 5}}
    with pytest.raises(SpecError, match=r"^linux.resources.memory.swap: 5 is less"):
        check_resources({"memory": {"limit": 9, "swap": 5}})
    with pytest.raises(SpecError, match=r"^linux.resources: \[\] is not an object"):
        check_resources([])


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("/x")
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from(LEAVES), junk), min_size=1, max_size=3), st.booleans())
def test_any_value_anywhere_is_right_or_a_spec_error(
    changes: list[tuple[list[Any], object]], from_default: bool
) -> None:
    config: Any = default_config() if from_default else {"ociVersion": "1.2.1"}
    for path, value in changes:
        try:
            config = put(config, path, value)
        except (AttributeError, TypeError, IndexError, KeyError):
            return  # one change put a scalar where another goes deeper
    before = json.dumps(config, sort_keys=True)
    try:
        result = check(config)
    except SpecError as error:
        assert str(error)
    else:
        assert check(result) is result
    assert json.dumps(config, sort_keys=True) == before, "the argument was changed"


@given(junk)
def test_any_value_is_a_config_or_a_spec_error(value: object) -> None:
    with pytest.raises(SpecError):
        check(value)
