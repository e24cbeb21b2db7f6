"""Bad input to ``jailrun run``: one message, at most a hint, and nothing is left behind.

That nothing is left is what the ground of these tests asserts after each.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.command import assert_clean, assert_refused, jailrun, output_of
from tests.integration.cli.conftest import Start


def refuse(*words: str) -> str:
    """Return the message with which a run of busybox is refused."""
    done = jailrun("run", "--rm", *words, "busybox", "true")
    assert done.returncode == 125, done
    assert done.stdout == ""
    assert_clean(done.stderr)
    return done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--memory", "0"), "memory '0' is too small"),
        (("--memory", "-5"), "memory '-5' is not a size"),
        (("--memory", "lots"), "memory 'lots' is not a size"),
        (("--memory", "100T"), "is more than this host has"),
        (("--memory", "99999999999999999999"), "memory"),
        (("--swap", "1G"), "needs a limit of memory"),
        (("--cpus", "0"), "cpus '0' is too small"),
        (("--cpus", "-1"), "cpus '-1' is not"),
        (("--cpus", "9999"), "is more than this host has"),
        (("--cpus", "nan"), "cpus 'nan' is not"),
        (("--cpuset", "9999"), "cpuset"),
        (("--cpuset", "1-0"), "cpuset"),
        (("--cpu-shares", "0"), "cpu-shares"),
        (("--pids", "0"), "pids '0' is not valid"),
        (("--pids", "-1"), "pids '-1' is not valid"),
        (("--name", "a/b"), "a/b"),
        (("--name", ".."), ".."),
        (("--name", "x" * 65), "x" * 20),
        (("--name", ""), "name"),
        (("--hostname", "a b"), "hostname 'a b'"),
        (("--user", "nobody-there"), "cannot find user 'nobody-there'"),
        (("--user", "0:no-group"), "cannot find group 'no-group'"),
        (("--user", "-1"), "user '-1'"),
        (("--user", "65536"), "65536"),
        (("--group-add", "no-group"), "cannot find group 'no-group'"),
        (("--workdir", "relative"), "workdir 'relative' is not an absolute path"),
        (("--env", "=x"), "'=x' is not a variable"),
        (("--env-file", "/nonexistent"), "cannot read the environment file /nonexistent"),
        (("--volume", "/nonexistent:/x"), "/nonexistent"),
        (("--volume", "named:/x"), "not an absolute path"),
        (("--volume", "/tmp"), "has no source"),
        (("--volume", "/tmp:/x:fast"), "'fast' is not an option of a volume"),
        (("--volume", "/tmp:/"), "is the root of the jail"),
        (("--volume", "/tmp:/proc/x"), "is in /proc"),
        (("--volume", "/tmp:/a/../b"), "without .."),
        (("--tmpfs", "/t:size=no"), "tmpfs"),
        (("--tmpfs", "/t:size=0"), "no limit"),
        (("--device", "/dev/none"), "/dev/none is not a device"),
        (("--device", "/etc/passwd"), "/etc/passwd is not a device"),
        (("--cap-add", "FLY"), "'FLY' is not a capability"),
        (("--cap-add", "CHOWN", "--cap-drop", "CHOWN"), "is both added and dropped"),
        (("--allow", "everything"), "'everything' is not a name"),
        (("--security-opt", "nonsense"), "security-opt 'nonsense' is not valid"),
        (("--security-opt", "seccomp=/nonexistent"), "cannot read the seccomp profile"),
        (("--sysctl", "nonsense"), "nonsense"),
        (("--sysctl", "kernel.panic=1"), "kernel.panic"),
        (("--sysctl", "net.ipv4.no_such=1"), "no_such"),
        (("--ulimit", "nofile"), "nofile"),
        (("--ulimit", "flying=1"), "flying"),
        (("--ulimit", "nofile=20:10"), "nofile"),
        (("--net", "nonet"), "there is no network 'nonet'"),
        (("--uts", "/nonexistent"), "/nonexistent"),
        (("--uts", "/etc/passwd"), "/etc/passwd must be of type uts"),
        (("--userns", "no"), "userns 'no' is not valid"),
        (("--time-offset", "realtime=1h"), "realtime"),
        (("--time-offset", "monotonic"), "time-offset"),
        (("--label", "=x"), "label '=x' is not valid"),
        (("--shm-size", "0"), "shm-size"),
        (("--oom-score-adj", "2000"), "oom"),
    ],
)
def test_bad_value(words: tuple[str, ...], text: str) -> None:
    assert text in refuse(*words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "missing argument"),
        (("--nosuch", "busybox"), "no such option"),
        (("--memory",), "requires an argument"),
        (("nosuch-image", "true"), "there is no image"),
        (("NOT/a valid:image", "true"), "NOT/a valid"),
        (("/nonexistent/root", "true"), "cannot use /nonexistent/root as an image"),
        (("./nonexistent", "true"), "cannot use ./nonexistent as an image"),
        (("/dev/null", "true"), "neither a folder nor a regular file"),
        (("-q", "/etc/hostname", "true"), "/etc/hostname is not a tar archive"),
        (("", "true"), ""),
        (("busybox", ""), ""),
        (("-d", "-i", "busybox"), "-d and -i exclude each other"),
        (("--format", "json", "busybox", "true"), "--format json is for"),
        (("--format", "yaml", "-d", "busybox", "true"), "'yaml' is not valid"),
    ],
)
def test_bad_command_line(words: tuple[str, ...], text: str) -> None:
    done = jailrun("run", *words)
    assert done.returncode == 125
    assert done.stdout == ""
    assert_clean(done.stderr)
    assert text in done.stderr


def test_rlimit_above_what_this_host_allows() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = jailrun("run", "--rm", "--ulimit", f"nofile={hard + 1}", "busybox", "true")
    if done.returncode:  # root with CAP_SYS_RESOURCE may
        assert_refused(done, "nofile")


def test_malformed_seccomp_profile(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"defaultAction": "SCMP_ACT_FLY"}', "\0", '{"syscalls": 5}'):
        (tmp_path / "profile.json").write_text(text)
        assert "profile" in refuse("--security-opt", f"seccomp={tmp_path}/profile.json")


class TestHostileRoot:
    """A root folder whose names lead elsewhere."""

    @pytest.mark.parametrize("name", ["proc", "dev", "sys", "etc", "tmp"])
    @pytest.mark.parametrize("target", ["/", "/etc", "../../../..", "nowhere"])
    def test_links(self, root_folder: Path, name: str, target: str) -> None:
        place = root_folder / name
        if place.is_dir():
            shutil.rmtree(place)
        place.symlink_to(target)
        before = sorted(Path("/etc").iterdir())
        script = "echo $(id -u)"
        done = jailrun("run", "--rm", "--tmpfs", "/tmp", str(root_folder), "/bin/sh", "-c", script)
        assert sorted(Path("/etc").iterdir()) == before
        if done.returncode:
            assert done.returncode in (125, 126, 127)
            assert_clean(done.stderr)
        else:
            assert done.stdout == "0\n"

    def test_passwd_is_a_link_to_the_hosts(self, root_folder: Path) -> None:
        passwd = root_folder / "etc" / "passwd"
        passwd.unlink()
        passwd.symlink_to("/../../../../../../../../etc/passwd")
        done = jailrun("run", "--rm", "-u", "nobody", str(root_folder), "true")
        assert_refused(done, "cannot find user 'nobody'")

    def test_passwd_is_a_fifo(self, root_folder: Path) -> None:
        passwd = root_folder / "etc" / "passwd"
        passwd.unlink()
        os.mkfifo(passwd)
        done = jailrun("run", "--rm", "-u", "nobody", str(root_folder), "true")
        assert_refused(done, "cannot find user 'nobody'")

    def test_target_of_a_volume_leads_out(self, root_folder: Path, tmp_path: Path) -> None:
        """The link is followed inside the root, never outside of it."""
        outside = tmp_path / "outside"
        source = tmp_path / "source"
        for folder in (outside, source):
            folder.mkdir()
        (source / "shown").touch()
        (root_folder / "link").symlink_to(outside)
        done = jailrun(
            "run", "--rm", "-v", f"{source}:/link/sub", str(root_folder), "ls", f"{outside}/sub"
        )
        assert list(outside.iterdir()) == []
        if done.returncode:
            assert_clean(done.stderr)
        else:
            assert done.stdout == "shown\n"


class TestFolders:
    """Folders that cannot be written."""

    def test_full_disk(self, monkeypatch: pytest.MonkeyPatch, own_folders: Path) -> None:
        """The records have no room."""
        own_folders.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(own_folders)], check=True
        )
        try:
            (own_folders / "fill").write_bytes(b"x" * 4096)
            done = jailrun("run", "--rm", "busybox", "true")
            assert done.returncode == 125
            assert_clean(done.stderr)
            assert "No space left" in done.stderr
        finally:
            subprocess.run(["umount", str(own_folders)], check=True)

    def test_read_only_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path)], check=True)
        try:
            monkeypatch.setenv("JAILRUN_RUN", f"{tmp_path}/run")
            done = jailrun("run", "--rm", "busybox", "true")
            assert_refused(done, "Read-only file system")
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    def test_read_only_root_folder(self, root_folder: Path) -> None:
        """A root that is written directly, on a file system that cannot be."""
        subprocess.run(["mount", "--bind", str(root_folder), str(root_folder)], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(root_folder)], check=True)
            done = jailrun("run", "--rm", str(root_folder), "sh", "-c", "touch /x")
            assert "Read-only file system" in done.stderr
            assert "Traceback" not in done.stderr
        finally:
            subprocess.run(["umount", str(root_folder)], check=True)


def test_interrupted_start_leaves_nothing(start: Start) -> None:
    """SIGINT at some moment of the start: the jail does not run, or is ended."""
    command = start("run", "--rm", "busybox", "sleep", "1000")
    command.process.send_signal(2)
    status, output, errors = command.end()
    assert status in (130, -2)
    assert output == ""
    assert "Traceback" not in errors


def test_second_removal(name: str) -> None:
    output_of("run", "--name", name, "busybox", "true")
    output_of("rm", name)
    assert_refused(jailrun("rm", name), f"there is no jail '{name}'")
