"""From an image and a request to a config: hostile images, users, profiles, limits."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jailrun import assemble as module
from jailrun.assemble import assemble, assemble_process, assemble_resources, find_user
from jailrun.errors import ImageError, JailError, NotFoundError, SecurityError
from jailrun.images.lookup import Image
from jailrun.kernel import fallback
from jailrun.rootfs import inside
from jailrun.spec.default import default_config
from jailrun.spec.facts import HostFacts

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/srv/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1001:\ndisk:x:6:web\naudio:x:63:\n"
RAW_SYSCALL, ADDRESS = (
    fallback.syscall,
    fallback.address,
)  # before the unit tests' ground takes them


@pytest.fixture(autouse=True)
def openat2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this one call through: it makes nothing."""

    class Executor:
        address = staticmethod(ADDRESS)

    def call(name: str, *args: int) -> int:
        assert name == "openat2"
        result = RAW_SYSCALL(437, *args)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    monkeypatch.setattr(inside, "load_executor", Executor)
    monkeypatch.setattr(inside, "syscall", call)
    monkeypatch.setattr(module, "read_facts", make_facts)
    module._users.clear()


def make_facts(*, rlimits_asked: bool = True) -> HostFacts:
    return HostFacts(cpu_numbers={0, 1}, memory_bytes=1 << 30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with a root file system."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    return root


@pytest.fixture
def use_image(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Image]:
    """Return what makes the store hold one image."""

    def use(*layers: Path, **config: Any) -> Image:
        image = Image("box", digest="sha256:1", layers=tuple(map(str, layers)), config=config)
        monkeypatch.setattr(module, "resolve", lambda _: image)
        return image

    return use


def environment(process: Any) -> dict[str, str]:
    return dict(each.split("=", 1) for each in process["env"])


def test_image_and_request_meet(root: Path, use_image: Callable[..., Image]) -> None:
    use_image(root, env=["A=1", "B=1"], cmd=["serve"], workdir="/srv", user="web")
    made = assemble("box", None, env={"B": "2"}, memory="64M", name="one")
    process = made.config["process"]
    assert process["args"] == ["serve"]
    assert process["cwd"] == "/srv"
    assert process["user"] == {"uid": 1000, "gid": 1001, "umask": 0o022, "additionalGids": [6]}
    wanted = {"A": "1", "B": "2", "HOME": "/srv/web", "HOSTNAME": "one"}
    assert wanted.items() <= environment(process).items()
    assert made.config["jailrun"]["layers"] == [str(root)]
    assert made.config["linux"]["resources"]["memory"]["limit"] == 64 << 20
    assert (made.name, made.config["hostname"]) == ("one", "one")


def test_jail_without_a_name_gets_one(root: Path, use_image: Callable[..., Image]) -> None:
    use_image(root)
    first, second = assemble("box", ["true"]), assemble("box", ["true"])
    assert first.name != second.name
    assert first.config["hostname"] == first.name


def test_what_the_user_says_beats_what_is_found(
    root: Path, use_image: Callable[..., Image]
) -> None:
    use_image(root)
    made = assemble("box", ["true"], user="web", env=["HOME=/x", "HOSTNAME=y"], hostname="z")
    variables = environment(made.config["process"])
    assert (variables["HOME"], variables["HOSTNAME"], made.config["hostname"]) == ("/x", "y", "z")


@pytest.mark.parametrize("uts", ["host", "/proc/1/ns/uts"])
def test_host_is_not_renamed(root: Path, use_image: Callable[..., Image], uts: str) -> None:
    use_image(root)
    config = assemble("box", ["true"], uts=uts, name="one").config
    assert "hostname" not in config
    assert environment(config["process"])["HOSTNAME"] == os.uname().nodename


def test_terminal_has_a_type(root: Path, use_image: Callable[..., Image]) -> None:
    use_image(root)
    assert environment(assemble("box", ["sh"], tty=True).config["process"])["TERM"] == "xterm"
    assert "TERM" not in environment(assemble("box", ["sh"]).config["process"])


def test_folder_is_used_in_place(root: Path) -> None:
    config = assemble(str(root), ["true"], user="web").config
    assert config["root"]["path"] == str(root)
    assert "layers" not in config["jailrun"]
    assert config["process"]["user"]["uid"] == 1000


def test_missing_image_is_not_built_where_that_is_not_wanted() -> None:
    with pytest.raises(NotFoundError, match="there is no image box"):
        assemble("box", ["true"], build=False)
    with pytest.raises(ImageError):
        assemble("BOX", ["true"], build=False)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("root", (0, 0, [])),
        ("web", (1000, 1001, [6])),
        ("web:disk", (1000, 6, [])),
        ("web:5", (1000, 5, [])),
        ("1000", (1000, 1001, [6])),
        ("77", (77, 0, [])),
        ("77:audio", (77, 63, [])),
    ],
)
def test_users(root: Path, wanted: str, ids: tuple[int, int, list[int]]) -> None:
    user = find_user(Image("box", root=str(root)), wanted)
    assert (user.uid, user.gid, user.additional_gids) == ids


def test_further_groups(root: Path) -> None:
    user = find_user(Image("box", root=str(root)), "web", ("audio", "99"))
    assert user.additional_gids == [6, 63, 99]


def test_unknown_names_are_errors(root: Path) -> None:
    image = Image("box", root=str(root))
    for wanted, words in (("nobody", "user 'nobody'"), ("web:none", "group 'none'")):
        with pytest.raises(SecurityError, match=words):
            find_user(image, wanted)


# --- hostile files --------------------------------------------------------------------------------
def open_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def replace_with_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def replace_with_long_way_out(path: Path) -> None:
    path.symlink_to("../../../../../../../../etc/passwd")


def replace_with_fifo(path: Path) -> None:
    os.mkfifo(path)


def replace_with_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def replace_with_folder(path: Path) -> None:
    path.mkdir()


def replace_with_loop(path: Path) -> None:
    path.symlink_to("passwd")


def replace_with_magic_link(path: Path) -> None:
    path.symlink_to("/proc/self/exe")


def replace_with_nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    "replace",
    [
        replace_with_link,
        replace_with_long_way_out,
        replace_with_fifo,
        replace_with_socket,
        replace_with_folder,
        replace_with_loop,
        replace_with_magic_link,
        replace_with_nothing,
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_hostile_passwd_counts_as_none(
    root: Path, replace: Callable[[Path], None], count: int
) -> None:
    """The host's own root is found in none of them."""
    (root / "etc" / "passwd").unlink()
    replace(root / "etc" / "passwd")
    empty = root.parent / "empty"
    empty.mkdir()
    image = Image("box", layers=(str(root), str(empty))[:count])
    before = open_descriptors()
    with pytest.raises(SecurityError):
        find_user(image, "root")
    user = find_user(image, "1000")
    assert (user.gid, user.name) == (0, "")
    assert open_descriptors() == before


def test_etc_may_be_a_link_within_the_root(root: Path) -> None:
    (root / "usr").mkdir()
    (root / "etc").rename(root / "usr" / "etc")
    (root / "etc").symlink_to("/usr/etc")
    for layers in ((str(root),), (str(root), str(root))):
        assert find_user(Image("box", layers=layers), "web").uid == 1000


def test_huge_passwd_is_read_up_to_a_limit(root: Path) -> None:
    with (root / "etc" / "passwd").open("ab") as file:
        file.truncate(1 << 40)
    assert find_user(Image("box", root=str(root)), "web").uid == 1000


# --- layers ---------------------------------------------------------------------------------------
@pytest.fixture
def layers(root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return an upper layer that is empty, and the root as the lower one."""
    upper = tmp_path / "upper"
    upper.mkdir()
    return upper, root


def find(layers: tuple[Path, ...], wanted: str) -> int:
    return find_user(Image("box", layers=tuple(map(str, layers))), wanted).uid


def test_lower_layer_is_looked_into(layers: tuple[Path, Path]) -> None:
    assert find(layers, "web") == 1000


def test_upper_file_hides_the_lower(layers: tuple[Path, Path]) -> None:
    (layers[0] / "etc").mkdir()
    (layers[0] / "etc" / "passwd").write_text("web:x:5:5::/:\n")
    assert find(layers, "web") == 5


def test_link_from_one_layer_into_the_other(layers: tuple[Path, Path]) -> None:
    (layers[0] / "etc").mkdir()
    (layers[0] / "etc" / "passwd").symlink_to("../../usr/./lib/passwd")
    (layers[1] / "usr" / "lib").mkdir(parents=True)
    (layers[1] / "usr" / "lib" / "passwd").write_text("web:x:7:7::/:\n")
    assert find(layers, "web") == 7


def test_opaque_folder_hides_the_lower(layers: tuple[Path, Path]) -> None:
    (layers[0] / "etc").mkdir()
    try:
        os.setxattr(layers[0] / "etc", "user.overlay.opaque", b"y")
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    with pytest.raises(SecurityError):
        find(layers, "web")


def test_file_in_place_of_a_folder_hides_the_lower(layers: tuple[Path, Path]) -> None:
    (layers[0] / "etc").write_text("")
    with pytest.raises(SecurityError):
        find(layers, "web")


def test_whiteouts(tmp_path: Path) -> None:
    """A character device 0:0, or an empty file with the attribute."""
    made = cast("os.stat_result", SimpleNamespace(st_mode=stat.S_IFCHR, st_rdev=0, st_size=0))
    assert inside._is_whiteout(made, -1)
    file = tmp_path / "file"
    file.write_text("")
    fd = os.open(file, os.O_RDONLY)
    assert not inside._is_whiteout(os.fstat(fd), fd)
    os.close(fd)


# --- seccomp profiles -----------------------------------------------------------------------------
def test_profile_is_loaded(root: Path, tmp_path: Path, use_image: Callable[..., Image]) -> None:
    use_image(root)
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    for option in (f"seccomp={path}", f"seccomp:{path}"):
        config = assemble("box", ["true"], security_opt=[option]).config
        assert config["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON: "),
        ("", "is not valid JSON: "),
        ("[]", "is not a JSON object"),
        ('{"defaultAction": "NO"}', "seccomp profile"),
        ("\xff", "is not valid JSON: "),
    ],
)
def test_bad_profile_is_an_error(
    text: str, words: str, root: Path, tmp_path: Path, use_image: Callable[..., Image]
) -> None:
    use_image(root)
    path = tmp_path / "profile.json"
    path.write_text(text, "latin-1")
    with pytest.raises(JailError, match=words):
        assemble("box", ["true"], security_opt=[f"seccomp={path}"])


@pytest.mark.parametrize("path", ["/none/there", "/", "a\0b"])
def test_profile_that_cannot_be_read(
    path: str, root: Path, use_image: Callable[..., Image]
) -> None:
    use_image(root)
    with pytest.raises(JailError, match="cannot read the seccomp profile"):
        assemble("box", ["true"], security_opt=[f"seccomp={path}"])


def test_last_profile_counts(root: Path, use_image: Callable[..., Image]) -> None:
    use_image(root)
    options = ["seccomp=/none/there", "seccomp=unconfined"]
    config = assemble("box", ["true"], security_opt=options).config
    assert "seccomp" not in config["jailrun"]
    assert "seccomp" not in config["linux"]


# --- a jail that runs -----------------------------------------------------------------------------
def test_process_is_as_the_template_but_for_what_is_given() -> None:
    template = default_config()["process"]
    template["env"] = ["A=1", "B=1"]
    process = assemble_process(1, template, ["id"], env={"B": "2"}, workdir="/tmp")
    assert process["args"] == ["id"]
    assert process["env"] == ["A=1", "B=2"]
    assert process["cwd"] == "/tmp"
    assert process["capabilities"] == template["capabilities"]
    assert template["args"] == ["sh"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env": ["A"]}, "env"),
        ({"env": {"A=B": "1"}}, "is not the name of a variable"),
        ({"workdir": "tmp"}, "is not an absolute path"),
    ],
)
def test_bad_process(change: Any, words: str) -> None:
    with pytest.raises(JailError, match=words):
        assemble_process(1, default_config()["process"], ["id"], **change)
    with pytest.raises(JailError, match="no command given"):
        assemble_process(1, default_config()["process"], [])


def test_new_limit_of_memory_leaves_the_swap_beyond_it() -> None:
    config = default_config()
    config["linux"]["resources"]["memory"] = {"limit": 64 << 20, "swap": 96 << 20}
    resources = assemble_resources(config, memory="128M")
    assert resources == {"memory": {"limit": 128 << 20, "swap": 160 << 20}}
    assert assemble_resources(config, memory="128M", swap=0)["memory"]["swap"] == 128 << 20
    config["linux"]["resources"]["memory"]["swap"] = -1
    assert assemble_resources(config, memory="128M")["memory"]["swap"] == -1


def test_update_needs_a_limit_that_this_host_has() -> None:
    with pytest.raises(JailError, match="no limit given"):
        assemble_resources(default_config())
    with pytest.raises(JailError, match="more than this host has"):
        assemble_resources(default_config(), cpus=9999)
