"""What a program has switched on or off in a terminal by what it printed, to be switched back.

Owns: `Modes`.  Out of scope: the settings of the line discipline (`jailrun.cli.terminal`).
"""

from __future__ import annotations


class Modes:
    """Follows the modes that a program switches on or off in the terminal by what it prints.

    A killed editor leaves the other screen, a hidden cursor, a mouse that types.  Followed are
    DEC's private modes, as xterm's manual (ctlseqs) has them: ``ESC [ ? number h`` and ``l``.
    """

    ON = frozenset((25,))  # in a terminal as found: the cursor is shown
    OFF = frozenset(
        (1, 9, 47, 66, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004)
    )
    LONGEST = 32  # bytes of a sequence that is in two pieces

    def __init__(self) -> None:
        self.changed: set[int] = set()
        self._rest = b""

    def follow(self, data: bytes) -> None:
        """Take note of what is in the next piece of output; a sequence may be in two pieces."""
        if b"\x1b" not in data and not self._rest:
            return
        sequences = (self._rest + data).split(b"\x1b")[1:]
        self._rest = b""
        for sequence in sequences:
            if sequence.startswith(b"[?"):
                self._take(sequence)
        if sequences and b"[?".startswith(sequences[-1][:2]) and _is_open(sequences[-1]):
            self._rest = b"\x1b" + sequences[-1]

    def _take(self, sequence: bytes) -> None:
        end = 2
        while end < len(sequence) and sequence[end] in b"0123456789;":
            end += 1
        switch = sequence[end : end + 1]
        if switch not in (b"h", b"l"):
            return
        for text in sequence[2:end].split(b";"):
            number = int(text) if 0 < len(text) <= 4 else 0
            if number not in self.ON | self.OFF:
                continue
            if (switch == b"h") is (number in self.ON):
                self.changed.discard(number)
            else:
                self.changed.add(number)

    def undo(self) -> bytes:
        """Return what puts the terminal's modes back."""
        parts = [
            b"\x1b[?%d%c" % (number, b"h" if number in self.ON else b"l")
            for number in sorted(self.changed)
        ]
        self.changed.clear()
        return b"".join(parts)


def _is_open(sequence: bytes) -> bool:
    """Tell whether a sequence may go on in the next piece."""
    return len(sequence) < Modes.LONGEST and not sequence[2:].strip(b"0123456789;")
