"""File systems of namespaces that are not the jail's own: sysfs, proc and mqueue of others.

Owns: `plan_views`.  The kernel lets only the owner of a namespace mount its file system, and the
jail's user namespace owns the new namespaces alone.  So who still has the host's rights makes the
mount, attached nowhere, and the jail's process attaches it later: the caller for namespaces that
are inherited, the child after it has joined those of others.  With a user namespace that is joined,
too, the namespaces joined beside it are taken to be its own: then the jail's process can mount.
"""

from __future__ import annotations

from jailrun.errors import UnsupportedError
from jailrun.spec.mounts import parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.program import Program, Slot
    from jailrun.rootfs.facts import Facts
    from jailrun.spec.model import Config

# type of file system: the namespace whose owner may mount it
OWNER = {"sysfs": "network", "proc": "pid", "mqueue": "ipc"}


def plan_views(config: Config, program: Program, facts: Facts) -> dict[int, Slot]:
    """Add making these mounts; return their slots by place in the config's list."""
    views: dict[int, Slot] = {}
    program.enter("rootfs")
    for place, mount in enumerate(config.get("mounts", [])):
        kind = mount.get("type", "")
        owner = OWNER.get(kind)
        if owner is None or not facts.in_user_namespace or owner in facts.own:
            continue
        if owner in facts.joined and "user" in facts.joined:
            continue
        if owner == "pid" and owner in facts.joined:
            # Who joins a pid namespace is not in it: his /proc would still be the host's.
            raise UnsupportedError(
                f"mounts[{place}]: proc of a joined pid namespace needs its user namespace, too",
                hint="join both, or neither",
            )
        lane = program.child if owner in facts.joined else program.before
        options = parse_options(mount.get("options", []))
        what, about = f"mount the {kind} of another {owner} namespace on", mount["destination"]
        fs = lane.fsopen(kind, what=what, object=about)
        lane.fsconfig_string(fs, "source", mount.get("source", kind), what=what, object=about)
        lane.fsconfig_create(fs, what=what, object=about)
        views[place] = lane.fsmount(fs, options.attr_set, what=what, object=about, result="view")
    return views
