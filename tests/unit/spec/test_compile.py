"""`jailrun.spec.compile`: what the user asked for, as a config that is one."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from jailrun import jsontext
from jailrun.errors import JailError
from jailrun.spec import request
from jailrun.spec.compile import OPTIONS, compile_config
from jailrun.spec.default import CAPABILITIES, default_config
from jailrun.spec.known import CAPABILITIES as ALL_CAPABILITIES
from jailrun.spec.network import PARAMETERS
from jailrun.spec.rights import ALLOW_NAMES
from tests.unit.spec.compiling import IMAGE, compiled


def mount_on(config: Any, destination: str) -> Any:
    found = [mount for mount in config["mounts"] if mount["destination"] == destination]
    assert len(found) == 1
    return found[0]


def test_nothing_asked_is_the_default() -> None:
    config = compiled()
    expected: Any = default_config()
    expected["process"]["env"].append("HOME=/root")
    for field in ("bounding", "effective", "permitted"):
        assert set(config["process"]["capabilities"].pop(field)) == set(CAPABILITIES)
        del expected["process"]["capabilities"][field]
    expected["jailrun"]["names"] = {}
    expected["linux"]["sysctl"] = PARAMETERS
    assert config == expected
    assert compiled(memory=None, name=None, time=None, entrypoint=None, umask=None) == compiled()


def test_the_main_job() -> None:
    """jailrun run --memory 64M --cpus 0.5 --pids 32 busybox sh -c id."""
    config = compiled(
        name="web", memory="64M", cpus="0.5", pids="32", image=IMAGE, command=["sh", "-c", "id"]
    )
    resources = config["linux"]["resources"]
    assert config["hostname"] == "web"
    assert config["process"]["args"] == ["/entry", "sh", "-c", "id"]
    assert config["process"]["cwd"] == "/srv"
    assert config["process"]["user"] == {"uid": 33, "gid": 34, "umask": 0o022}
    assert config["process"]["env"] == ["PATH=/bin", "A=image", "HOME=/"]
    assert resources["memory"] == {"limit": 64 * 2**20, "swap": 64 * 2**20}
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000}
    assert resources["pids"] == {"limit": 32}
    assert config["annotations"] == {
        "tier": "web",
        "from": "image",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
    }
    assert config["jailrun"] == {
        "image": "busybox",
        "layers": ["/images/busybox"],
        "user_range": "auto",
        "id_shift": "idmap",
        "seccomp": "default",
        "swap": "default",
        "names": {},
    }


def test_the_main_job_as_a_whole() -> None:
    """The file is what another OCI runtime would be given: a change of it is a change for users."""
    config = compiled(
        name="web", memory="64M", cpus="0.5", pids="32", image=IMAGE, command=["sh", "-c", "id"]
    )
    expected = jsontext.loads(Path(__file__).with_name("main_job.json").read_bytes())
    assert config == expected


def test_options_and_their_types_are_the_same_list() -> None:
    tree = ast.parse(Path(str(request.__file__)).read_text())
    fields = {
        node.target.id
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef) and owner.name == "Request"
        for node in owner.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert fields == OPTIONS
    with pytest.raises(JailError, match="there is no option memroy"):
        compile_config(memroy="64M")  # type: ignore[call-arg]


def test_command_entry_point_and_image() -> None:
    assert compiled(image=IMAGE, command=[])["process"]["args"] == ["/entry", "default"]
    assert compiled(image=IMAGE, entrypoint=["/x"])["process"]["args"] == ["/x", "sh"]
    assert compiled(image=IMAGE, entrypoint=[])["process"]["args"] == ["sh"]
    with pytest.raises(JailError, match="no command given"):
        compiled(image=IMAGE, entrypoint=[], command=[])


def test_root_folder() -> None:
    config = compiled(rootfs="/srv/root", read_only=True, init=True)
    assert config["root"] == {"path": "/srv/root", "readonly": True}
    assert config["jailrun"]["writable"] == "direct"
    assert config["jailrun"]["init"] is True


def test_user_groups_and_environment() -> None:
    config = compiled(
        user="1000", groups=["5", 6], env=["A=1", "B=x=y", "A=2"], umask="077", home="/home/a"
    )
    assert config["process"]["user"] == {
        "uid": 1000,
        "gid": 0,
        "umask": 0o077,
        "additionalGids": [5, 6],
    }
    assert config["process"]["env"][1:] == ["A=2", "B=x=y", "HOME=/home/a"]
    assert "TERM=xterm" in compiled(tty=True)["process"]["env"]
    assert compiled(tty=True)["process"]["terminal"] is True
    assert compiled(env={"HOME": "/x"})["process"]["env"][1:] == ["HOME=/x"]


@pytest.mark.parametrize(
    ("swap", "total", "marked"),
    [
        (None, 64 * 2**20, True),
        ("0", 64 * 2**20, False),
        ("32M", 96 * 2**20, False),
        ("unlimited", -1, False),
        (-1, -1, False),
    ],
)
def test_swap_is_swap_alone_and_known_as_asked(
    swap: str | int | None, total: int, marked: bool
) -> None:
    config = compiled(memory="64M", swap=swap, memory_reservation="32M")
    assert config["linux"]["resources"]["memory"]["swap"] == total
    assert config["linux"]["resources"]["memory"]["reservation"] == 32 * 2**20
    assert (config["jailrun"].get("swap") == "default") is marked


def test_limits() -> None:
    config = compiled(
        cpus=2,
        cpuset="1,0",
        cpuset_mems="0",
        cpu_shares="512",
        io_weight=500,
        device_read_bps=["/dev/sda:10M"],
        device_write_iops=["/dev/sda:100"],
        ulimit=["nofile=1024:2048", "core=0", "nofile=10"],
        oom_score_adj="-500",
        shm_size="32M",
    )
    resources = config["linux"]["resources"]
    assert resources["cpu"] == {
        "quota": 200_000,
        "period": 100_000,
        "shares": 512,
        "cpus": "0-1",
        "mems": "0",
    }
    assert resources["blockIO"] == {
        "weight": 500,
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 10 * 2**20}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 100}],
    }
    assert config["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    assert config["process"]["oomScoreAdj"] == -500
    assert mount_on(config, "/dev/shm")["options"][-1] == "size=33554432"


def test_volumes_and_tmpfs() -> None:
    config = compiled(
        volumes=["/a:/var/www/x:ro,idmap", "/b/:/var//www", "/c:/c:bind,suid,dev,rslave"],
        tmpfs=["/tmp:size=64M,exec", "/run:size=50%,mode=755,ro"],
    )
    assert mount_on(config, "/var/www/x")["options"] == [
        *("rbind", "nosuid", "nodev", "ro", "idmap", "rro", "rprivate"),
    ]
    assert mount_on(config, "/var/www") == {
        "destination": "/var/www",
        "type": "bind",
        "source": "/b",
        "options": ["rbind", "nosuid", "nodev", "rprivate"],
    }
    assert mount_on(config, "/c")["options"] == ["bind", "suid", "dev", "rslave"]
    assert mount_on(config, "/tmp")["options"] == [
        *("nosuid", "nodev", "size=67108864", "exec", "mode=1777"),
    ]
    assert mount_on(config, "/run")["options"] == [
        *("nosuid", "nodev", "noexec", "size=50%", "mode=755", "ro"),
    ]
    order = [mount["destination"] for mount in config["mounts"]]
    assert order.index("/var/www") < order.index("/var/www/x")
    replaced = compiled(volumes=["/a:/dev/shm"])
    assert mount_on(replaced, "/dev/shm")["source"] == "/a"


def test_devices() -> None:
    config = compiled(devices=["/dev/fuse", "/dev/sda:/dev/disk:r", "/dev/fuse:rw"])
    assert (
        config["linux"]["devices"]
        == [
            device("c", "/dev/fuse", 10, 229, 0o666) | {"path": "/dev/fuse"},
            device("b", "/dev/disk", 8, 0, 0o660),
        ][::-1]
    )
    rules = config["linux"]["resources"]["devices"][-3:]
    assert [rule["access"] for rule in rules] == ["rwm", "r", "rw"]


def device(kind: str, path: str, major: int, minor: int, mode: int) -> dict[str, Any]:
    numbers = {"major": major, "minor": minor, "fileMode": mode, "uid": 0, "gid": 0}
    return {"type": kind, "path": path, **numbers}


def test_namespaces() -> None:
    def types(config: Any) -> dict[str, str | None]:
        return {each["type"]: each.get("path") for each in config["linux"]["namespaces"]}

    default = types(compiled())
    assert "time" not in default
    assert set(default.values()) == {None}
    config = compiled(network="/run/netns/x", pid="host", ipc="host", uts="host", cgroupns="host")
    assert types(config) == {"network": "/run/netns/x", "mount": None, "user": None}
    assert mount_on(config, "/dev/shm")["type"] == "bind"
    for mode in ("host", "/proc/1/ns/user"):
        config = compiled(userns=mode)
        assert "uidMappings" not in config["linux"]
        assert config["jailrun"] == {"id_shift": "none", "seccomp": "default", "names": {}}
    config = compiled(time_offsets={"monotonic": "-1.5s", "boottime": 3600})
    assert types(config)["time"] is None
    assert config["linux"]["timeOffsets"] == {
        "monotonic": {"secs": -2, "nanosecs": 500_000_000},
        "boottime": {"secs": 3600, "nanosecs": 0},
    }


def bounding(config: Any) -> set[str]:
    sets = config["process"]["capabilities"]
    assert sets["bounding"] == sets["effective"] == sets["permitted"]
    return set(sets["bounding"])


def test_capabilities() -> None:
    assert bounding(compiled(cap_drop=["all"], cap_add=["net_raw"])) == {"CAP_NET_RAW"}
    assert bounding(compiled(cap_add=["ALL"], cap_drop=["CAP_SYS_ADMIN"])) == {
        *ALL_CAPABILITIES
    } - {"CAP_SYS_ADMIN"}
    assert bounding(compiled(cap_drop=["chown"])) == {*CAPABILITIES} - {"CAP_CHOWN"}
    sets = compiled(user=5, cap_add=["net_raw"])["process"]["capabilities"]
    assert sets["ambient"] == sets["inheritable"] == ["CAP_NET_RAW"]


@pytest.mark.parametrize("name", ALLOW_NAMES)
def test_what_is_allowed_by_name_changes_something(name: str) -> None:
    config = compiled(allow=[name])
    assert config != compiled()
    assert bounding(config) >= set(CAPABILITIES)


def test_allowed_names() -> None:
    assert bounding(compiled(allow=["raw-sockets"])) - set(CAPABILITIES) == {"CAP_NET_RAW"}
    config = compiled(allow=["nesting", "io-uring"])
    assert config["jailrun"]["allow"] == ["io_uring", "nesting"]
    assert config["linux"]["maskedPaths"] == []
    assert "ro" not in mount_on(config, "/sys/fs/cgroup")["options"]
    assert "/proc/sys" not in compiled(allow=["sysctl"])["linux"]["readonlyPaths"]
    assert compiled(allow=["tun"])["linux"]["devices"][0]["path"] == "/dev/net/tun"
    assert compiled(allow=["new-privileges"])["process"]["noNewPrivileges"] is False


def test_names_for_the_profile_are_ones_it_knows() -> None:
    profile = pytest.importorskip("jailrun.security.profile")
    config = compiled(allow=list(ALLOW_NAMES))
    assert set(config["jailrun"]["allow"]) <= set(profile.ALLOW_NAMES)


def test_security_options() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert "seccomp" not in compiled(security_opt=["seccomp=unconfined"])["jailrun"]
    config = compiled(security_opt=["seccomp=/etc/p.json"], seccomp=profile)
    assert config["linux"]["seccomp"] == profile
    assert "seccomp" not in config["jailrun"]
    assert compiled(seccomp=profile, security_opt=["seccomp=default"]) == compiled()
    config = compiled(
        security_opt=["no-new-privileges:false", "apparmor=web", "mask=/a:/b", "unmask=/proc/bus"]
    )
    assert config["process"]["noNewPrivileges"] is False
    assert config["process"]["apparmorProfile"] == "web"
    assert config["linux"]["maskedPaths"][-2:] == ["/a", "/b"]
    assert "/proc/bus" not in config["linux"]["readonlyPaths"]
    assert compiled(security_opt=["systempaths=unconfined"])["linux"]["maskedPaths"] == []
    assert compiled(security_opt=["no-new-privileges"]) == compiled()


def test_privileged_is_all_but_the_namespaces() -> None:
    config = compiled(privileged=True)
    assert bounding(config) == set(ALL_CAPABILITIES)
    assert config["process"]["noNewPrivileges"] is False
    assert config["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert config["linux"]["maskedPaths"] == config["linux"]["readonlyPaths"] == []
    assert "seccomp" not in config["jailrun"]
    assert "ro" not in mount_on(config, "/sys")["options"]
    assert config["linux"]["namespaces"] == compiled()["linux"]["namespaces"]
    assert bounding(compiled(privileged=True, cap_drop=["ALL"])) == set()


def test_labels_and_sysctl() -> None:
    config = compiled(
        image=IMAGE, labels=["from=user", "flag"], annotations={"k": "v"}, sysctl=["net.x.y=1=2"]
    )
    assert config["annotations"]["from"] == "user"
    assert config["annotations"]["flag"] == ""
    assert config["annotations"]["k"] == "v"
    assert config["linux"]["sysctl"] == {"net.x.y": "1=2", **PARAMETERS}
    asked = {"net/ipv4/ping_group_range": "1 0", "net.ipv4.ip_unprivileged_port_start": "1024"}
    assert compiled(sysctl=asked)["linux"]["sysctl"] == asked
    assert "sysctl" not in compiled(network="host")["linux"]
