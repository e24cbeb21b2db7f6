"""Starting a jail: the whole order, on this page and nowhere else.

Owns: `launch`.  Out of scope: each step's how, which is its facility's.

The caller, before                      The child
 1 check the config                      8 join the cgroups, then namespaces of others
 2 place it: hierarchies, facts          9 (clone) make its own namespaces
 3 claim the name, write the record     10 make the cgroup namespace; say so and wait
 4 take a range of ids; addresses,      12 root of the user namespace; names, sysctls, links
   ports, the firewall's elements       13 root file system, mounts, devices, masks
 5 plan
 6 make and fill the cgroups,           14 (createContainer hooks, run by the caller)
   open what the child inherits         15 streams or terminal; pivot_root
 7 clone; write the config meanwhile     16 limits, working directory
11 write the id maps, map the layers,   17 (created: wait for the start)
   make the links, limit their rates    18 credentials, seccomp, exec
   (prestart, createRuntime hooks)
19 write the record: it runs

The pid is in the record only once the jail runs: until then the child ends when its caller does,
and its cgroup, which is in the record, holds it.

Why in this order: the record comes before what it undoes.  The cgroups are joined by the child
itself, while it has one thread, with descriptors of the caller's; its cgroup namespace is rooted
where it is then.  The id maps need the caller's rights and the child's namespace.  Mounts need the
ids.  Devices and masks need the host's /dev, so the root changes after them.  The filter comes
last, since it may forbid what came before.
"""

from __future__ import annotations

import os
import time

from jailrun import paths, rootfs
from jailrun.cgroups import hierarchy
from jailrun.cgroups import plan as cgroup_plan
from jailrun.engine import network, payload
from jailrun.engine.hooks import run_hooks
from jailrun.engine.identity import read_start_time
from jailrun.engine.prepare import complete, owned_ids
from jailrun.engine.record import Record, is_name, random_name
from jailrun.engine.release import release
from jailrun.engine.translate import translate
from jailrun.errors import ConflictError, JailError
from jailrun.kernel.execute import Execution
from jailrun.kernel.program import Program
from jailrun.namespaces import (
    Namespaces,
    plan_cgroup_namespace,
    plan_joins,
    plan_names,
    plan_root_ids,
    plan_split,
    plan_sysctls,
    plan_user,
)
from jailrun.rootfs.targets import plan_create, split_path
from jailrun.security.ids import FIRST_ID, allocate_range
from jailrun.security.plan import read_facts as read_security_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.cgroups.hierarchy import Hierarchies
    from jailrun.kernel.program import Slot
    from jailrun.net.definition import Definition
    from jailrun.spec.model import Config

DEADLINE_SECONDS = 120.0  # for one phase of a start: far above any, so that none waits for ever


class Request:
    """What a start needs beside the config.

    ``console_fd``: a Unix socket that takes the terminal's master (SCM_RIGHTS), where the config
    asks for a terminal.  ``attached``: the jail dies with this thread.  ``hold``: create only, the
    payload waits for `jailrun.engine.lifecycle.start`.  ``remove``: forget the jail when it has
    ended.  ``log``: a file for what it writes, made with it.
    """

    __slots__ = (
        "attached", "bundle", "console_fd", "hold", "image", "labels", "log", "log_fd", "name",
        "remove", "streams",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "",
        *,
        bundle: str = "/",
        streams: payload.Streams | None = None,
        console_fd: int | None = None,
        attached: bool = False,
        hold: bool = False,
        remove: bool = False,
        log: str | None = None,
        image: str = "",
        labels: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.bundle = bundle
        self.streams = streams or payload.Streams()
        self.console_fd = console_fd
        self.attached = attached
        self.hold = hold
        self.remove = remove
        self.log = log
        self.log_fd = -1
        self.image = image
        self.labels = labels or {}

    def open_log(self, *, terminal: bool) -> None:
        """Make the log; without a ``terminal`` it is the payload's output."""
        assert self.log  # noqa: S101 - the caller has looked
        os.makedirs(os.path.dirname(self.log), 0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self.log_fd = os.open(self.log, flags, 0o600)
        if not terminal:
            stdin = self.streams.standard[0]
            self.streams.close()
            self.streams = payload.Streams((stdin, self.log_fd, self.log_fd), owned=(self.log_fd,))


class Started(Execution):
    """A jail's execution, and its record as the start left it: others may change it since."""

    def __init__(self, program: Program, record: Record) -> None:
        super().__init__(program)
        self.record = record


class Plan:
    """A program with what its caller must know of it."""

    __slots__ = ("cgroup", "config", "hierarchies", "namespaces", "program", "record", "starting")

    def __init__(self, config: Config, record: Record, hierarchies: Hierarchies) -> None:
        self.config = config
        self.record = record
        self.hierarchies = hierarchies
        self.namespaces = Namespaces(config)
        self.program = Program()
        self.cgroup: Slot | None = None
        self.starting: list[Definition] = []  # networks whose resolver is on its way


def launch(config: object, request: Request) -> Started:
    """Start a jail; return its execution, whose ``pid`` and ``pidfd`` are those of its init.

    The caller reaps the pidfd, and has the record released when the jail has ended.  Whatever
    fails, nothing is left behind.  Raises JailError and its subclasses.
    """
    try:
        return _launch(complete(config), request)
    finally:
        request.streams.close()


def _launch(config: Config, request: Request) -> Started:
    """Steps 2 to 19."""
    name = request.name or random_name()
    if not is_name(name):
        raise JailError(
            f"{name!r} cannot be the name of a jail",
            hint="a letter or digit, then letters, digits, '_', '.' and '-', 64 at most",
        )
    hierarchies = hierarchy.read_hierarchies()
    cgroups = hierarchy.place(config, name, hierarchies)
    record = Record(name)
    try:
        cgroup_facts = cgroup_plan.read_facts(config, hierarchies, cgroups)
    except ConflictError:
        record.refuse_taken()
        raise
    record.cgroups = cgroups
    record.cgroup_parents = cgroup_plan.missing_parents(hierarchies, cgroups)
    _fill_record(record, config, request)
    record.claim()
    try:
        if config.get("jailrun", {}).get("user_range") == "auto":
            _map_ids(config, record, allocate_range(paths.run_dir(), name))
        starting = network.join(record, config)
        if request.log:
            request.open_log(terminal=request.console_fd is not None)
        if record.writable:
            os.makedirs(paths.layers_dir(), 0o711, exist_ok=True)
        rootfs.prepare_meeting_place(paths.run_dir())
        plan = make_plan(config, record, request, hierarchies, cgroup_facts)
        plan.starting = starting
        return _execute(plan, request)
    except OSError as error:
        _give_up(record)
        where = error.filename or paths.run_dir()
        raise JailError(f"cannot write {where}: {error.strerror}") from error
    except BaseException:
        _give_up(record)
        raise
    finally:
        record.unlock()


def _give_up(record: Record) -> None:
    """Release a jail whose start has an error to tell already."""
    try:
        release(record)
    except JailError:
        return  # the record stays, and with it what `recover` needs to try again


def explain(config: object, request: Request) -> list[str]:
    """Return the program that `launch` would run, as text; make nothing."""
    checked = complete(config)
    hierarchies = hierarchy.read_hierarchies()
    record = Record(request.name or "NAME")
    record.cgroups = hierarchy.place(checked, record.name, hierarchies)
    _fill_record(record, checked, request)
    if checked.get("jailrun", {}).get("user_range") == "auto":
        _map_ids(checked, record, FIRST_ID)
    facts = cgroup_plan.read_facts(checked, hierarchies, record.cgroups)
    lines = network.preview(record)
    plan = make_plan(checked, record, request, hierarchies, facts)
    return [*lines, *plan.program.explain()]


def _fill_record(record: Record, config: Config, request: Request) -> None:
    """Step 3: say what will be made before it is made."""
    record.bundle = request.bundle
    record.owner_pid = os.getpid()
    record.owner_start_time = read_start_time(record.owner_pid)
    record.attached = request.attached
    record.remove = request.remove
    record.log = request.log
    record.image = request.image
    record.labels = request.labels
    record.has_hooks = bool(config.get("hooks"))
    record.created = time.time()
    extensions = config.get("jailrun", {})
    if extensions.get("layers") and extensions.get("writable", "disk") == "disk":
        record.writable = f"{paths.layers_dir()}/{record.name}"
    network.fill_record(record, config)


def _map_ids(config: Config, record: Record, first_id: int) -> None:
    """Step 4: fill the range into the config.

    The record on disk learns of it later: the lease says whose it is.
    """
    record.first_id = first_id
    linux = config["linux"]
    for mappings in (linux.get("uidMappings", []), linux.get("gidMappings", [])):
        for mapping in mappings:
            mapping["hostID"] = first_id + mapping["containerID"]


def make_plan(
    config: Config,
    record: Record,
    request: Request,
    hierarchies: Hierarchies,
    cgroup_facts: cgroup_plan.Facts,
) -> Plan:
    """Step 5: everything that 6 to 18 do, as one program."""
    plan = Plan(config, record, hierarchies)
    program, namespaces, child = plan.program, plan.namespaces, plan.program.child
    program.clone_flags = namespaces.spawn_flags
    own = {
        kind
        for kind in ("user", "pid", "network", "ipc", "mount", "cgroup")
        if namespaces.has_own(kind)
    }
    facts = rootfs.Facts(
        own=own,
        joined=set(namespaces.joined),
        meeting_place=rootfs.meeting_place(paths.run_dir()),
        bundle=record.bundle,
        writable=record.writable,
        cgroups=record.cgroups,
        throw_away=record.remove,
    )
    rootfs.read_facts(config, facts)

    child.umask(0, what="make files with the modes that are named")
    plan.cgroup = cgroup_plan.plan(
        config, program, hierarchies, record.cgroups, cgroup_facts
    ).cgroup_fd
    network.plan_lock(program, record, plan.cgroup)
    plan_joins(config, program, namespaces)
    views = rootfs.plan_views(config, program, facts)
    plan_split(program, namespaces)
    plan_cgroup_namespace(program, namespaces)
    plan_user(config, program, namespaces)
    links = network.plan_links(program, record)
    child.wait_for_caller("wait for the id maps")
    plan_root_ids(program, namespaces)
    plan_names(config, program)
    plan_sysctls(config, program)
    network.plan_links_inside(program, record, namespaces, links)
    terminal = _plan_rootfs(plan, request, facts, views)
    _plan_payload(plan, request, terminal)
    return plan


def _plan_rootfs(
    plan: Plan, request: Request, facts: rootfs.Facts, views: dict[int, Slot]
) -> Slot | None:
    """Steps 13 to 15; return the slot of the payload's terminal, if it gets one."""
    program, config, child = plan.program, plan.config, plan.program.child
    root = rootfs.plan_root(config, program, facts)
    rootfs.plan_mounts(config, program, root, facts, views)
    files = network.etc_files(config, plan.record, plan.namespaces)
    rootfs.plan_etc(program, root, files, facts.meeting_place.rpartition("/")[0])
    rootfs.plan_devices(config, program, root, facts)
    process = config.get("process") or {"cwd": "/"}
    plan_create(child, root, split_path(process.get("cwd", "/")), directory=True)
    terminal = None
    if process.get("terminal") and request.console_fd is not None:
        terminal = rootfs.plan_console(config, program, root, request.console_fd)
        program.keep(request.console_fd)
    rootfs.plan_masks(config, program, root, facts)
    if config.get("hooks", {}).get("createContainer"):
        child.wait_for_caller("wait for the createContainer hooks")
    rootfs.plan_pivot(program, root)
    rootfs.plan_seal(config, program)
    return terminal


def _plan_payload(plan: Plan, request: Request, terminal: Slot | None) -> None:
    """Steps 15 to 18."""
    program, config = plan.program, plan.config
    payload.plan_streams(program, request.streams, terminal)
    payload.plan_ownership(program, request.streams, owned_ids(config))
    init_fd = payload.plan_init(program) if config.get("jailrun", {}).get("init") else None
    extra = range(3, 3 + len(request.streams.extra))
    if request.hold:
        payload.plan_hold(program, plan.record.folder, [*extra, *([init_fd] if init_fd else [])])
    elif config.get("hooks", {}).get("startContainer"):
        program.child.wait_for_caller("wait for the startContainer hooks")
    payload.plan_payload(
        config,
        program,
        read_security_facts(config),
        extra=len(extra),
        die_with_caller=request.attached,
        init_fd=init_fd,
    )


def _execute(plan: Plan, request: Request) -> Started:
    """Steps 6 to 19."""
    record, hooks = plan.record, plan.config.get("hooks", {})
    execution = Started(plan.program, record)
    shares = not (
        request.hold or "time" in plan.namespaces.joined or payload.sets_oom_score(plan.config)
    )
    try:
        execution.run_before()
        execution.spawn(cgroup=plan.cgroup, share_memory=shares)
        record.write_config(plan.config)  # while the child is at work: before any hook may ask
        execution.wait(DEADLINE_SECONDS)
        execution.run_attach()
        record.pid = execution.pid
        record.start_time = read_start_time(execution.pid)
        network.finish_links(record, plan.starting)
        if hooks:
            record.write()  # a hook may ask for the state
        for moment in ("prestart", "createRuntime"):
            run_hooks(hooks, moment, record)
        execution.go()
        if hooks.get("createContainer"):
            execution.wait(DEADLINE_SECONDS)
            run_hooks(hooks, "createContainer", record, inside="mount")
            execution.go()
        if request.hold:
            execution.wait(DEADLINE_SECONDS)
            payload.save_operations(execution, record.folder)
            record.write()
            execution.forget()
            return execution
        if hooks.get("startContainer"):
            execution.wait(DEADLINE_SECONDS)
            run_hooks(hooks, "startContainer", record, inside="root")
            execution.go()
        execution.wait(DEADLINE_SECONDS)
        record.started = time.time()
        record.write()
        record.unlock()
        run_hooks(hooks, "poststart", record)
    except OSError as error:
        execution.abandon()
        raise translate(error, execution.notes) from error
    except BaseException:
        execution.abandon()
        raise
    finally:
        execution.close_opened()
    return execution
