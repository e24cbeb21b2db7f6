"""The default seccomp profile: what it lets through, call by call, as the compiled filter says."""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import SpecError
from jailrun.security import compile as compiler
from jailrun.security import profile, seccomp
from jailrun.security.capabilities import NAMES
from tests.unit.security.bpf import X86, X86_64, answer

DEFAULT = ("CAP_CHOWN", "CAP_SYS_CHROOT")
CLONE = 56
UNSHARE = 272
CLONE3 = 435
SOCKET = 41
SOCKET_X86 = 359  # libseccomp resolves it to a number of its own
IOCTL = 16
PERSONALITY = 135


@cache
def filter_for(capabilities: tuple[str, ...] = DEFAULT, allow: tuple[str, ...] = ()) -> bytes:
    return compiler.compile_profile(profile.default_profile(capabilities, allow))


@cache
def number(name: str, arch: int = X86_64) -> int:
    return int(compiler.load_library().seccomp_syscall_resolve_name_arch(arch, name.encode()))


def test_digest_in_cache_names_is_of_this_profile() -> None:
    variants = [
        profile.default_profile(capabilities, allow, machine)
        for machine in profile.ARCHITECTURES
        for capabilities, allow in (
            ((), ()),
            *(((name,), ()) for name in NAMES),
            *(((), (name,)) for name in profile.ALLOW_NAMES),
        )
    ]
    text = "\n".join(seccomp.canonical_json(variant) for variant in variants)
    digest = sha256(text.encode()).hexdigest()[:16]
    assert digest == seccomp.PROFILE_DIGEST, f'set PROFILE_DIGEST = "{digest}"'


def test_names_stand_once_and_exist() -> None:
    everything = profile.default_profile(NAMES, profile.ALLOW_NAMES)
    names = [name for rule in everything["syscalls"] for name in rule["names"]]
    assert sorted(set(names)) == sorted(names)
    # Calls newer than the libseccomp of Debian 12; ENOSYS until it knows them.
    newer = {
        *("file_getattr", "file_setattr", "getxattrat", "listmount", "listxattrat", "mseal"),
        *("lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "open_tree_attr"),
        *("removexattrat", "setxattrat", "statmount", "uretprobe"),
    }
    assert set(compiler.unknown_names(everything)) <= newer


@pytest.mark.parametrize("arch", [X86_64, X86])
@pytest.mark.parametrize(
    "name", ["read", "openat", "execve", "mmap", "futex", "ptrace", "mknod", "kill", "seccomp"]
)
def test_ordinary_calls_work(name: str, arch: int) -> None:
    assert answer(filter_for(), number(name, arch), arch=arch) == "allow"


@pytest.mark.parametrize("arch", [X86_64, X86])
@pytest.mark.parametrize(
    "name",
    [
        *("kexec_load", "swapon", "init_module", "finit_module", "bpf", "perf_event_open"),
        *("userfaultfd", "io_uring_setup", "keyctl", "add_key", "mount", "umount2", "pivot_root"),
        *("open_by_handle_at", "reboot", "settimeofday", "acct", "quotactl", "syslog", "iopl"),
        *("setns", "sethostname", "move_mount", "open_tree", "fsopen", "fanotify_init", "kcmp"),
    ],
)
def test_dangerous_calls_are_refused(name: str, arch: int) -> None:
    assert answer(filter_for(), number(name, arch), arch=arch) == EPERM


@pytest.mark.parametrize("call", [CLONE3, 463, 500, 1000, 0x3FFFFFFF])
def test_unknown_calls_do_not_exist(call: int) -> None:
    assert answer(filter_for(), call) == ENOSYS


def test_other_interfaces_do_not_exist() -> None:
    assert answer(filter_for(), 0x40000000 | 39) == ENOSYS  # x32
    assert answer(filter_for(), 39, arch=0x12345678) == ENOSYS


@pytest.mark.parametrize("flag", profile.CLONE_NEW.values())
def test_no_namespace_is_made(flag: int) -> None:
    assert answer(filter_for(), UNSHARE, [flag]) == EPERM
    if flag != profile.CLONE_NEW["CLONE_NEWTIME"]:
        assert answer(filter_for(), CLONE, [flag | 17]) == EPERM
        assert answer(filter_for(), CLONE, [flag | 1 << 40]) == EPERM


def test_threads_and_processes_are_made() -> None:
    assert answer(filter_for(), CLONE, [17]) == "allow"
    assert answer(filter_for(), CLONE, [0x3D0F00]) == "allow"  # pthread_create
    assert answer(filter_for(), UNSHARE, [0x600]) == "allow"  # CLONE_FS, CLONE_FILES


@pytest.mark.parametrize(("capabilities", "allow"), [(("CAP_SYS_ADMIN",), ()), ((), ("nesting",))])
def test_nesting(capabilities: tuple[str, ...], allow: tuple[str, ...]) -> None:
    loosened = filter_for(capabilities, allow)
    assert answer(loosened, CLONE, [0x10000000 | 17]) == "allow"
    assert answer(loosened, CLONE3) == "allow"
    assert answer(loosened, UNSHARE, [0x10000000]) == "allow"
    assert answer(loosened, number("mount")) == "allow"
    assert answer(loosened, number("pivot_root")) == "allow"


@pytest.mark.parametrize("family", range(64))
def test_socket_families(family: int) -> None:
    usable = (profile.AF_UNIX, profile.AF_INET, profile.AF_INET6, profile.AF_NETLINK)
    expected = "allow" if family in usable else EPERM if family == 17 else EAFNOSUPPORT
    assert answer(filter_for(), SOCKET, [family, 1, 0]) == expected
    assert answer(filter_for(), SOCKET_X86, [family, 1, 0], X86) == expected
    assert answer(filter_for((), ("sockets",)), SOCKET, [family, 1, 0]) == "allow"


@pytest.mark.parametrize("family", [38, 40])
def test_upper_half_of_a_family_opens_nothing(family: int) -> None:
    assert answer(filter_for(), SOCKET, [family | 1 << 32, 1, 0]) != "allow"


def test_sockets_by_capability() -> None:
    assert answer(filter_for(("CAP_NET_RAW",)), SOCKET, [17, 3, 0]) == "allow"
    assert answer(filter_for(), SOCKET, [16, 3, 9]) == EPROTONOSUPPORT
    assert answer(filter_for(("CAP_AUDIT_WRITE",)), SOCKET, [16, 3, 9]) == "allow"


@pytest.mark.parametrize("call", range(1, 21))
def test_socketcall_is_no_way_around(call: int) -> None:
    socketcall = number("socketcall", X86)
    assert answer(filter_for(), socketcall, [call], X86) == EPERM
    assert answer(filter_for((), ("socketcall",)), socketcall, [call], X86) == "allow"


@pytest.mark.parametrize("request_number", [profile.TIOCSTI, profile.TIOCLINUX])
@pytest.mark.parametrize("upper", [0, 1, 0xFFFFFFFF])
def test_no_typing_into_terminals(request_number: int, upper: int) -> None:
    assert answer(filter_for(), IOCTL, [0, upper << 32 | request_number]) == EPERM
    assert answer(filter_for((), ("terminal",)), IOCTL, [0, request_number]) == "allow"


@given(st.integers(0, 2**64 - 1) | st.integers(0x5400, 0x5480))
def test_every_other_ioctl_works(request_number: int) -> None:
    refused = request_number & 0xFFFFFFFF in (profile.TIOCSTI, profile.TIOCLINUX)
    expected = EPERM if refused else "allow"
    assert answer(filter_for(), IOCTL, [0, request_number]) == expected


@given(st.sets(st.integers(0, 255), min_size=1, max_size=4), st.integers(0, 300))
def test_all_but_matches_every_number_once(values: set[int], number: int) -> None:
    matches = [pair for pair in profile.all_but(values) if number & pair[0] == pair[1]]
    assert len(matches) == (0 if number in values else 1)


def test_personality() -> None:
    assert answer(filter_for(), PERSONALITY, [0]) == "allow"
    assert answer(filter_for(), PERSONALITY, [0xFFFFFFFF]) == "allow"
    assert answer(filter_for(), PERSONALITY, [0x400000]) == ENOSYS  # READ_IMPLIES_EXEC
    assert answer(filter_for((), ("personality",)), PERSONALITY, [0x400000]) == "allow"


@pytest.mark.parametrize(("capability", "group"), profile.BY_CAPABILITY.items())
def test_capabilities_bring_their_calls(capability: str, group: str) -> None:
    with_it = filter_for((capability,))
    for name in group.split():
        if number(name) >= 0:
            assert answer(with_it, number(name)) == "allow", name


@pytest.mark.parametrize("name", profile.ALLOW_NAMES)
def test_loosening_is_one_thing_at_a_time(name: str) -> None:
    plain, loosened = filter_for((), ()), filter_for((), (name,))
    changed = profile.words(profile.BY_NAME[name])
    if name == "nesting":
        changed |= {"clone", "unshare"}
    elif name == "sockets":
        changed |= {"socketcall"}
    for call in range(470):
        if call not in {number(each) for each in changed}:
            assert answer(plain, call, [3]) == answer(loosened, call, [3]), call


def test_unknown_loosening() -> None:
    with pytest.raises(SpecError, match="'io-uring' cannot be allowed") as caught:
        profile.default_profile((), ("io-uring",))
    assert "io_uring" in str(caught.value.hint)
