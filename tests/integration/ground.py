"""The ground that every test with real jails stands on; see conftest.py here and in tests/faults.

Owns: folders of our own, the busybox image, the comparison of the host before and after a test,
and what ``requires`` means.  Out of scope: starting jails (``jails``).

The session is apart from the machine (``place``), so that the default network, which a first
``jailrun run`` makes and which then stays, is made once for all tests.  The folder of the networks'
state is one for the session, though that of the records is a new one for each test.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun import images
from jailrun.images import Image
from tests.integration.features import why_not
from tests.integration.host import adopt_orphans, find_leftovers, read_host
from tests.integration.jails import (
    Build,
    Config,
    Jails,
    MakeRoot,
    Probe,
    Reports,
    build_config,
    mount_probe,
)
from tests.integration.place import leave_the_host, network_of_the_machine
from tests.probes.probe import build_probe, parse_probe

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path("/var/cache/jailrun-tests")
COUNT = itertools.count()
DEADLINE_SECONDS = 100


# --- what this host must be able to do -----------------------------------------------------------
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose marker names what this host cannot do."""
    features = ["root"]
    for marker in item.iter_markers("requires"):
        features += marker.args
    for feature in features:
        reason = why_not(feature)
        if reason:
            pytest.skip(f"{feature}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Make a skip a failure where everything must work, as in CI."""
    report = yield
    if report.skipped and os.environ.get("JAILRUN_MUST_WORK") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"JAILRUN_MUST_WORK=1, and this test was skipped: {reason}"
    return report


# --- folders and images --------------------------------------------------------------------------
@pytest.fixture(scope="session", autouse=True)
def own_place() -> None:
    """Leave the host's mounts and network, and adopt whatever our processes leave behind."""
    if os.geteuid():
        return
    leave_the_host()
    adopt_orphans()


def hash_recipe() -> str:
    """Return what the busybox image depends on, as a name for it."""
    text = hashlib.sha256()
    for folder in (ROOT / "images" / "busybox", ROOT / "jailrun" / "images"):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                text.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return text.hexdigest()[:16]


def remove_tree(path: Path) -> None:
    """Remove a folder of ours, and never what is mounted in it."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{path}/"):
            subprocess.run(["umount", "--lazy", line.split()[4]], check=False, capture_output=True)
    shutil.rmtree(path, ignore_errors=True)


def remove_stale() -> None:
    """Remove what sessions that were killed have left."""
    for top in ("/var/tmp", "/run"):
        for folder in Path(top).glob("jailrun-tests-*"):
            if not Path(f"/proc/{folder.name.rpartition('-')[2]}").is_dir():
                remove_tree(folder)


@pytest.fixture(scope="session")
def session_data(own_place: None) -> Iterator[Path]:
    """Return the JAILRUN_DATA of the session, with the busybox image in it."""
    cached = CACHE / hash_recipe()
    data = Path(f"/var/tmp/jailrun-tests-{os.getpid()}")
    remove_stale()
    remove_tree(data)
    before = os.environ.get("JAILRUN_DATA")
    os.environ["JAILRUN_DATA"] = str(data)
    try:
        if cached.is_dir():
            shutil.copytree(cached, data / "images", symlinks=True)
        with network_of_the_machine():
            images.ensure("busybox")
        if not cached.is_dir():
            unfinished = CACHE / f"{cached.name}.{os.getpid()}"
            shutil.copytree(data / "images", unfinished, symlinks=True)
            try:
                unfinished.rename(cached)
            except OSError:  # another session was faster
                shutil.rmtree(unfinished)
        yield data
    finally:
        remove_tree(data)
        if before is None:
            del os.environ["JAILRUN_DATA"]
        else:
            os.environ["JAILRUN_DATA"] = before


@pytest.fixture(scope="session")
def session_run() -> Iterator[Path]:
    """Return the folder of the tests' JAILRUN_RUN folders."""
    run = Path(f"/run/jailrun-tests-{os.getpid()}")
    run.mkdir(mode=0o711, exist_ok=True)
    yield run
    remove_tree(run)


@pytest.fixture(scope="session")
def session_networks(session_data: Path, session_run: Path) -> Path:
    """Return the folder of the networks' state, after a first run has made the default one."""
    run = session_run / "first"
    words = [str(ROOT / "bin" / "jailrun"), "run", "--rm", "busybox", "true"]
    environment = {**os.environ, "JAILRUN_RUN": str(run)}
    subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, check=True)
    return run / "networks"


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """End a test that waits for ever."""

    def stop(_number: int, _frame: object) -> None:
        pytest.fail(f"no end after {DEADLINE_SECONDS} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture(autouse=True)
def own_folders(
    session_data: Path,
    session_run: Path,
    session_networks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """Give each test a store that is shared and records of its own; return the folder of these."""
    run = session_run / str(next(COUNT))
    run.mkdir(mode=0o711)
    (run / "networks").symlink_to(session_networks)
    monkeypatch.setenv("JAILRUN_DATA", str(session_data))
    monkeypatch.setenv("JAILRUN_RUN", str(run))
    for name in ("JAILRUN_RECIPES", "JAILRUN_EXECUTOR", "NOTIFY_SOCKET", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)
    yield run
    remove_tree(run)


@pytest.fixture(autouse=True)
def leaves_host_as_it_was(own_folders: Path) -> Iterator[None]:
    """Compare the host before and after the test."""
    before = read_host()
    yield
    left = find_leftovers(before)
    if left:
        pytest.fail("\n".join(["the host is not as it was before:", *left]), pytrace=False)


@pytest.fixture
def busybox(session_data: Path) -> Image:
    """Return the busybox image."""
    return images.resolve("busybox")


@pytest.fixture(scope="session")
def probe_program(session_data: Path) -> Path:
    """Return the probe, built once; where it lies, a jail's ids may read it."""
    folder = session_data / "probe"
    folder.mkdir(mode=0o755, exist_ok=True)
    session_data.chmod(0o755)
    return build_probe(folder)


# --- jails ----------------------------------------------------------------------------------------
@pytest.fixture
def config(busybox: Image) -> Build:
    """Return the builder of a safe jail's config on busybox; see `build_config`."""

    def build(*args: str, **changes: Any) -> Config:
        changes.setdefault("layers", list(busybox.layers))
        return build_config(*args, **changes)

    return build


@pytest.fixture
def jails(leaves_host_as_it_was: None) -> Iterator[Jails]:
    """Return what starts jails, and removes those that a failed test has left."""
    started = Jails()
    yield started
    started.clear()


@pytest.fixture
def make_root(busybox: Image, tmp_path: Path) -> MakeRoot:
    """Return what makes a plain folder with busybox in it, owned by ``owner``."""

    def make(name: str = "", *, owner: int = 0) -> Path:
        root = tmp_path / (name or f"root-{next(COUNT)}")
        shutil.copytree(busybox.layers[0], root, symlinks=True)
        if owner:
            for folder, folders, files in os.walk(root):
                for entry in (folder, *(f"{folder}/{one}" for one in folders + files)):
                    os.chown(entry, owner, owner, follow_symlinks=False)
        return root

    return make


@pytest.fixture
def probe(jails: Jails, config: Build, probe_program: Path) -> Probe:
    """Return what runs the probe program in a jail and returns its reports."""

    def see(*names: str, request: dict[str, Any] | None = None, **changes: Any) -> Reports:
        changes["mounts"] = [*changes.get("mounts", ()), mount_probe(probe_program)]
        ended = jails.run(config("/probe", *names, **changes), **(request or {}))
        assert (ended.status, ended.stderr) == (0, "")
        return parse_probe(ended.stdout)

    return see
