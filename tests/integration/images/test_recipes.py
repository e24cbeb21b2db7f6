"""The project's recipes, built from the distribution's packages."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jailrun import images
from jailrun.errors import ConflictError, ImageError, UnsupportedError
from jailrun.images import Image, archive, catalog, lookup, store, tools
from tests.integration.images.conftest import read_mounts


class Told:
    """Keep what is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.parts = 0

    def step(self, text: str) -> None:
        """Note a step."""
        self.steps.append(text)

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Count."""
        assert total is None or done <= total, unit
        self.parts += 1

    def warn(self, text: str) -> None:
        """Note a warning."""
        self.warnings.append(text)


def run_in(tree: Path, *command: str) -> str:
    """Run a command with the tree as its root."""
    done = subprocess.run(
        ["chroot", str(tree), *command],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return done.stdout


def test_busybox(data: Path) -> None:
    told = Told()
    image = images.ensure("busybox", told)
    assert told.steps[0] == "fetch 1 package"
    assert told.steps[-1].startswith("built busybox in")
    assert images.resolve("busybox").layers == image.layers
    assert image.config["cmd"] == ["sh"]
    tree = Path(image.layers[0])
    assert "uid=0(root) gid=0(root)" in run_in(tree, "sh", "-c", "id")
    assert run_in(tree, "sh", "-c", "ls /bin | wc -l").strip() > "50"
    for name in ("sh", "id", "hostname", "ps", "mount", "cat", "true"):
        assert run_in(tree, "which", name)
    assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((tree / "etc/shadow").stat().st_mode) == 0o640
    assert "nobody:x:65534" in (tree / "etc/passwd").read_text()
    assert list((data / "images/tmp").iterdir()) == []


def test_busybox_again_is_the_same(data: Path) -> None:
    first = images.build("busybox")
    umask = os.umask(0o077)
    try:
        second = images.build("busybox")
    finally:
        os.umask(umask)
    assert first.digest == second.digest
    assert len(list((data / "images/layers").iterdir())) == 1


def test_two_builds_at_once_are_one(data: Path) -> None:
    code = "from jailrun import images; print(images.ensure('busybox').digest)"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    digests = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(digests) == 1
    assert len(list((data / "images/layers").iterdir())) == 1
    assert list((data / "images/tmp").iterdir()) == []


def test_without_lists_of_its_own_the_host_is_no_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh container of the distribution has apt's sources and no lists."""
    config = tmp_path / "apt.conf"
    (tmp_path / "lists/partial").mkdir(parents=True)
    config.write_text(f'Dir::State::lists "{tmp_path}/lists"; Dir::Cache::pkgcache "";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    told = Told()
    images.ensure("busybox", told)
    assert "fetch the list of packages" in told.steps


def test_a_package_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes/mine"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(
        '[build]\nbase = "scratch"\npackages = ["jailrun-no-such-package"]\n'
    )
    monkeypatch.setenv("JAILRUN_RECIPES", str(tmp_path / "recipes"))
    with pytest.raises(ImageError, match="jailrun-no-such-package") as caught:
        images.ensure("mine")
    assert "\n" not in str(caught.value)


def test_a_tool_that_no_package_manager_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_tool", lambda _command: None)
    with pytest.raises(UnsupportedError, match="no apt-get") as caught:
        images.ensure("busybox")
    assert caught.value.hint is not None


def test_a_failing_tool_is_named_with_what_it_said() -> None:
    with pytest.raises(ImageError, match=r"cannot try: sh failed with exit status 3: oh; no"):
        tools.run_tool(["sh", "-c", "echo oh; echo no >&2; exit 3"], what="try")
    with pytest.raises(ImageError, match="signal 9"):
        tools.run_tool(["sh", "-c", "kill -9 $$"], what="try")
    with pytest.raises(ImageError, match="failed with exit status 127"):
        tools.run_tool(["/nowhere"], what="try")


def test_what_an_isolated_tool_mounts_and_starts_goes_with_it(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    script = f"mount -t tmpfs none {tmp_path}; touch {tmp_path}/in; sleep 1000 & ls {tmp_path}"
    printed = tools.run_tool(
        ["sh", "-c", script + " >/dev/null; exec >&- 2>&-"],
        what="try",
        isolate=True,
        keep_open=[write_end],
    )
    os.close(write_end)
    assert os.read(read_end, 1) == b""  # the last process that held it is gone
    os.close(read_end)
    assert printed == ""
    assert read_mounts(tmp_path) == []
    assert list(tmp_path.glob("in")) == []


def test_debian(debian: Image, session_data: Path) -> None:
    tree = Path(debian.layers[0])
    assert debian.config["cmd"] == ["bash"]
    assert run_in(tree, "bash", "-c", "echo $BASH_VERSION")
    assert run_in(tree, "dpkg", "--audit") == ""
    assert "ID=debian" in (tree / "etc/os-release").read_text()
    sources = (tree / "etc/apt/sources.list").read_text()
    assert {line.split()[1].split("/")[2] for line in sources.splitlines()} == {"deb.debian.org"}
    assert list((tree / "etc/apt/sources.list.d").iterdir()) == []
    assert list((tree / "etc/apt/auth.conf.d").iterdir()) == []
    for name in ("etc/hostname", "etc/resolv.conf", "etc/machine-id"):
        assert (tree / name).read_bytes() == b""
    for name in ("dev", "run", "tmp", "proc", "var/lib/apt/lists", "var/cache/apt"):
        assert list((tree / name).iterdir()) == []
    assert list((session_data / "images/tmp").iterdir()) == []
    assert read_mounts(session_data) == []


def test_an_exported_image_comes_back_as_the_same(debian: Image, tmp_path: Path) -> None:
    tree, path = debian.layers[0], tmp_path / "debian.tar"
    subprocess.run(["tar", "--xattrs", "--numeric-owner", "-cf", path, "-C", tree, "."], check=True)
    image = images.import_tar(path, "copy")
    assert Path(image.layers[0]).parent.name == Path(tree).parent.name
    zst = tmp_path / "debian.tar.zst"
    subprocess.run(["zstd", "-q", "-1", path, "-o", zst], check=True)
    path.unlink()
    assert images.ensure(str(zst)).layers == image.layers
    with zst.open("r+b") as file:
        file.truncate(zst.stat().st_size - 100)
    with pytest.raises(ImageError, match="damaged or truncated"):
        images.ensure(str(zst))


def test_removal_of_a_built_image(data: Path) -> None:
    image = images.ensure("busybox")
    with pytest.raises(ConflictError):
        images.remove("busybox", lambda: set(image.layers))
    images.remove("busybox", set)
    assert catalog.disk_usage().total_bytes < 200_000
    assert list((data / "images/layers").iterdir()) == []
    assert images.ensure("busybox").digest == image.digest


def mount_tmpfs(target: Path, options: str) -> None:
    """Mount a tmpfs."""
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", target], check=True)


def test_a_full_disk(tmp_path: Path, data: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(3 << 20))
    path = tmp_path / "a.tar"
    subprocess.run(["tar", "-cf", path, "-C", source, "."], check=True)
    mount_tmpfs(data, "size=2m,mode=711")
    try:
        with pytest.raises(ImageError, match="more than 1 MiB"):
            images.import_tar(path, "test")
        with pytest.raises(ImageError, match="No space left on device"):
            images.import_tar(path, "test", limits=archive.Limits(1 << 30, 1000))
        assert list((data / "images/tmp").iterdir()) == []
        assert list((data / "images/layers").iterdir()) == []
    finally:
        subprocess.run(["umount", data], check=True)


def test_a_read_only_store(data: Path) -> None:
    mount_tmpfs(data, "size=1m,ro")
    try:
        with pytest.raises(ImageError, match="Read-only file system") as caught:
            images.ensure("busybox")
        assert "JAILRUN_DATA" in (caught.value.hint or "")
        with pytest.raises(lookup.MissingImageError):
            images.resolve("busybox")
    finally:
        subprocess.run(["umount", data], check=True)


def test_the_store_is_not_for_everyone_to_see(data: Path) -> None:
    with store.workspace():
        assert stat.S_IMODE((data / "images/layers").stat().st_mode) == 0o711
