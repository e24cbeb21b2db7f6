"""The default seccomp profile: which system calls a jail may make, as data, and why not the rest.

The profile is a pure function of the capabilities that the jail has and of what it was allowed by
name.  What no group below lists gets ENOSYS, so that programs fall back as on an older kernel;
what exists and is refused gets EPERM, or the errno that such programs know how to handle.
Out of scope: compiling it (`jailrun.security.compile`), and when a start needs it at all
(`jailrun.security.seccomp`: with a warm cache this module is not even imported).

After a change here, set ``PROFILE_DIGEST`` in ``seccomp.py`` to what the unit test prints.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT

from jailrun.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# --- always allowed, by topic --------------------------------------------------------------------
# Names of 32-bit architectures stand beside their 64-bit ones: a name that an architecture does
# not have is skipped there.
FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr
    flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat lchown
    lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr lremovexattr lseek
    lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat oldfstat
    oldlstat oldstat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readdir readlink readlinkat readv removexattr removexattrat rename
    renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
    statfs64 statmount statx symlink symlinkat sync sync_file_range sync_file_range2
    arm_sync_file_range arm_fadvise64_64 syncfs tee truncate truncate64 umask unlink unlinkat
    utime utimensat utimensat_time64 utimes vmsplice write writev _llseek cachestat
    fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
"""
MEMORY = """
    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc
    pkey_free pkey_mprotect remap_file_pages
"""
PROCESSES = """
    arch_prctl breakpoint cacheflush capget capset execve execveat exit exit_group fork
    get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32
    getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32
    getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get
    ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr modify_ldt nice olduname oldolduname
    pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease restart_syscall rseq
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list
    set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo times
    ugetrlimit uname uretprobe vfork wait4 waitid waitpid
"""
# Debuggers and sanitizers work in a jail: since Linux 4.8 a tracer cannot step around a filter.
TRACING = "process_vm_readv process_vm_writev ptrace"
SIGNALS = """
    alarm getitimer rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sgetmask
    sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend
    ssetmask tgkill tkill
"""
# Reading clocks; adjtimex too, as its modes that set a clock need CAP_SYS_TIME of the host.
TIME = """
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday nanosleep time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64
"""
WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 select _newselect
"""
SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
"""
IPC = """
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
    semtimedop_time64 shmat shmctl shmdt shmget
"""
RANDOM = "getrandom"
BASE = (FILES, MEMORY, PROCESSES, TRACING, SIGNALS, TIME, WAITING, SOCKETS, IPC, RANDOM)

# --- allowed with a capability, refused with EPERM without ---------------------------------------
MOUNTING = """
    fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr
    pivot_root umount umount2
"""
BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",  # reads any file of a file system by its inode
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",  # the kernel's log shows addresses and other jails' doings
    "CAP_SYS_ADMIN": f"""
        {MOUNTING} bpf fanotify_init lookup_dcookie perf_event_open quotactl quotactl_fd
        setdomainname sethostname setns syslog
    """,
    "CAP_SYS_BOOT": "reboot",  # in a pid namespace it ends the init only
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "create_module delete_module finit_module init_module query_module",
    "CAP_SYS_NICE": """
        get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node
    """,
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# --- allowed by name ("allow" in the configuration) ----------------------------------------------
BY_NAME = {
    # Keys belong to a host id: without a user namespace all jails would share them.
    "keyring": "add_key keyctl request_key",
    # Its operations pass by this very filter, and most kernel escapes of 2022 were in it.
    "io_uring": "io_uring_enter io_uring_register io_uring_setup",
    # Stops the kernel in the middle of a copy, which makes races easy to win.
    "userfaultfd": "userfaultfd",
    "bpf": "bpf",
    "perf": "perf_event_open",
    # Jails in the jail: with a user namespace, which alone makes its root harmless.
    "nesting": f"{MOUNTING} chroot clone3 setdomainname sethostname setns",
    "sockets": "socket socketcall",  # every address family
    # The 32-bit x86 way to make sockets hides the address family from a filter, so that it would
    # open them all.  32-bit programs whose libc knows no other (Debian's) need it.
    "socketcall": "socketcall",
    "personality": "personality",  # every execution domain, READ_IMPLIES_EXEC among them
    "terminal": "ioctl",  # putting characters into a terminal's input
}
ALLOW_NAMES = tuple(sorted(BY_NAME))

# Refused to everyone: a jail has no business with the machine's kernel, swap or buses, and the
# rest is obsolete.  Known calls get EPERM, so that programs do not take them for missing.
REFUSED = """
    _sysctl afs_syscall bdflush get_kernel_syms kexec_file_load kexec_load nfsservctl
    pciconfig_iobase pciconfig_read pciconfig_write security swapcontext swapoff swapon sysfs
    tuxcall uselib ustat vm86 vm86old vserver
"""

# --- calls that are allowed with some arguments only ---------------------------------------------
ALL_32 = 0xFFFFFFFF  # the kernel reads these arguments as 32 bits: the upper half must not matter
CLONE_NEW = {  # linux/sched.h
    "CLONE_NEWTIME": 0x80,
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
# linux/personality.h: PER_LINUX, PER_LINUX32, UNAME26 and both, ADDR_NO_RANDOMIZE (debuggers),
# and the question which one it is.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0x40000, 0x40008, 0xFFFFFFFF)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17  # linux/socket.h
NETLINK_AUDIT = 9  # linux/netlink.h
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h

ARCHITECTURES = {
    # x32 is left out: no distribution ships it, and its kernel side is rarely looked at.
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def default_profile(
    capabilities: Iterable[str], allow: Iterable[str] = (), machine: str = "x86_64"
) -> dict[str, Any]:
    """Return the default profile as OCI ``linux.seccomp``.

    ``capabilities`` are those of the bounding set, ``allow`` names out of ``ALLOW_NAMES``.
    """
    granted = set(capabilities)
    allowed = set(allow)
    check_allow(allowed)
    names = words(*BASE)
    for capability, group in BY_CAPABILITY.items():
        if capability in granted:
            names |= words(group)
    for name, group in BY_NAME.items():
        if name in allowed:
            names |= words(group)
    filtered: list[dict[str, Any]] = []
    namespaces = "nesting" in allowed or "CAP_SYS_ADMIN" in granted
    if namespaces:
        names |= {"clone", "clone3", "unshare"}
    else:
        # clone3 has its flags in memory, where a filter cannot look; libc falls back to clone.
        filtered += namespace_rules()
    if "personality" not in names:
        filtered += [rule(["personality"], [equal(0, value)]) for value in PERSONALITIES]
    if "socket" not in names:
        filtered += socket_rules(granted)
    if "ioctl" not in names:
        filtered += ioctl_rules()
    partly = {name for entry in filtered for name in entry["names"]}
    known = words(REFUSED, *BY_CAPABILITY.values(), *BY_NAME.values())
    refused = known - names - partly - {"clone3"}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": list(ARCHITECTURES.get(machine, [])),
        "syscalls": [
            {"names": sorted(names), "action": "SCMP_ACT_ALLOW"},
            {"names": sorted(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
            *filtered,
        ],
    }


def check_allow(allow: Iterable[str], path: str = "jailrun.allow") -> None:
    """Raise `SpecError` for a name that loosens nothing."""
    for name in allow:
        if name not in BY_NAME:
            raise SpecError(
                path, f"{name!r} cannot be allowed", hint=f"one of: {', '.join(ALLOW_NAMES)}"
            )


def words(*groups: str) -> set[str]:
    """Return the names in these groups."""
    return {name for group in groups for name in group.split()}


def namespace_rules() -> list[dict[str, Any]]:
    """Return rules by which clone and unshare work, but make no namespace.

    An allowed and a refused range never overlap in any of these rules: of two rules for the same
    call libseccomp keeps the more general one alone.
    """
    # In clone the lowest byte is the exit signal: CLONE_NEWTIME is none of its flags.
    of_clone = {name: bit for name, bit in CLONE_NEW.items() if name != "CLONE_NEWTIME"}
    rules = []
    for call, flags in (("clone", of_clone), ("unshare", CLONE_NEW)):
        rules.append(rule([call], [masked(0, sum(flags.values()), 0)]))
        rules += [rule([call], [masked(0, bit, bit)], EPERM) for bit in flags.values()]
    return rules


def socket_rules(granted: set[str]) -> list[dict[str, Any]]:
    """Return rules for socket: local, internet and netlink; packet sockets with CAP_NET_RAW.

    Not vsock (it reaches the hypervisor), alg (the kernel's crypto code) or the dozens of families
    that load a module when first asked for.
    """
    families = [AF_UNIX, AF_INET, AF_INET6]
    rules = []
    if "CAP_NET_RAW" in granted:
        families.append(AF_PACKET)
    else:
        rules.append(rule(["socket"], [equal(0, AF_PACKET)], EPERM))
    rules += [rule(["socket"], [equal(0, family)]) for family in families]
    if "CAP_AUDIT_WRITE" in granted:
        rules.append(rule(["socket"], [equal(0, AF_NETLINK)]))
    else:
        # With this errno login, sudo and sshd take the kernel for one without audit and go on.
        audit = equal(2, NETLINK_AUDIT)
        rules.append(rule(["socket"], [equal(0, AF_NETLINK), audit], EPROTONOSUPPORT))
        rules.append(rule(["socket"], [equal(0, AF_NETLINK), {**audit, "op": "SCMP_CMP_NE"}]))
    usable = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET)
    others = [family for family in range(AF_PACKET) if family not in usable]
    rules += [rule(["socket"], [equal(0, family)], EAFNOSUPPORT) for family in others]
    above = {"index": 0, "value": AF_PACKET, "op": "SCMP_CMP_GT"}
    return [*rules, rule(["socket"], [above], EAFNOSUPPORT)]


def ioctl_rules() -> list[dict[str, Any]]:
    """Return rules for ioctl: every request but those that type into a terminal.

    With TIOCSTI, and TIOCLINUX on a console, a jail that was given the caller's terminal could
    put commands into the caller's shell.
    """
    requests = (TIOCSTI, TIOCLINUX)
    rules = [rule(["ioctl"], [masked(1, mask, value)]) for mask, value in all_but(requests)]
    return rules + [rule(["ioctl"], [masked(1, ALL_32, request)], EPERM) for request in requests]


def all_but(values: Iterable[int]) -> list[tuple[int, int]]:
    """Return (mask, value) pairs that match every 32-bit number but ``values``, each by one.

    A filter has no comparison "masked and not equal".  So: all numbers that share their upper
    bits with one of ``values`` and then differ from all of them in the next bit.
    """
    pairs = []
    for bit in range(31, -1, -1):
        below = (1 << bit) - 1
        mask = ALL_32 & ~below
        prefixes = {value & mask for value in values}
        siblings = {prefix ^ 1 << bit for prefix in prefixes}
        pairs += [(mask, sibling) for sibling in sorted(siblings - prefixes)]
    return pairs


def rule(names: list[str], args: list[dict[str, Any]], errno: int = 0) -> dict[str, Any]:
    """Return one entry of ``linux.seccomp.syscalls``; with an errno it refuses."""
    if errno:
        return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args}
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": args}


def equal(index: int, value: int) -> dict[str, Any]:
    """Return the condition that argument ``index`` is ``value``."""
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def masked(index: int, mask: int, value: int) -> dict[str, Any]:
    """Return the condition that argument ``index`` is ``value`` in the bits of ``mask``."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
