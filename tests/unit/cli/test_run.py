"""What the options of ``run`` come to, and which signals end a process.

Out of scope: what the values mean (tests/unit/spec), and any jail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cli import asked as a
from jailrun.cli import options as o
from jailrun.cli import run as run_module
from jailrun.cli import start
from jailrun.cli.foreground import Receiver, is_default
from jailrun.errors import JailError
from jailrun.spec.compile import OPTIONS


def parse(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Return image, command and options of a command line, without running it."""
    seen: dict[str, Any] = {}

    def note(image: str, command: list[str] | None, given: dict[str, Any]) -> int:
        seen.update(given, image=image, command=command)
        return 0

    monkeypatch.setattr(run_module, "run_jail", note)
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(context_settings=o.CONTEXT_SETTINGS)(run_module.run)
    typer.main.get_command(app).main(args=list(words), standalone_mode=False)
    return seen


def request_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Return what a command line asks the compiler for, less what every one does."""
    asked: dict[str, Any] = {**a.make_request(parse(monkeypatch, *words))}
    if asked["network"] == [a.DEFAULT_NETWORK]:
        del asked["network"]
    return {key: value for key, value in asked.items() if value}


class TestCommandLine:
    """From words to options."""

    def test_options_after_the_image_are_the_commands(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = parse(monkeypatch, "-i", "busybox", "ls", "-l", "--rm", "--", "-t")
        assert given["image"] == "busybox"
        assert given["command"] == ["ls", "-l", "--rm", "--", "-t"]
        assert (given["interactive"], given["remove"], given["tty"]) == (True, False, False)

    def test_short_options_go_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = parse(monkeypatch, "-it", "-m64M", "-e", "A=1", "-eB=2", "busybox")
        assert given["interactive"]
        assert given["tty"]
        assert given["memory"] == "64M"
        assert given["env"] == ["A=1", "B=2"]

    @pytest.mark.parametrize(
        ("words", "asked"),
        [
            ((), {}),
            (("--memory", "64M", "--swap", "-1"), {"memory": "64M", "swap": "-1"}),
            (("--cpus", "0.5", "-c", "512"), {"cpus": "0.5", "cpu_shares": "512"}),
            (("--cpuset-cpus", "0-1"), {"cpuset": "0-1"}),
            (("--pids-limit", "32"), {"pids": "32"}),
            (("--network", "host"), {"network": ["host"]}),
            (("--net", "none"), {"network": ["none"]}),
            (("--net", "a", "--network", "b,ip=10.0.0.9"), {"network": ["a", "b,ip=10.0.0.9"]}),
            (("--ip", "10.0.0.9"), {"network": ["default,ip=10.0.0.9"]}),
            (
                ("--net", "a", "--net", "b", "--ip6", "fd00::9", "--mac-address", "02::1"),
                {"network": ["a,ip6=fd00::9,mac=02::1", "b"]},
            ),
            (("-p", "80:80", "--publish", "53/udp"), {"publish": ["80:80", "53/udp"]}),
            (("--allow", "in:tcp:80", "--deny", "in"), {"allow": ["in:tcp:80"], "deny": ["in"]}),
            (
                ("--dns", "192.0.2.1", "--dns-search", "a"),
                {"dns": ["192.0.2.1"], "dns_search": ["a"]},
            ),
            (("--dns-option", "rotate"), {"dns_option": ["rotate"]}),
            (("--add-host", "db:192.0.2.1"), {"add_host": ["db:192.0.2.1"]}),
            (("-u", "nobody", "-w", "/tmp"), {"user": "nobody", "workdir": "/tmp"}),
            (("-h", "box"), {"hostname": "box"}),
            (("--allow", "mount", "--allow", "fuse"), {"allow": ["mount", "fuse"]}),
            (("--device", "/dev/fuse"), {"devices": ["/dev/fuse"]}),
            (("-l", "a=b", "--label", "c"), {"labels": {"a": "b", "c": ""}}),
            (("--time-offset", "boottime=-1h"), {"time_offsets": {"boottime": "-1h"}}),
            (("--entrypoint", "/bin/sh"), {"entrypoint": ["/bin/sh"]}),
            (("--read-only", "--init", "-t"), {"read_only": True, "init": True, "tty": True}),
            (("-v", "/a:/b:ro"), {"volumes": ["/a:/b:ro"]}),
        ],
    )
    def test_request(
        self, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], asked: dict[str, Any]
    ) -> None:
        assert request_of(monkeypatch, *words, "busybox") == asked

    def test_without_a_network_it_is_the_default_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert a.make_request(parse(monkeypatch, "busybox"))["network"] == ["default"]

    @pytest.mark.parametrize("option", ["--ip", "--ip6", "--mac-address"])
    @pytest.mark.parametrize("value", ["", "10.0.0.9,name=x"])
    def test_an_address_of_the_first_network_is_one_word(
        self, monkeypatch: pytest.MonkeyPatch, option: str, value: str
    ) -> None:
        given = parse(monkeypatch, option, value, "busybox")
        with pytest.raises(JailError, match="is not an address") as caught:
            a.make_request(given)
        assert caught.value.hint

    def test_empty_entrypoint_takes_the_images_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = parse(monkeypatch, "--entrypoint", "", "busybox")
        assert a.make_request(given)["entrypoint"] == []

    def test_source_from_the_current_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        asked = request_of(monkeypatch, "-v", "./a:/b", "-v", ".:/c:ro", "-v", "x:/d", "busybox")
        assert asked["volumes"] == [f"{tmp_path}/a:/b", f"{tmp_path}:/c:ro", "x:/d"]

    def test_all_that_is_asked_for_exists(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert set(a._SAME) <= set(OPTIONS)
        assert set(a._SAME) <= set(parse(monkeypatch, "busybox"))

    @pytest.mark.parametrize(
        "words",
        [
            ("-d", "-i", "busybox"),
            ("--format", "xml", "busybox"),
            ("--format", "json", "busybox"),
        ],
    )
    def test_contradictions(self, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
        given = parse(monkeypatch, *words)
        with pytest.raises(JailError) as caught:
            start._check(given)
        assert caught.value.hint

    def test_every_option_has_one_line_of_help(self) -> None:
        app = typer.Typer(rich_markup_mode=None)
        app.command()(run_module.run)
        for parameter in typer.main.get_command(app).params:
            text = getattr(parameter, "help", None)
            assert text, parameter.name
            assert "\n" not in text
            assert text[0].isupper()
            assert text.endswith(".")


class TestEnvironment:
    """--env and --env-file."""

    OWN = {"HOME": "/home/me", "LANG": "C"}  # noqa: RUF012

    def test_name_alone_takes_the_callers_value(self) -> None:
        found = a.read_environment(["LANG", "NONE", "A=1=2", "B="], [], self.OWN)
        assert found == {"LANG": "C", "A": "1=2", "B": ""}

    def test_file(self, tmp_path: Path) -> None:
        file = tmp_path / "env"
        file.write_text('# no\n\nA=1\r\n  B=two words # kept\nHOME\nNONE\nQ="x"\n')
        found = a.read_environment(["A=3"], [str(file)], self.OWN)
        assert found == {"A": "3", "B": "two words # kept", "HOME": "/home/me", "Q": '"x"'}

    def test_later_files_win(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).write_text(f"X={name}")
        files = [str(tmp_path / "a"), str(tmp_path / "b")]
        assert a.read_environment([], files, {}) == {"X": "b"}

    @pytest.mark.parametrize("text", ["=x", "", "A B=1", "A\0=1", " A=1"])
    def test_not_a_variable(self, text: str) -> None:
        with pytest.raises(JailError, match="is not a variable"):
            a.read_environment([text], [], {})

    def test_a_file_names_its_bad_line(self, tmp_path: Path) -> None:
        file = tmp_path / "env"
        file.write_text("A=1\n=2\n")
        with pytest.raises(JailError, match=f"{file}:2: '=2' is not a variable"):
            a.read_environment([], [str(file)], {})

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(JailError, match="No such file"):
            a.read_environment([], [str(tmp_path / "none")], {})
        with pytest.raises(JailError, match="Is a directory"):
            a.read_environment([], [str(tmp_path)], {})

    def test_a_file_without_end_is_refused(self) -> None:
        with pytest.raises(JailError, match="too large"):
            a.read_environment([], ["/dev/zero"], {})

    @given(st.lists(st.text()))
    def test_anything(self, texts: list[str]) -> None:
        try:
            found = a.read_environment(texts, [], self.OWN)
        except JailError:
            return
        assert all(name and "=" not in name for name in found)


def status_text(*, blocked: int = 0, ignored: int = 0, caught: int = 0) -> bytes:
    """Return the lines of /proc/PID/status that matter."""
    return (
        f"Name:\tSigBlk: x\nSigQ:\t0/1\nSigPnd:\t{2**14:016x}\n"
        f"SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
    ).encode()


class TestSignals:
    """What a signal does to a process that has not asked for it."""

    TERM, RTMAX = 15, 64

    def test_default(self) -> None:
        assert is_default(status_text(), self.TERM)
        assert is_default(status_text(caught=1 << 13, blocked=1 << 15), self.TERM)

    @pytest.mark.parametrize("field", ["blocked", "ignored", "caught"])
    @pytest.mark.parametrize("number", [1, 15, 64])
    def test_asked_for(self, field: str, number: int) -> None:
        assert not is_default(status_text(**{field: 1 << (number - 1)}), number)

    def test_the_status_is_that_of_the_signal_it_was_ended_for(self) -> None:
        receiver = Receiver(1, -1, is_init=True)
        receiver.ended_by = 15
        assert receiver.host_status(-9) == 143
        assert receiver.host_status(-11) == 139  # it was quicker
        assert receiver.host_status(7) == 7
        receiver.ended_by = 0
        assert receiver.host_status(-9) == 137
