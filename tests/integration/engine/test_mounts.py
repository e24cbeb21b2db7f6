"""Mounts of the config: binds, file systems, their options."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun.errors import JailError, RootfsError, UnsupportedError
from tests.integration.jails import Build, Jails, Probe

CAPABILITY_SETS = ("bounding", "effective", "permitted")
ADMIN = {"capabilities": {kind: ["CAP_SYS_ADMIN"] for kind in CAPABILITY_SETS}}


def bind(source: Path | str, target: str, *options: str) -> dict[str, Any]:
    """Return a bind mount."""
    kind = "rbind" if "rbind" in options else "bind"
    rest = [option for option in options if option != kind]
    return {"destination": target, "type": "bind", "source": str(source), "options": [kind, *rest]}


def find(reports: Any, target: str) -> dict[str, Any]:
    """Return the last mount on a target."""
    found = {one["target"]: one for one in reports["mounts"]["mounts"]}
    assert target in found
    mount: dict[str, Any] = found[target]
    return mount


def words(reports: Any, target: str) -> set[str]:
    """Return the options of the last mount on a target."""
    return set(find(reports, target)["options"].split(","))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder that anybody may read and write, with a file in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "file").write_text("hello\n")
    (folder / "file").chmod(0o666)
    return folder


@pytest.fixture
def mount_here() -> Iterator[Callable[..., None]]:
    """Return what mounts a tmpfs; all are unmounted after the test."""
    mounted: list[Path] = []

    def mount(point: Path, *options: str) -> None:
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", *options, "x", str(point)], check=True)
        mounted.append(point)

    yield mount
    for point in reversed(mounted):
        subprocess.run(["umount", str(point)], check=True)


def test_bind_writable(jails: Jails, config: Build, data: Path) -> None:
    """A folder of the host's, read and written."""
    command = "cat /data/file; echo x >/data/new"
    ended = jails.run(config("sh", "-c", command, mounts=[bind(data, "/data")]))
    assert ended.stdout == "hello\n"
    assert (data / "new").read_text() == "x\n"


def test_bind_read_only(jails: Jails, config: Build, data: Path) -> None:
    """The same, read-only, which the jail cannot undo."""
    command = "echo x >/data/new; mount -o remount,rw,bind /data; umount /data; echo x >/data/file"
    ended = jails.run(config("sh", "-c", command, mounts=[bind(data, "/data", "ro")]))
    assert ended.stderr.count("Read-only file system") == 2
    assert sorted(os.listdir(data)) == ["file"]  # noqa: PTH208
    assert (data / "file").read_text() == "hello\n"


def test_bind_file(jails: Jails, config: Build, data: Path) -> None:
    """A single file over one that is there, and where there is none, with new folders above."""
    mounts = [bind(data / "file", "/etc/passwd"), bind(data / "file", "/new/folder/file", "ro")]
    command = "cat /etc/passwd /new/folder/file; echo x >/new/folder/file"
    ended = jails.run(config("sh", "-c", command, mounts=mounts))
    assert ended.stdout == "hello\nhello\n"
    assert "Read-only" in ended.stderr


def test_bind_recursive(
    jails: Jails, config: Build, data: Path, mount_here: Callable[..., None]
) -> None:
    """bind shows one mount, rbind those below it, too; rro makes all of them read-only."""
    mount_here(data / "below", "-o", "mode=777")
    (data / "below/file").write_text("below\n")
    (data / "below/file").chmod(0o666)
    command = (
        "cat /b/below/file /r/below/file; echo x >/r/below/file;"
        "echo x >/o/below/n; echo x >/ro/below/w"
    )
    mounts = [
        bind(data, "/b"),
        bind(data, "/r", "rbind"),
        bind(data, "/o", "rbind", "rro"),
        bind(data, "/ro", "rbind", "ro"),
    ]
    ended = jails.run(config("sh", "-c", command, mounts=mounts))
    assert ended.stdout == "below\n"
    assert "'/b/below/file': No such file" in ended.stderr
    assert (data / "below/file").read_text() == "x\n"
    assert "/o/below/n: Read-only" in ended.stderr
    assert (data / "below/w").exists()  # as runc: ro is of the top mount alone


def test_attributes(probe: Probe, data: Path) -> None:
    """Every attribute of a mount is there, and no more than asked for."""
    mounts = [
        bind(data, "/strict", "ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"),
        bind(data, "/plain"),
        bind(data, "/back", "ro", "rw", "nosuid", "suid"),
    ]
    seen = probe("mounts", mounts=mounts)
    strict = {"ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"}
    assert strict <= words(seen, "/strict")
    assert not {"ro", "nosuid", "noexec"} & words(seen, "/plain")
    assert not {"ro", "nosuid"} & words(seen, "/back")


def test_tmpfs(jails: Jails, config: Build) -> None:
    """Size, mode and owner of a tmpfs."""
    mount = {
        "destination": "/t", "type": "tmpfs", "source": "tmpfs",
        "options": ["size=64k", "mode=1770", "uid=5", "gid=6", "nosuid", "nr_inodes=20"],
    }  # fmt: skip
    command = "stat -c '%a %u %g' /t; head -c 100k /dev/zero >/t/x; stat -c %s /t/x"
    ended = jails.run(config("sh", "-c", command, mounts=[mount]))
    assert ended.lines[0] == "1770 5 6"
    assert int(ended.lines[-1]) <= 65536


def test_file_system_flags(jails: Jails, config: Build) -> None:
    """Flags of the file system itself are not lost."""
    options = ["sync", "dirsync"]
    mount = {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options}
    ended = jails.run(config("grep", " /t ", "/proc/self/mountinfo", mounts=[mount]))
    assert {"sync", "dirsync"} <= set(ended.stdout.split(" - ")[1].split()[-1].split(","))


def test_order_of_mounts(jails: Jails, config: Build, data: Path) -> None:
    """Later mounts lie on earlier ones."""
    tmpfs = {"destination": "/a", "type": "tmpfs", "source": "x", "options": []}
    ended = jails.run(
        config("sh", "-c", "ls /a; cat /a/b/file", mounts=[tmpfs, bind(data, "/a/b")])
    )
    assert ended.lines == ["b", "hello"]


def test_idmap(jails: Jails, config: Build, data: Path) -> None:
    """With idmap root of the jail owns what root of the host owns, and what it makes is root's."""
    (data / "mine").write_text("mine")
    (data / "mine").chmod(0o600)
    command = "stat -c %u /data/mine; cat /data/mine; touch /data/new"
    ended = jails.run(config("sh", "-c", command, mounts=[bind(data, "/data", "idmap")]))
    assert ended.stdout == "0\nmine"
    assert (data / "new").stat().st_uid == 0


def test_idmap_in_the_config(jails: Jails, config: Build, data: Path) -> None:
    """Mappings of a mount's own are honoured or refused, not ignored."""
    mapping = [{"containerID": 0, "hostID": 1000, "size": 1000}]
    mount = {**bind(data, "/data"), "uidMappings": mapping, "gidMappings": mapping}
    try:
        ended = jails.run(config("stat", "-c", "%u", "/data/file", mounts=[mount]))
    except UnsupportedError as error:
        assert "apping" in str(error)
    else:
        assert ended.lines == ["1000"]


@pytest.mark.parametrize("propagation", ["private", "rslave", "rshared"])
def test_propagation(
    jails: Jails, config: Build, data: Path, mount_here: Callable[..., None], propagation: str
) -> None:
    """What the host mounts later in a shared folder is seen with slave and shared only."""
    mount_here(data / "top", "-o", "mode=777")
    subprocess.run(["mount", "--make-shared", str(data / "top")], check=True)
    (data / "top/below").mkdir()
    mounts = [bind(data / "top", "/data", "rbind", propagation)]
    command = "echo ready; read x; ls /data/below; cat"
    running = jails.begin(config("sh", "-c", command, mounts=mounts))
    mount_here(data / "top/below", "-o", "mode=777")
    (data / "top/below/late").touch()
    running.write("\n")
    ended = running.wait()
    assert ended.lines == ([] if propagation == "private" else ["late"])


def test_private_by_default(
    jails: Jails, config: Build, data: Path, mount_here: Callable[..., None]
) -> None:
    """What a jail mounts in a volume stays in the jail."""
    mount_here(data / "top", "-o", "mode=777")
    subprocess.run(["mount", "--make-shared", str(data / "top")], check=True)
    (data / "top/below").mkdir()
    ended = jails.run(
        config(
            *("sh", "-c", "mount -t tmpfs x /data/below && touch /data/below/x && echo mounted"),
            mounts=[bind(data / "top", "/data", "rbind")],
            process=ADMIN,
            jailrun={"seccomp": None},
        )
    )
    assert ended.lines == ["mounted"], ended
    assert not (data / "top/below/x").exists()


def test_remount(probe: Probe) -> None:
    """A mount can be changed by a later entry."""
    mounts = [{"destination": "/dev/shm", "type": "none", "options": ["remount", "ro", "noexec"]}]
    assert {"ro", "noexec"} <= words(probe("mounts", mounts=mounts), "/dev/shm")


def entry(destination: str, kind: str, *options: str, source: str = "x") -> dict[str, Any]:
    """Return any other mount."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


@pytest.mark.parametrize(
    ("mount", "error", "text"),
    [
        (bind("/no/such/source", "/x"), RootfsError, "cannot mount /no/such/source on /x: No such"),
        (entry("/x", "nosuchfs"), RootfsError, "nosuchfs"),
        (entry("/x", "tmpfs", "nosuch=1"), JailError, "nosuch"),
        (entry("/x", "tmpfs", "size=-1"), JailError, "size"),
        (entry("/x", "ext4", source="/dev/null"), JailError, "/x"),
        (entry("/no/such", "none", "remount", "ro"), RootfsError, "/no/such"),
    ],
)
def test_bad_mount(
    jails: Jails, config: Build, mount: dict[str, Any], error: type[JailError], text: str
) -> None:
    """A mount that cannot be is named."""
    with pytest.raises(error, match=text):
        jails.run(config("true", mounts=[mount]))


def test_bind_of_the_hosts_root(jails: Jails, config: Build) -> None:
    """Even the host's whole root can be shown, read-only, without the start harming it."""
    command = (
        "ls /host/proc/self >/dev/null; echo x >/host/jrt-written; echo x >/host/tmp/jrt-written"
    )
    ended = jails.run(config("sh", "-c", command, mounts=[bind("/", "/host", "rbind", "rro")]))
    assert ended.stderr.count("Read-only file system") == 2


def test_cgroup_mount(jails: Jails, config: Build) -> None:
    """The jail sees its own cgroups as the root of each hierarchy, and cannot change them."""
    command = (
        "cut -d: -f3 /proc/self/cgroup | sort -u; cat $(find /sys/fs/cgroup -name cgroup.procs);"
        "for file in $(find /sys/fs/cgroup -name '*max' -o -name '*limit*' -o -name '*procs'); do"
        " (echo 1 >$file) 2>/dev/null && echo wrote $file; done; mkdir /sys/fs/cgroup/*/x"
    )
    ended = jails.run(config("sh", "-c", command))
    assert ended.lines[0] == "/"
    assert "1" in ended.lines
    assert "wrote" not in ended.stdout
    assert ended.status != 0


def test_masked_and_read_only_paths(jails: Jails, config: Build) -> None:
    """Masked files are empty, masked folders are too, read-only paths hold against root."""
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    checks = {
        "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c": "0",
        "ls -A /proc/acpi /sys/firmware 2>/dev/null | grep -v : | grep -c .": "0",
        "(echo x >/proc/sys/kernel/hostname) 2>&1 | grep -c Read-only": "1",
        "(echo h >/proc/sysrq-trigger) 2>/dev/null && echo wrote": "",
        "umount /proc/sys 2>/dev/null; umount /proc/keys 2>/dev/null; cat /proc/keys | wc -c": "0",
    }
    for command, expected in checks.items():
        assert jails.execute(running.name, "sh", "-c", command).stdout.strip() == expected, command
    running.wait()


def test_masks_of_the_config(jails: Jails, config: Build) -> None:
    """A masked file reads as empty, a masked folder as empty, a read-only one cannot be written."""
    linux = {"maskedPaths": ["/etc/passwd", "/var", "/no/such"], "readonlyPaths": ["/tmp"]}
    command = "cat /etc/passwd; ls -A /var | wc -l; echo x >/tmp/x; echo y >/etc/passwd"
    ended = jails.run(config("sh", "-c", command, linux=linux))
    assert ended.lines == ["0"]
    assert "/tmp/x: Read-only file system" in ended.stderr
