"""The options of ``jailrun run``, each seen from inside the jail.

Out of scope: limits at work (tests/integration/cgroups), rights one by one
(tests/integration/security).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.cli.command import assert_refused, jailrun, output_of


def inside(*words: str) -> str:
    """Return what a command line prints that ends with a script for sh."""
    *options, script = words
    return output_of("run", "--rm", *options, "busybox", "sh", "-c", script)


class TestProcess:
    """Environment, user, folder, names."""

    def test_environment(self, tmp_path: Path) -> None:
        file = tmp_path / "env"
        file.write_text("A=file\nB=file\nTOLD\n")
        done = jailrun(
            *(
                "run",
                "--rm",
                "--env-file",
                str(file),
                "-e",
                "A=option",
                "-e",
                "ALONE",
                "-e",
                "NONE",
            ),
            *("busybox", "sh", "-c", "echo $A $B $TOLD $ALONE ${NONE-unset}"),
            env={"TOLD": "told", "ALONE": "alone"},
        )
        assert done.stdout == "option file told alone unset\n"

    def test_the_callers_environment_stays_outside(self) -> None:
        done = jailrun("run", "--rm", "busybox", "env", env={"SECRET": "x"})
        assert "SECRET" not in done.stdout

    @pytest.mark.parametrize(
        ("user", "seen"),
        [
            ("nobody", "65534 65534"),
            ("65534:10", "65534 10"),
            ("1000", "1000 0"),
            ("root:wheel", "0 10"),
        ],
    )
    def test_user(self, user: str, seen: str) -> None:
        assert inside("-u", user, "echo $(id -u) $(id -g)") == f"{seen}\n"

    def test_more_groups(self) -> None:
        assert (
            inside("-u", "1000", "--group-add", "wheel", "--group-add", "77", "id -G")
            == "0 10 77\n"
        )

    def test_user_has_no_rights_of_root(self) -> None:
        assert inside("-u", "nobody", "grep CapEff /proc/self/status").split()[1] == "0" * 16

    def test_workdir_is_made(self) -> None:
        assert inside("-w", "/a/b", "pwd") == "/a/b\n"

    def test_names(self) -> None:
        seen = inside(
            "--hostname", "box", "--domainname", "yard", "hostname; cat /proc/sys/kernel/domainname"
        )
        assert seen == "box\nyard\n"

    def test_entrypoint(self) -> None:
        assert output_of("run", "--rm", "--entrypoint", "/bin/echo", "busybox", "a", "b") == "a b\n"

    def test_time_offset(self) -> None:
        seen = inside("--time-offset", "boottime=30d", "cut -d. -f1 /proc/uptime")
        assert int(seen) >= 30 * 86400

    def test_processes_of_the_host(self) -> None:
        assert inside("--pid", "host", "echo $$") != "1\n"

    def test_namespace_by_path(self) -> None:
        """That it keeps its host name is seen by who compares the host before and after."""
        own = Path("/proc/self/ns/uts").readlink()
        options = ("--userns", "host", "--uts", f"/proc/{os.getpid()}/ns/uts")
        assert inside(*options, "readlink /proc/self/ns/uts") == f"{own}\n"


class TestFiles:
    """Volumes, tmpfs, the root."""

    def test_volume(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        (tmp_path / "file").write_text("host\n")
        assert inside(
            "-v", f"{tmp_path}:/data:ro", "cat /data/file; touch /data/x 2>&1 || true"
        ) == ("host\ntouch: /data/x: Read-only file system\n")

    def test_volume_with_mapped_ids(self, tmp_path: Path) -> None:
        assert (
            inside("-v", f"{tmp_path}:/data:idmap", "touch /data/x; stat -c %u /data /data/x")
            == "0\n0\n"
        )
        assert (tmp_path / "x").stat().st_uid == 0

    def test_volume_without_mapped_ids(self, tmp_path: Path) -> None:
        """The jail's ids are nobody's on the host: it may do what others may."""
        tmp_path.chmod(0o755)
        assert inside(
            "-v", f"{tmp_path}:/data", "stat -c %u /data; touch /data/x 2>&1 || true"
        ) == ("65534\ntouch: /data/x: Permission denied\n")

    def test_volume_from_the_current_folder(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "here").touch()
        done = jailrun("run", "--rm", "-v", "./sub:/data", "busybox", "ls", "/data", cwd=tmp_path)
        assert done.stdout == "here\n"

    def test_volume_of_one_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("host\n")
        assert inside("-v", f"{tmp_path}/file:/etc/motd:ro", "cat /etc/motd") == "host\n"

    def test_set_id_programs_of_a_volume_have_no_effect(self, tmp_path: Path) -> None:
        assert "nosuid" in inside("-v", f"{tmp_path}:/data", "grep ' /data ' /proc/mounts")

    def test_tmpfs(self) -> None:
        script = "grep ' /t ' /proc/mounts; df -k /t | tail -n 1; stat -c %a /t"
        mount, size, mode = inside("--tmpfs", "/t:size=1m,mode=700", script).splitlines()
        assert mount.startswith("tmpfs /t tmpfs rw,nosuid,nodev,noexec")
        assert size.split()[1] == "1024"
        assert mode == "700"

    def test_read_only(self) -> None:
        script = "touch /x 2>&1; echo x > /dev/shm/x && echo y > /tmp/y; cat /dev/shm/x /tmp/y"
        seen = inside("--read-only", "--tmpfs", "/tmp", script)
        assert seen == "touch: /x: Read-only file system\nx\ny\n"

    def test_the_image_is_not_written(self) -> None:
        assert inside("touch /x; ls /x") == "/x\n"
        assert inside("ls /x 2>&1 || true").startswith("ls: /x: No such file")

    def test_folder_as_root(self, root_folder: Path) -> None:
        (root_folder / "here").touch()
        assert output_of("run", "--rm", str(root_folder), "ls", "/here") == "/here\n"

    @pytest.mark.skipif(not Path("/dev/fuse").is_char_device(), reason="no /dev/fuse on this host")
    def test_device(self) -> None:
        script = "test -c /dev/fuse && stat -c %t:%T /dev/fuse"
        assert inside("--device", "/dev/fuse", script) == "a:e5\n"

    def test_device_opens(self) -> None:
        """It may be used by those who may use the host's."""
        script = "rm -f /dev/full 2>/dev/null; echo x > /dev/full"
        done = jailrun("run", "--rm", "--device", "/dev/full", "busybox", "sh", "-c", script)
        assert "No space left" in done.stderr

    def test_device_under_another_name(self) -> None:
        done = jailrun("run", "--rm", "--device", "/dev/zero:/dev/nothing", "busybox", "true")
        assert done.returncode in (0, 125)
        assert "Traceback" not in done.stderr

    def test_shm_size(self) -> None:
        assert inside("--shm-size", "1m", "df -k /dev/shm | tail -n 1").split()[1] == "1024"


class TestLimits:
    """That a limit is set; what it does is tested elsewhere."""

    def test_ulimit(self) -> None:
        assert inside("--ulimit", "nofile=100:200", "ulimit -Sn; ulimit -Hn") == "100\n200\n"

    def test_sysctl(self) -> None:
        seen = inside(
            "--sysctl", "net.ipv4.ip_default_ttl=7", "cat /proc/sys/net/ipv4/ip_default_ttl"
        )
        assert seen == "7\n"

    def test_memory(self) -> None:
        files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"  # v1, v2
        script = f"cat {files} 2>/dev/null || true"
        assert inside("--memory", "64M", script) == f"{64 << 20}\n"

    def test_oom_score(self) -> None:
        assert inside("--oom-score-adj", "500", "cat /proc/self/oom_score_adj") == "500\n"


class TestRights:
    """Capabilities and fences."""

    def mask(self, *options: str) -> int:
        """Return the effective capabilities."""
        return int(inside(*options, "grep CapEff /proc/self/status").split()[1], 16)

    def test_capabilities(self) -> None:
        default = self.mask()
        assert self.mask("--cap-add", "SYS_ADMIN") == default | 1 << 21
        assert self.mask("--cap-drop", "CHOWN") == default & ~1
        assert self.mask("--cap-drop", "all") == 0
        assert self.mask("--cap-drop", "ALL", "--cap-add", "CAP_KILL") == 1 << 5

    def test_allow(self) -> None:
        script = "mount -t tmpfs none /mnt 2>/dev/null && echo mounted || echo refused"
        assert inside(script) == "refused\n"
        assert inside("--allow", "mount", script) == "mounted\n"

    def test_seccomp_unconfined(self) -> None:
        script = "grep ^Seccomp: /proc/self/status"
        assert inside(script).split()[1] == "2"
        assert inside("--security-opt", "seccomp=unconfined", script).split()[1] == "0"

    def test_seccomp_profile(self, tmp_path: Path) -> None:
        profile = tmp_path / "profile.json"
        profile.write_text(
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": '
            '[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100}]}'
        )
        seen = inside("--security-opt", f"seccomp={profile}", "mkdir /x 2>&1 || true")
        assert seen.startswith("mkdir: can't create directory '/x': Network is down")

    def test_privileged(self) -> None:
        script = "grep CapEff /proc/self/status; grep ^Seccomp: /proc/self/status; id -u"
        capabilities, seccomp, user = inside("--privileged", script).splitlines()
        assert bin(int(capabilities.split()[1], 16)).count("1") > 35
        assert seccomp.split()[1] == "0"
        assert user == "0"

    def test_privileged_is_not_root_of_the_host(self) -> None:
        """Its namespaces are its own all the same."""
        assert inside("--privileged", "cat /proc/self/uid_map").split()[1] != "0"

    def test_no_new_privileges(self) -> None:
        script = "grep NoNewPrivs /proc/self/status"
        assert inside(script).split()[1] == "1"
        assert inside("--security-opt", "no-new-privileges=false", script).split()[1] == "0"

    def test_own_network_is_up(self) -> None:
        assert "UP" in inside("ip -o link show lo")
        assert_refused(
            jailrun("run", "--rm", "--net", "bridge", "busybox", "true"),
            "there is no network 'bridge'",
        )

    def test_default_devices(self) -> None:
        names = inside("ls /dev").split()
        assert {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd"} <= set(
            names
        )
        assert not [name for name in names if name.startswith(("sd", "vd", "loop", "mem", "kmsg"))]
