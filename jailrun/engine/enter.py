"""One more process in a jail that runs: in all its namespaces, all its cgroups, under its rules.

Owns: `enter`.  Out of scope: the last steps before the exec, which are those of a start
(`jailrun.engine.payload`).

The child joins the cgroups while it is still root of the host, then the namespaces of the jail's
init in one call; who joins a pid namespace is not in it, so the rest goes on in a child of the
caller that is.  That process shares no memory with what runs inside, and nobody inside may trace
it: it stays undumpable until its exec.
"""

from __future__ import annotations

import os

from jailrun import rootfs
from jailrun.cgroups import plan as cgroup_plan
from jailrun.engine import payload
from jailrun.engine.launch import DEADLINE_SECONDS
from jailrun.engine.lifecycle import open_init
from jailrun.engine.network import check_rights
from jailrun.engine.prepare import can_raise_limits, owned_ids
from jailrun.engine.record import Lock
from jailrun.engine.state import PAUSED, RUNNING, read_status
from jailrun.engine.translate import translate
from jailrun.errors import ConflictError
from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution
from jailrun.kernel.program import Program
from jailrun.namespaces import differing, plan_become_root, plan_enter
from jailrun.security.ids import check_mapped
from jailrun.security.limits import check_rlimits, read_host_limits
from jailrun.security.plan import read_facts
from jailrun.spec.check import check_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.spec.model import Config, Process


def enter(
    name: str,
    process: object,
    *,
    streams: payload.Streams | None = None,
    console_fd: int | None = None,
    attached: bool = False,
    ignore_paused: bool = False,
) -> Execution:
    """Start ``process`` (OCI) in a running jail; return its execution, to be reaped by the caller.

    Raises JailError and its subclasses: ConflictError where the jail does not run.
    """
    streams = streams or payload.Streams()
    try:
        return _enter(
            name,
            check_process(process),
            streams,
            console_fd,
            attached=attached,
            ignore_paused=ignore_paused,
        )
    finally:
        streams.close()


def _enter(
    name: str,
    checked: Process,
    streams: payload.Streams,
    console_fd: int | None,
    *,
    attached: bool,
    ignore_paused: bool,
) -> Execution:
    with Lock(name) as record:  # it waits for the end of a start
        status = read_status(record)
    if status != RUNNING and not (status == PAUSED and ignore_paused):
        hint = f"resume it first: jailrun resume {name}" if status == PAUSED else None
        raise ConflictError(f"cannot execute in jail {name}: it is {status}", hint=hint)
    config: Config = {**record.read_config(), "process": checked}
    if checked.get("rlimits"):
        check_rlimits(checked["rlimits"], read_host_limits(), can_raise=can_raise_limits())
    kinds = {namespace["type"] for namespace in config.get("linux", {}).get("namespaces", [])}
    if "user" in kinds:
        check_mapped(checked, config["linux"])
    check_rights(record, config)
    pidfd = open_init(record)
    try:
        program = Program()
        program.keep(pidfd)
        cgroup = cgroup_plan.plan_join(program, record.cgroups).cgroup_fd
        kinds_to_join = differing(record.pid)
        _plan(
            config, checked, program, streams, pidfd, kinds_to_join, console_fd, attached=attached
        )
        execution = Execution(program)
        # A process with a shared memory cannot join a time namespace.
        shares = not (kinds_to_join & c.CLONE_NEWTIME or payload.sets_oom_score(config))
        try:
            execution.run_before()
            execution.spawn(cgroup=cgroup, share_memory=shares)
            execution.wait(DEADLINE_SECONDS)
            execution.run_attach()
            execution.go()
            execution.wait(DEADLINE_SECONDS)
        except OSError as error:
            execution.abandon()
            raise translate(error, execution.notes) from error
        except BaseException:
            execution.abandon()
            raise
        finally:
            execution.close_opened()
    finally:
        os.close(pidfd)
    return execution


def _plan(
    config: Config,
    process: Process,
    program: Program,
    streams: payload.Streams,
    pidfd: int,
    kinds: int,
    console_fd: int | None,
    *,
    attached: bool,
) -> None:
    child = program.child
    child.prctl(c.PR_SET_DUMPABLE, 0, what="keep the jail from tracing us")
    plan_enter(program, pidfd, kinds)
    program.enter("engine")
    child.wait_for_caller("wait for the limits")
    if kinds & c.CLONE_NEWUSER:
        plan_become_root(program)
    terminal = None
    if process.get("terminal") and console_fd is not None:
        root = child.open("/", c.O_PATH | c.O_DIRECTORY, what="open the root")
        terminal = rootfs.plan_terminal(config, program, root, console_fd)
        child.close(root)
        program.keep(console_fd)
    payload.plan_streams(program, streams, terminal)
    payload.plan_ownership(program, streams, owned_ids(config))
    payload.plan_payload(
        config, program, read_facts(config), extra=len(streams.extra), die_with_caller=attached
    )
