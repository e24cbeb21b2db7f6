"""The last steps of a process before it becomes the payload: limits, ids, privileges, the filter.

Owns: their order, for the first process of a jail and for one that joins it.  The engine adds
after it: signals to their defaults, descriptors closed, execve.

The child, in this order:
 1. rlimits                 those above the caller's were raised by the caller meanwhile
 2. personality             before the filter, which allows few
 3. session keyring         a new one: the caller's own would be possessed by the jail
 4. LSM label for the exec  while it may still write to /proc
 5. filter                  here only without no_new_privs: installing it then needs CAP_SYS_ADMIN
 6. bounding set            dropping needs CAP_SETPCAP
 7. keep capabilities       for another user than root: the switch would clear them
 8. groups, gid, uid        in this order: each needs the privileges that the next one ends
 9. capability sets         the switch of ids changed them; ambient after inheritable
10. umask
11. no_new_privs
12. filter                  last, so that it need not allow any of the above
"""

from __future__ import annotations

import os
from errno import ENOSYS, EPERM

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.constants import PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS
from jailrun.security.capabilities import (
    capability_sets,
    check_held,
    plan_bounding,
    plan_sets,
    read_last_cap,
    read_permitted,
)
from jailrun.security.limits import (
    personality_number,
    plan_priorities,
    plan_rlimits,
    read_host_limits,
    umask_number,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from jailrun.kernel.program import Program
    from jailrun.security.limits import Limits

KEYCTL_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
SECBITS = {  # linux/securebits.h, by the names of capabilities(7)
    "noroot": 0x01, "noroot-locked": 0x02, "no-setuid-fixup": 0x04,
    "no-setuid-fixup-locked": 0x08, "keep-caps": 0x10, "keep-caps-locked": 0x20,
    "no-cap-ambient-raise": 0x40, "no-cap-ambient-raise-locked": 0x80,
}  # fmt: skip
DEFAULT_UMASK = 0o022


class Facts:
    """What a plan must know of this host; `read_facts` reads it."""

    __slots__ = ("last_cap", "limits", "lsms", "permitted")

    def __init__(
        self, last_cap: int, limits: Limits, lsms: tuple[str, ...], permitted: int
    ) -> None:
        self.last_cap = last_cap
        self.limits = limits  # this process's own rlimits
        self.lsms = lsms  # the security modules of this kernel that take a label
        self.permitted = permitted  # the capabilities that this process could give away


def read_facts(config: Mapping[str, Any]) -> Facts:
    """Read what planning this configuration takes: mostly the last capability and no more."""
    process = config.get("process") or {}
    labelled = process.get("apparmorProfile") or process.get("selinuxLabel")
    return Facts(
        read_last_cap(),
        read_host_limits() if process.get("rlimits") else {},
        read_lsms() if labelled else (),
        0 if has_user_namespace(config) else read_permitted(),
    )


def has_user_namespace(config: Mapping[str, Any]) -> bool:
    """Tell whether the jail has a user namespace, made or joined, in which all capabilities are."""
    namespaces = (config.get("linux") or {}).get("namespaces") or ()
    return any(namespace.get("type") == "user" for namespace in namespaces)


def read_lsms() -> tuple[str, ...]:
    """Return the security modules of this kernel that take a label: apparmor, selinux."""
    lsms = []
    if os.path.isdir("/sys/kernel/security/apparmor"):
        lsms.append("apparmor")
    if os.path.isdir("/sys/fs/selinux"):
        lsms.append("selinux")
    return tuple(lsms)


def plan_limits(config: Mapping[str, Any], program: Program, facts: Facts) -> None:
    """Plan steps 1 and 2; ``config["process"]`` is the process that is started.

    The caller's part is in the attach lane, with the child's pid.
    """
    process = config.get("process") or {}
    plan_priorities(program, process)
    plan_rlimits(program, process.get("rlimits") or (), facts.limits)
    personality = (config.get("linux") or {}).get("personality")
    if personality is not None:
        program.child.personality(
            personality_number(personality),
            what="set the execution domain",
            object=str(personality["domain"]),
        )


def plan_credentials(
    config: Mapping[str, Any],
    program: Program,
    facts: Facts,
    *,
    filter_bytes: bytes | None = None,
    filter_flags: int = 0,
    before_filter: Callable[[], None] | None = None,
) -> None:
    """Plan steps 3 to 12; ``filter_bytes`` is None for a process without a filter.

    ``before_filter`` plans what the engine does after the ids are switched and, where
    no_new_privs allows it, before a filter that might forbid it.
    """
    process = config.get("process") or {}
    masks = capability_sets(process, facts.last_cap)
    if not has_user_namespace(config):
        check_held(masks, facts.permitted)
    no_new_privileges = bool(process.get("noNewPrivileges"))
    child = program.child
    # In a container that forbids keyctl its own processes cannot use the keyring they inherit.
    child.call(
        "keyctl",
        KEYCTL_JOIN_SESSION_KEYRING,
        0,
        what="join a new session keyring",
        allow=(ENOSYS, EPERM),
    )
    plan_label(process, program, facts)
    if filter_bytes is not None and not no_new_privileges:
        _plan_filter(program, filter_bytes, filter_flags)
    plan_bounding(child, masks["bounding"], facts.last_cap)
    plan_user(process, program)
    plan_securebits(config, program)
    plan_sets(child, masks)
    mask = umask_number(process.get("user") or {})
    child.umask(DEFAULT_UMASK if mask is None else mask, what="set the umask")
    if before_filter:
        before_filter()
        program.enter("security")
    if no_new_privileges:
        child.prctl(PR_SET_NO_NEW_PRIVS, 1, what="set no_new_privs")
        if filter_bytes is not None:
            _plan_filter(program, filter_bytes, filter_flags)


def _plan_filter(program: Program, filter_bytes: bytes, filter_flags: int) -> None:
    program.child.seccomp(
        filter_bytes,
        filter_flags,
        what="install the seccomp filter",
        hint="a kernel without CONFIG_SECCOMP_FILTER needs --security-opt seccomp=unconfined",
    )


def plan_user(process: Mapping[str, Any], program: Program) -> None:
    """Plan step 7 and 8: become ``process.user``, with the capabilities kept for step 9."""
    user = process.get("user") or {}
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    groups = user.get("additionalGids") or []
    hint = "an id outside the user namespace's mappings does not exist in the jail"
    child = program.child
    # The flag is set for root, too: harmless, and an exec clears it.
    child.prctl(PR_SET_KEEPCAPS, 1, what="keep capabilities over the switch of ids")
    child.setgroups(groups, what="set additional groups", object=str(groups), hint=hint)
    child.setresgid(gid, gid, gid, what="become group", object=str(gid), hint=hint)
    child.setresuid(uid, uid, uid, what="become user", object=str(uid), hint=hint)
    child.prctl(PR_SET_KEEPCAPS, 0, what="keep no capabilities from here on")


def plan_securebits(config: Mapping[str, Any], program: Program) -> None:
    """Plan the securebits of ``jailrun.securebits``, which need CAP_SETPCAP."""
    names = (config.get("jailrun") or {}).get("securebits")
    if not names:
        return
    bits = 0
    for index, name in enumerate(names):
        if name not in SECBITS:
            raise SpecError(
                f"jailrun.securebits[{index}]",
                f"{name!r} is not a securebit",
                hint=f"one of: {', '.join(SECBITS)}",
            )
        bits |= SECBITS[name]
    program.child.prctl(PR_SET_SECUREBITS, bits, what="set securebits", object=hex(bits))


def plan_label(process: Mapping[str, Any], program: Program, facts: Facts) -> None:
    """Plan step 4: the AppArmor profile or SELinux label that the exec shall enter."""
    profile, label = process.get("apparmorProfile"), process.get("selinuxLabel")
    if profile and profile != "unconfined":
        if "apparmor" not in facts.lsms:
            raise UnsupportedError(
                f"process.apparmorProfile: {profile!r} needs AppArmor, which this kernel has not",
                hint="leave the key out, or boot with apparmor=1 security=apparmor",
            )
        program.child.write_file(
            "/proc/thread-self/attr/apparmor/exec",
            f"exec {profile}".encode(),
            what="enter the AppArmor profile on exec",
            object=str(profile),
            hint="load the profile first: apparmor_parser -r FILE",
        )
    if label:
        if "selinux" not in facts.lsms:
            raise UnsupportedError(
                f"process.selinuxLabel: {label!r} needs SELinux, which this kernel has not",
                hint="leave the key out",
            )
        program.child.write_file(
            "/proc/thread-self/attr/exec",
            str(label).encode(),
            what="enter the SELinux label on exec",
            object=str(label),
        )
