"""The config's mounts, made with descriptors only (fsopen, open_tree, move_mount; Linux 5.12).

Owns: how each kind of mount is made.  Out of scope: what the options mean
(`jailrun.spec.mounts`), devices and masks.

A bind mount's source is opened by the caller, who may reach it where the jail's root may not;
everything else is mounted by the child, in the namespaces that own it.
"""

from __future__ import annotations

import os

from jailrun.errors import UnsupportedError
from jailrun.kernel import constants as c
from jailrun.kernel.program import Text
from jailrun.rootfs.targets import plan_target, split_path
from jailrun.spec.mounts import parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.lane import Lane
    from jailrun.kernel.program import Program, Slot
    from jailrun.rootfs.facts import Facts
    from jailrun.spec.model import Config, Mount
    from jailrun.spec.mounts import MountOptions

UNIFIED = "unified"  # how the record of the cgroups calls v2


def plan_mounts(
    config: Config, program: Program, root: Slot, facts: Facts, views: dict[int, Slot]
) -> None:
    """Add every mount of the config, in order; ``views`` are those that are made already."""
    program.enter("rootfs")
    for place, mount in enumerate(config.get("mounts", [])):
        options = parse_options(mount.get("options", []))
        kind = mount.get("type", "bind" if options.bind else "none")
        if mount.get("uidMappings") or mount.get("gidMappings"):
            raise UnsupportedError(
                f"mounts[{place}]: id mappings of a mount's own are not supported yet",
                hint="use the option idmap, which maps the mount to the jail's user namespace",
            )
        if options.tmpcopyup:
            raise UnsupportedError(f"mount {mount['destination']}: tmpcopyup is not supported yet")
        if options.remount:
            _plan_remount(program.child, root, mount, options)
        elif options.bind or kind == "bind":
            _plan_bind(program, root, mount, options, facts)
        elif kind in ("cgroup", "cgroup2"):
            _plan_cgroups(program.child, root, mount, options, facts)
        elif place in views:
            _plan_attach(program.child, root, mount, views[place], kind)
        else:
            _plan_file_system(program.child, root, mount, options, kind)


def _plan_file_system(
    child: Lane, root: Slot, mount: Mount, options: MountOptions, kind: str
) -> None:
    destination = mount["destination"]
    fs = _plan_open(
        child, kind, mount.get("source", kind), [*options.flags, *options.data], destination
    )
    mounted = child.fsmount(fs, options.attr_set, what=f"mount {kind} on", object=destination)
    _plan_attributes(child, mounted, options, destination, inherited=False)
    _plan_attach(child, root, mount, mounted, kind)


def _plan_attach(
    child: Lane, root: Slot, mount: Mount, mounted: Slot, what: str, *, directory: bool = True
) -> None:
    """Add attaching what is mounted at its destination, which is made where it is missing."""
    destination = mount["destination"]
    target = plan_target(child, root, destination, directory=directory)
    child.move_mount(mounted, target, what=f"mount {what} on", object=destination)


def _plan_open(child: Lane, kind: str, source: str, data: list[str], destination: str) -> Slot:
    """Add opening and configuring a file system."""
    what = f"mount {kind} on"
    fs = child.fsopen(kind, what=what, object=destination, hint=f"this kernel has no {kind}")
    child.fsconfig_string(fs, "source", source, what=what, object=destination)
    for option in data:
        key, equals, value = option.partition("=")
        words = {"what": f"set the option {option} of", "object": destination}
        if equals:
            child.fsconfig_string(fs, key, value, what=words["what"], object=words["object"])
        else:
            child.fsconfig_flag(fs, key, what=words["what"], object=words["object"])
    child.fsconfig_create(
        fs,
        what=what,
        object=destination,
        hint="inside another container, its /proc and /sys must not be covered by mounts",
    )
    return fs


def _plan_bind(
    program: Program, root: Slot, mount: Mount, options: MountOptions, facts: Facts
) -> None:
    destination = mount["destination"]
    source = facts.absolute(mount.get("source", ""))
    recursive = c.AT_RECURSIVE if options.rbind else 0
    tree = program.before.open_tree(
        c.AT_FDCWD, source, c.OPEN_TREE_CLONE | recursive, what="open the source of a mount"
    )
    _plan_attributes(program.before, tree, options, destination, inherited=True)
    if options.idmap:
        user = program.attach.open(
            Text("/proc/%/ns/user", program.pid), os.O_RDONLY, what="open the new user namespace"
        )
        program.attach.mount_setattr(
            tree,
            attr_set=c.MOUNT_ATTR_IDMAP,
            userns_fd=user,
            recursive=options.rbind,
            what="map the ids of",
            object=source,
            hint="its file system has no id-mapped mounts: leave out the option idmap",
        )
        program.attach.close(user)
    _plan_attach(program.child, root, mount, tree, source, directory=facts.directories[source])


def _plan_attributes(
    lane: Lane, mounted: Slot, options: MountOptions, destination: str, *, inherited: bool
) -> None:
    """Add the options of a mount that are the mount's, not the file system's.

    An ``inherited`` mount is a copy, which has its source's attributes and peers.
    """
    what = "set the options of"
    if inherited and (options.attr_set or options.attr_clear):
        lane.mount_setattr(
            mounted,
            attr_set=options.attr_set,
            attr_clear=options.attr_clear,
            what=what,
            object=destination,
        )
    if options.rec_attr_set or options.rec_attr_clear:
        lane.mount_setattr(
            mounted,
            attr_set=options.rec_attr_set,
            attr_clear=options.rec_attr_clear,
            recursive=True,
            what=what,
            object=destination,
        )
    propagation = list(options.propagation)
    if inherited and not propagation:
        propagation = [c.MS_PRIVATE | c.MS_REC]
    for flags in propagation:
        lane.mount_setattr(
            mounted,
            propagation=flags & ~c.MS_REC,
            recursive=bool(flags & c.MS_REC),
            what=what,
            object=destination,
        )


def _plan_remount(child: Lane, root: Slot, mount: Mount, options: MountOptions) -> None:
    destination = mount["destination"]
    target = plan_target(child, root, destination, directory=False, create=False)
    _plan_attributes(child, target, options, destination, inherited=True)


def _plan_cgroups(
    child: Lane, root: Slot, mount: Mount, options: MountOptions, facts: Facts
) -> None:
    """Add the jail's own cgroups, as roots: v2's alone, or v1's and v2's below a small tmpfs.

    They are copies of the host's mounts: a mount of its own for each hierarchy, which the jail's
    cgroup namespace would allow, shows the same and takes more than twice the operations.
    """
    destination = mount["destination"]
    what = "show the cgroups on"
    target = plan_target(child, root, destination, directory=True)
    if list(facts.cgroups) == [UNIFIED]:
        top = child.open_tree(
            c.AT_FDCWD, facts.cgroups[UNIFIED], c.OPEN_TREE_CLONE, what=what, object=destination
        )
    else:
        fs = _plan_open(child, "tmpfs", "cgroup", ["mode=755", "size=16k"], destination)
        top = child.fsmount(fs, what=what, object=destination)
    child.move_mount(top, target, what=what, object=destination)
    for name, path in facts.cgroups.items():
        if list(facts.cgroups) != [UNIFIED]:
            tree = child.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE, what=what, object=name)
            child.mkdirat(top, name, what="make the mount point", object=f"{destination}/{name}")
            child.move_mount(tree, top, name, what=what, object=f"{destination}/{name}")
    child.mount_setattr(
        top,
        attr_set=options.attr_set,
        attr_clear=options.attr_clear,
        recursive=True,
        what=what,
        object=destination,
    )


def has_mount(config: Config, path: str, kind: str) -> bool:
    """Return whether the config mounts a file system of this type on ``path``."""
    names = split_path(path)
    return any(
        split_path(mount["destination"]) == names and mount.get("type") == kind
        for mount in config.get("mounts", [])
    )
