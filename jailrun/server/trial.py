"""What this host can do, found out by doing it: the probes of ``jailrun check``.

Owns: making a child in a namespace, id-mapping a folder, one whole jail on a folder of its own.
Each leaves nothing behind.  Out of scope: what the results mean (`jailrun.server.check`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from jailrun import paths
from jailrun.engine import lifecycle
from jailrun.engine.launch import Request, launch
from jailrun.engine.monitor import MONITOR
from jailrun.engine.payload import Streams
from jailrun.engine.record import load
from jailrun.errors import JailError
from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution, reap
from jailrun.kernel.operation import OperationError
from jailrun.kernel.program import Program, Text
from jailrun.security.ids import FIRST_ID
from jailrun.spec.default import USER_RANGE, default_config

SECONDS = 30.0
MAP = f"0 {FIRST_ID} {USER_RANGE}\n".encode()


def try_namespace(flag: int) -> None:
    """Make a child in a new namespace of one kind; raise OSError where the kernel refuses."""
    program = Program()
    program.clone_flags = flag
    program.child.wait_for_caller()
    execution = Execution(program)
    try:
        # A child with a shared memory cannot be in another time namespace.
        execution.spawn(share_memory=False)
        execution.wait(SECONDS)
    finally:
        execution.abandon()


def try_idmap(folder: str) -> None:
    """Map the ids of a mount of a folder to a user namespace; raise OSError where that fails."""
    program = Program()
    program.clone_flags = c.CLONE_NEWUSER
    tree = program.before.open_tree(c.AT_FDCWD, folder, c.OPEN_TREE_CLONE, what="open")
    program.child.wait_for_caller()
    attach = program.attach
    attach.write_file(Text("/proc/%/uid_map", program.pid), MAP, what="map user ids by")
    attach.write_file(Text("/proc/%/gid_map", program.pid), MAP, what="map group ids by")
    user = attach.open(
        Text("/proc/%/ns/user", program.pid), os.O_RDONLY, what="open the user namespace"
    )
    attach.mount_setattr(
        tree, attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=user, what="map the ids of", object=folder
    )
    attach.close(user)
    execution = Execution(program)
    try:
        execution.run_before()
        execution.spawn()
        execution.wait(SECONDS)
        execution.run_attach()
    finally:
        execution.abandon()
        execution.close_opened()


def make_data_folder(undo: ExitStack) -> Path:
    """Return an empty folder in the data folder; ``undo`` removes what was made for it."""
    data = Path(paths.data_dir())
    missing = [folder for folder in (data, *data.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o711)
        undo.callback(_remove_if_empty, folder)
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=data))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def try_jail(layer: Path) -> None:
    """Run one whole jail, with all that it has by default; raise JailError or OSError.

    Its root is ``layer``, an empty folder, and what it writes goes beside that.  Its only program
    is our own small init, told to idle until its input ends, which it has.
    """
    program = layer / "init"
    shutil.copyfile(MONITOR, program)
    program.chmod(0o755)
    config = default_config()
    config["process"]["args"] = ["/init", "--idle", "0"]
    config["jailrun"]["layers"] = [str(layer)]
    name = f"check-{os.urandom(5).hex()}"
    with ExitStack() as undo:
        # So that all that the engine keeps for later vanishes with the layer's own folder.
        undo.callback(_set_data_dir, os.environ.get("JAILRUN_DATA"))
        _set_data_dir(str(layer.parent))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, null)
        request = Request(name, streams=Streams((null, null, null)), attached=True, remove=True)
        execution = launch(config, request)
        alive = load(name).hold()
        status = reap(execution.pidfd)
        lifecycle.finish(name, 128 - status if status < 0 else status, alive_fd=alive)
    if status:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise JailError(f"a jail was started and ended with {how}")


def _set_data_dir(path: str | None) -> None:
    if path is None:
        del os.environ["JAILRUN_DATA"]
    else:
        os.environ["JAILRUN_DATA"] = path


def explain_failure(error: OSError) -> str:
    """Return in words why a probe failed."""
    if isinstance(error, OperationError):
        return str(error)
    return error.strerror or str(error)
