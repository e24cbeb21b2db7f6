"""The root itself: an overlay of id-mapped layers, or a plain folder.

Owns: how layers become one mount at the meeting place, an empty folder of the host on which
every jail puts its root, each in a mount namespace of its own.  Out of scope: what is mounted
below the root.

The overlay is mounted by the child, inside its user namespace, with ``userxattr``; its layers are
mounts of the caller's, id-mapped to that namespace while the child waits.  So ids on disk stay
those of the image, and a layer is shared by jails with different ranges.
"""

from __future__ import annotations

import errno
import os

from jailrun.errors import RootfsError
from jailrun.kernel import constants as c
from jailrun.kernel.program import Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.program import Program, Slot
    from jailrun.rootfs.facts import Facts
    from jailrun.spec.model import Config

# Layers are named to overlayfs by their descriptors, relative to /proc/self/fd: a string option
# of fsconfig(2) holds 255 bytes, and `lowerdir+`, one layer a call, is there since 6.5 only.
LAYERS_MAX = 60


def meeting_place(run_dir: str) -> str:
    """Return the folder on which roots are put."""
    return f"{run_dir}/root"


def prepare_meeting_place(run_dir: str) -> None:
    """Make, if it is not there, the folder on which roots are put."""
    path = meeting_place(run_dir)
    if not os.path.isdir(path):
        try:
            os.makedirs(path, 0o755, exist_ok=True)
            # The child walks there with the rights of nobody.
            os.chmod(run_dir, 0o711)  # noqa: S103 - and may list nothing
            os.chmod(path, 0o755)  # noqa: S103 - it is always empty
            _check_passable(path)
        except OSError as error:
            raise RootfsError(f"cannot make {path}: {error.strerror}") from error


def _check_passable(path: str) -> None:
    """Refuse a folder that an unknown user cannot walk to."""
    above = path
    while above != "/":
        above = os.path.dirname(above)
        if not os.stat(above).st_mode & 0o001:
            raise RootfsError(
                f"cannot put roots on {path}: {above} cannot be passed by others",
                hint=f"chmod o+x {above}, or set JAILRUN_RUN to another folder",
            )


def plan_root(config: Config, program: Program, facts: Facts) -> Slot:
    """Add putting the root together; return the slot of its descriptor in the child."""
    program.enter("rootfs")
    child = program.child
    private = config.get("linux", {}).get("rootfsPropagation") in ("private", "rprivate")
    child.mount(
        0, "/", 0, c.MS_REC | (c.MS_PRIVATE if private else c.MS_SLAVE),
        what="keep mounts from reaching the host:",
    )  # fmt: skip
    if config.get("jailrun", {}).get("layers"):
        _plan_overlay(config, program, facts)
    else:
        _plan_folder(config, program, facts)
    return child.open(
        facts.meeting_place, c.O_PATH | c.O_DIRECTORY, what="open the root", result="root"
    )


def _plan_folder(config: Config, program: Program, facts: Facts) -> None:
    path = facts.absolute(config["root"]["path"])
    mapped = _is_mapped(config, facts)
    recursive = 0 if mapped else c.AT_RECURSIVE
    tree = program.before.open_tree(
        c.AT_FDCWD, path, c.OPEN_TREE_CLONE | recursive, what="open the root folder"
    )
    program.before.mount_setattr(
        tree,
        propagation=c.MS_PRIVATE,
        recursive=bool(recursive),
        what="prepare the root folder",
        object=path,
    )
    if mapped:
        _plan_idmap(program, [(tree, path)])
    program.child.move_mount(
        tree, c.AT_FDCWD, facts.meeting_place, what="mount the root folder", object=path
    )


def _plan_overlay(config: Config, program: Program, facts: Facts) -> None:
    layers = config["jailrun"]["layers"]
    if len(layers) > LAYERS_MAX:
        raise RootfsError(f"the image has {len(layers)} layers: at most {LAYERS_MAX} are possible")
    lowers = []
    for path in layers:
        tree = program.before.open_tree(
            c.AT_FDCWD, path, c.OPEN_TREE_CLONE, what="open the layer", result="layer",
            hint="the image is incomplete: jailrun image rm and build it again",
        )  # fmt: skip
        # Without an overlay it is the root itself, and mount points must not be made in it.
        program.before.mount_setattr(
            tree,
            attr_set=c.MOUNT_ATTR_RDONLY,
            propagation=c.MS_PRIVATE,
            what="prepare the layer",
            object=path,
        )
        lowers.append((tree, path))
    upper = None
    if facts.writable:
        _plan_writable(program, facts.writable)
        upper = program.before.open_tree(
            c.AT_FDCWD, facts.writable, c.OPEN_TREE_CLONE, what="open the writable layer"
        )
        program.before.mount_setattr(
            upper, propagation=c.MS_PRIVATE, what="prepare the writable layer"
        )
    trees = lowers + ([(upper, facts.writable)] if upper and facts.writable else [])
    mapped = _is_mapped(config, facts)
    if mapped:
        _plan_idmap(program, trees)
    child = program.child
    for tree, path in trees:
        # Before Linux 6.15 overlayfs takes only layers that are mounted in its own namespace.
        child.move_mount(
            tree, c.AT_FDCWD, facts.meeting_place, what="attach the layer", object=path
        )
    if len(trees) > 1:  # one alone is the root itself: overlayfs wants two
        _plan_overlay_mount(program, facts, [tree for tree, _path in lowers], upper)


def _plan_writable(program: Program, path: str) -> None:
    """Add making the folders of the upper layer; the engine has recorded ``path`` already."""
    exists = (errno.EEXIST,)
    program.before.mkdir(path, 0o700, allow=exists, what="make the writable layer")
    program.before.mkdir(f"{path}/upper", 0o755, allow=exists, what="make the writable layer")
    # It becomes the jail's "/", whatever the caller's umask, which its threads share.
    program.before.fchmodat(c.AT_FDCWD, f"{path}/upper", 0o755, what="make the writable layer")
    program.before.mkdir(f"{path}/work", 0o700, allow=exists, what="make the writable layer")


def _plan_overlay_mount(
    program: Program, facts: Facts, lowers: list[Slot], upper: Slot | None
) -> None:
    child = program.child
    child.chdir("/proc/self/fd", what="reach the layers by number")
    fs = child.fsopen("overlay", what="open the file system", hint="modprobe overlay")
    child.fsconfig_string(fs, "source", "jailrun")
    child.fsconfig_string(
        fs, "lowerdir", Text(":".join("%" * len(lowers)), *lowers), what="stack the layers"
    )
    if upper:
        what = "set the writable layer"
        child.fsconfig_string(fs, "upperdir", Text("%/upper", upper), what=what)
        child.fsconfig_string(fs, "workdir", Text("%/work", upper), what=what)
        if facts.throw_away:
            # Else the end of the jail waits until all that anyone has written to the file system
            # of the layer is on the disk: an overlay's unmounting syncs it.  Linux 5.10.
            child.fsconfig_flag(fs, "volatile", allow=(errno.EINVAL,), what="need no sync")
    if facts.in_user_namespace:
        child.fsconfig_flag(fs, "userxattr", what="use the xattrs of a user namespace")
    child.fsconfig_create(
        fs,
        what="mount the layers as overlay",
        hint="the writable layer's file system must take part in overlayfs and id-mapped mounts "
        "(ext4, xfs, btrfs, tmpfs): set JAILRUN_DATA to a folder on one",
    )
    mount = child.fsmount(fs, what="mount the layers as overlay")
    child.move_mount(mount, c.AT_FDCWD, facts.meeting_place, what="attach the root")


def _is_mapped(config: Config, facts: Facts) -> bool:
    extensions = config.get("jailrun", {})
    return "user" in facts.own and extensions.get("id_shift") == "idmap"


def _plan_idmap(program: Program, trees: list[tuple[Slot, str]]) -> None:
    """Add mapping the ids of mounts to the user namespace of the child that waits."""
    attach = program.attach
    user = attach.open(
        Text("/proc/%/ns/user", program.pid), os.O_RDONLY, what="open the new user namespace"
    )
    for tree, path in trees:
        attach.mount_setattr(
            tree,
            attr_set=c.MOUNT_ATTR_IDMAP,
            userns_fd=user,
            what="map the ids of",
            object=path,
            hint="its file system has no id-mapped mounts: use one that has (ext4, xfs, btrfs; "
            "tmpfs since Linux 6.3), or run with --userns host",
        )
    attach.close(user)


def release(writable: str | None) -> None:
    """Remove a writable layer, from its path alone; nothing where it is gone already."""
    if writable:
        _remove_tree(writable)


def _remove_tree(path: str) -> None:
    """Remove a tree without following links, or leaving its file descriptors' reach."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RootfsError(f"cannot remove {path}: {error.strerror}") from error
    try:
        _remove_unused(fd)
        _empty(fd)
    finally:
        os.close(fd)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RootfsError(f"cannot remove {path}: {error.strerror}") from error


# What a volatile overlay makes in its work folder, and a layer to which nobody wrote: from below.
UNUSED = ("work/work/incompat/volatile", "work/work/incompat", "work/work", "work", "upper")


def _remove_unused(top: int) -> None:
    """Remove, without looking, what most layers are at their end; more than that stays.

    No jail can reach the work folder, so no link is in it.
    """
    try:
        os.unlink(f"{UNUSED[0]}/dirty", dir_fd=top)
        for path in UNUSED:
            os.rmdir(path, dir_fd=top)
    except OSError:
        return


def _empty(top: int) -> None:
    """Remove what is in a directory, with one descriptor: depth is the jail's choice.

    Nothing of the jail runs any more, so that ``..`` leads back to where we came from.  What is
    mounted in it, by whomever, is not ours to remove.
    """
    device = os.fstat(top).st_dev
    directory = os.dup(top)
    names: list[bytes] = []
    try:
        while True:
            deeper = _empty_one(directory, device)
            if deeper is not None:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                names.append(deeper)
            elif names:
                flags, deeper = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, b".."
            else:
                return
            following = os.open(deeper, flags, dir_fd=directory)
            os.close(directory)
            directory = following
            if deeper == b"..":
                os.rmdir(names.pop(), dir_fd=directory)
    finally:
        os.close(directory)


def _empty_one(directory: int, device: int) -> bytes | None:
    """Remove the entries of a directory, up to a folder that is not empty: return its name."""
    with os.scandir(directory) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(name, dir_fd=directory)
                continue
            if os.stat(name, dir_fd=directory, follow_symlinks=False).st_dev != device:
                raise OSError(errno.EXDEV, "something is mounted there", os.fsdecode(name))
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                return name
    return None
