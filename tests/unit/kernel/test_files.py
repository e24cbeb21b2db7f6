"""Small files are read whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailrun.kernel.files import CHUNK_BYTES, read_file, read_own_status


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_whole_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert read_file(str(path)) == b"x" * size


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path / "missing"))


def test_fields_of_the_own_status() -> None:
    status = Path("/proc/thread-self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status)
    for name in ("Umask", "CapEff", "CapPrm"):
        assert read_own_status(name).decode() == fields[name].strip()
