"""``run -it`` and ``exec -it`` in a terminal that the test has made.

The terminal must be as it was found afterwards, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import termios

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names
from tests.integration.cli.command import (
    PROGRAM,
    assert_refused,
    await_running,
    jailrun,
    output_of,
)
from tests.integration.cli.conftest import Open

# It speaks only once it is the program that no signal finds a handler in.
LINGER = "echo ready >/tmp/ready; exec tail -f /tmp/ready"
STUBBORN = "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done"


class TestConversation:
    """What is typed arrives, and what is printed is shown."""

    def test_size_and_its_change(self, terminal: Open) -> None:
        script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done"
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", script, size=(33, 99))
        shown.see("33 99\r\n")
        shown.resize(44, 111)
        shown.see("44 111\r\n")
        shown.process.terminate()
        assert shown.end() == 128 + signal.SIGTERM
        assert shown.is_as_found

    def test_interrupt_reaches_the_foreground_of_the_jail(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh")
        shown.see("# ")
        shown.type("sh -c 'echo u''p; exec sleep 1000'\r")
        shown.see("up\r\n")
        shown.type("\x03")
        shown.see("# ")
        shown.type("echo =$?=; exit 3\r")
        shown.see("=130=\r\n")
        assert shown.end() == 3
        assert shown.is_as_found

    @pytest.mark.parametrize(("key", "number"), [("\x03", 2), ("\x1c", 3)])
    def test_key_ends_a_payload_that_has_not_asked_for_it(
        self, terminal: Open, key: str, number: int
    ) -> None:
        """The first of a pid namespace would not even see it."""
        shown = terminal("run", "--rm", "-it", "busybox", "cat")
        shown.type("word\r")
        shown.see("word\r\nword\r\n")
        shown.type(key)
        assert shown.end() == 128 + number
        assert shown.is_as_found

    def test_quoted_key(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", "echo ready; exec cat -v")
        shown.see("ready\r\n")
        shown.type("\x16")
        shown.type("\x03\r")
        shown.see("\r\n^C\r\n")
        shown.type("\x04")
        assert shown.end() == 0

    def test_end_of_input(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", "echo ready; cat; echo over")
        shown.see("ready\r\n")
        shown.type("word\r")
        shown.see("word\r\nword\r\n")
        shown.type("\x04")
        shown.see("over\r\n")
        assert shown.end() == 0

    def test_keys_arrive_unchanged(self, terminal: Open) -> None:
        script = "stty raw -echo; echo ready; head -c 8 | od -An -tx1"
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", script)
        shown.see("ready")
        shown.type("\x03\x1a\x1c\x11\x13\r\n\x7f")
        shown.see("03 1a 1c 11 13 0d 0a 7f")
        assert shown.end() == 0
        assert shown.is_as_found

    def test_it_is_a_terminal_of_the_jails_own(self, terminal: Open) -> None:
        script = "tty; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo all; : < /dev/tty && echo mine"
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", script)
        shown.see("/dev/pts/0\r\nxterm\r\nall\r\nmine\r\n")
        assert shown.end() == 0

    def test_all_that_was_printed_is_shown(self, terminal: Open) -> None:
        """What is still in the terminal when its process ends is not lost."""
        shown = terminal("run", "--rm", "-it", "busybox", "seq", "20000")
        assert shown.end() == 0
        assert shown.said.endswith(b"\r\n20000\r\n")
        assert shown.said.count(b"\n") == 20000

    def test_a_lot_is_typed(self, terminal: Open) -> None:
        script = "stty raw -echo; echo ready; head -c 100000 | md5sum"
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", script)
        shown.see("ready")
        shown.type("x" * 50_000)
        shown.type("x" * 50_000)
        shown.see(hashlib.md5(b"x" * 100_000).hexdigest())
        assert shown.end() == 0

    def test_the_payload_may_close_it_and_come_back(self, terminal: Open) -> None:
        script = "exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back > /dev/console"
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", script)
        shown.see("back\r\n")
        assert shown.end() == 0

    def test_with_init(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "--init", "busybox", "sh", "-c", "echo up; cat")
        shown.see("up\r\n")
        shown.type("\x03")
        assert shown.end() == 130

    def test_exec(self, terminal: Open, name: str) -> None:
        output_of("run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
        shown = terminal(
            "exec", "-it", name, "sh", "-c", "stty size; tty; cat; exit 7", size=(20, 50)
        )
        shown.see("20 50\r\n/dev/pts/0\r\n")
        assert shown.is_raw
        shown.type("\x04")
        assert shown.end() == 7
        assert shown.is_as_found
        lifecycle.delete(name, force=True)

    def test_exec_ends_though_its_children_go_on(self, terminal: Open, name: str) -> None:
        output_of("run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
        shown = terminal("exec", "-it", name, "sh", "-c", "(trap '' HUP; sleep 1000) & echo up")
        shown.see("up\r\n")
        assert shown.end() == 0
        lifecycle.delete(name, force=True)


class TestEnd:
    """The terminal is left as it was found."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_signal(self, terminal: Open, number: int) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", LINGER)
        shown.see("ready\r\n")
        assert shown.is_raw
        shown.process.send_signal(number)
        assert shown.end() == 128 + number
        assert shown.is_as_found
        assert list_names() == []

    def test_stubborn_payload(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", STUBBORN)
        shown.see("ready\r\n")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            shown.send(number)
        assert shown.end() == 128 + signal.SIGKILL
        assert shown.is_as_found

    def test_jail_is_killed(self, terminal: Open, name: str) -> None:
        shown = terminal("run", "--rm", "-it", "--name", name, "busybox", "sh", "-c", LINGER)
        shown.see("ready\r\n")
        await_running(name)
        lifecycle.signal(name, signal.SIGKILL)
        assert shown.end() == 128 + signal.SIGKILL
        assert shown.is_as_found

    def test_window_is_closed(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", LINGER)
        shown.see("ready\r\n")
        os.close(shown.master)
        shown.master = -1
        assert shown.process.wait(60) == 128 + signal.SIGHUP
        assert list_names() == []

    def test_start_fails(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "nosuch")
        shown.see("cannot execute nosuch")
        assert shown.end() == 127
        assert shown.is_as_found

    def test_other_screen_and_hidden_cursor(self, terminal: Open) -> None:
        script = r"printf '\033[?1049h\033[?25l'; " + LINGER
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", script)
        shown.see("ready\r\n")
        shown.process.terminate()
        shown.end()
        assert shown.said.endswith(b"\033[?25h\033[?1049l")

    def test_jail_that_has_the_callers_own_terminal(self, terminal: Open) -> None:
        """Without -t its streams are the caller's; it may change their settings."""
        shown = terminal("run", "--rm", "-i", "busybox", "stty", "-echo", "-icanon")
        assert shown.end() == 0
        assert shown.is_as_found

    def test_stop_and_go_on(self, terminal: Open) -> None:
        shown = terminal("run", "--rm", "-it", "busybox", "sh", "-c", "echo ready; cat")
        shown.see("ready\r\n")
        shown.process.send_signal(signal.SIGTSTP)
        shown.await_stop()
        assert shown.is_as_found
        shown.process.send_signal(signal.SIGCONT)
        shown.type("on\r")
        shown.see("on\r\non\r\n")
        assert shown.is_raw
        shown.type("\x04")
        assert shown.end() == 0
        assert shown.is_as_found


class TestWithoutATerminal:
    """-t where the caller has none."""

    def test_output_to_a_pipe(self) -> None:
        assert output_of("run", "--rm", "-t", "busybox", "echo", "words") == "words\r\n"

    def test_it_needs_one(self) -> None:
        done = jailrun("run", "--rm", "-it", "busybox", "true")
        assert_refused(done, "-i with -t needs a terminal as standard input")

    def test_nobody_reads_the_output(self) -> None:
        """Its reader goes away: a hangup, which ends what would print for ever."""
        script = f"{PROGRAM} run --rm -t busybox yes | head -n 1"
        done = subprocess.run(
            ["/bin/bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (128 + signal.SIGHUP, b"y\r\n")
        assert list_names() == []

    def test_size_is_that_of_any_stream_that_is_one(self, terminal: Open) -> None:
        shown = terminal(
            "run", "--rm", "-t", "busybox", "sh", "-c", "stty size; " + LINGER, size=(21, 61)
        )
        shown.see("21 61")
        shown.see("ready")
        assert not shown.is_raw  # nothing is typed into it: the keys stay the caller's
        shown.type("\x03")
        assert shown.end() == 128 + signal.SIGINT
        assert termios.tcgetattr(shown.slave) == shown.found
