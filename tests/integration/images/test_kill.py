"""SIGKILL in the middle: the next command finds the old state or the new, and no remains."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jailrun import images
from jailrun.images import Image, store
from tests.integration.images.conftest import read_mounts
from tests.unit.images.make import SMALL, Member, write_archive

# Runs a call on images and dies just before the n-th change to the file system that it makes.
DIE_AT_CHANGE = """
import os, signal, sys
from jailrun import images
from jailrun.images import archive, builder, catalog, debootstrap, store
left = int(sys.argv[1])
KINDS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "fcntl.flock",
         "os.chmod", "os.utime", "subprocess.Popen"}
def watch(event, arguments):
    global left
    if event in KINDS:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
"""
# Dies at the n-th call of its progress.
DIE_AT_PROGRESS = """
import os, signal, sys
from jailrun import images
left = int(sys.argv[1])
class Deadly:
    def step(self, *arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    advance = warn = step
"""


def run(code: str, count: int) -> int:
    """Run ``code`` in an interpreter of its own; return its exit status."""
    return subprocess.run([sys.executable, "-c", code, str(count)], check=False).returncode


def check_converged(data: Path, image: Image, layers: int = 1) -> None:
    """Check that the store holds the image, and nothing but finished work."""
    root = data / "images"
    assert images.resolve("test").digest == image.digest
    assert list((root / "tmp").iterdir()) == []
    assert len(list((root / "layers").iterdir())) == layers
    assert len(list((root / "manifests").iterdir())) == layers


def test_an_import_killed_at_any_change(data: Path, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar")
    expected = images.import_tar(path, "test")
    images.remove("test", set)
    code = DIE_AT_CHANGE + f"images.import_tar({str(path)!r}, 'test')"
    count = 1
    while (status := run(code, count)) != 0:
        assert status == -signal.SIGKILL
        try:
            before = images.resolve("test").digest
        except images.MissingImageError:
            before = expected.digest
        assert before == expected.digest
        image = images.import_tar(path, "test")
        assert image.digest == expected.digest
        check_converged(data, image)
        images.remove("test", set)
        images.prune(set)
        count += 1
    assert count > 40


def test_a_removal_killed_at_any_change(data: Path, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar")
    code = DIE_AT_CHANGE + "images.remove('test', set)"
    expected = images.import_tar(path, "test")
    count = 1
    while (status := run(code, count)) != 0:
        assert status == -signal.SIGKILL
        images.prune(set)
        image = images.import_tar(path, "test")
        assert image.digest == expected.digest
        check_converged(data, image)
        count += 1
    assert count > 5
    assert list((data / "images/layers").iterdir()) == []


def test_a_replacement_killed_at_any_change_is_old_or_new(data: Path, tmp_path: Path) -> None:
    old = write_archive(tmp_path / "old.tar")
    new = write_archive(tmp_path / "new.tar", [*SMALL, Member("new")])
    digests = {images.import_tar(path, "test").digest for path in (new, old)}
    code = DIE_AT_CHANGE + f"images.import_tar({str(new)!r}, 'test')"
    count = 30  # the steps before these are those of any import
    while run(code, count) != 0:
        assert images.resolve("test").digest in digests
        images.import_tar(old, "test")
        count += 1
    assert list((data / "images/tmp").iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_build_killed_at_each_step(data: Path, count: int) -> None:
    code = DIE_AT_PROGRESS + "images.build('busybox', Deadly())"
    assert run(code, count) == -signal.SIGKILL
    with pytest.raises(images.MissingImageError):
        images.resolve("busybox")
    images.ensure("busybox")
    assert list((data / "images/tmp").iterdir()) == []
    assert len(list((data / "images/layers").iterdir())) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_interrupted_build_leaves_nothing(data: Path, count: int) -> None:
    class Impatient:
        """Is interrupted at the n-th call, as by Ctrl-C."""

        left = count

        def step(self, *_: object) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        advance = warn = step

    with pytest.raises(KeyboardInterrupt):
        images.ensure("busybox", Impatient())
    assert list((data / "images/tmp").iterdir()) == []
    assert list((data / "images/layers").iterdir()) == []
    images.ensure("busybox")


def wait_for_tools(space: Path) -> None:
    """Wait until the last process that works in a workspace is gone; each holds its lock."""
    descriptor = os.open(space / "tools.lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


def test_debootstrap_killed_while_it_installs(data: Path) -> None:
    code = DIE_AT_PROGRESS + "images.build('debian', Deadly())"
    assert run(code, 250) == -signal.SIGKILL
    (space,) = (data / "images/tmp").iterdir()
    assert (space / "tree/debootstrap").is_dir()
    wait_for_tools(space)
    assert read_mounts(data) == []
    with store.workspace() as other:
        assert list((data / "images/tmp").iterdir()) == [other.path]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert str(data) not in str((process / "root").readlink())
        except OSError:
            continue
