"""Which suite and which sources a Debian image is made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailrun.errors import ImageError
from jailrun.images import apt, debootstrap
from jailrun.images.recipe import find_recipe, read_recipe

HOST = [
    apt.Source(
        {
            "types": "deb",
            "uris": "http://host.example",
            "suites": "bookworm",
            "components": "main",
        }
    )
]


@pytest.mark.parametrize(
    ("host", "tag", "suite", "uri"),
    [
        (("debian", "bookworm"), "latest", "bookworm", "http://host.example"),
        (("debian", "bookworm"), "trixie", "trixie", "http://host.example"),
        (("debian", "bookworm"), "sid", "sid", "http://host.example"),
        (("ubuntu", "noble"), "latest", "bookworm", "http://deb.debian.org/debian"),
        (("fedora", ""), "sid", "sid", "http://deb.debian.org/debian"),
    ],
)
def test_the_choice(
    monkeypatch: pytest.MonkeyPatch, host: tuple[str, str], tag: str, suite: str, uri: str
) -> None:
    release = {"ID": host[0], "VERSION_CODENAME": host[1]}
    monkeypatch.setattr(apt, "read_os_release", lambda: release)
    monkeypatch.setattr(apt, "read_host_sources", lambda: HOST)
    chosen, sources = debootstrap.choose(find_recipe("debian"), tag)
    assert chosen == suite
    assert sources[0].fields["uris"] == uri
    assert sources[0].fields["suites"].split()[0] == suite


@pytest.mark.parametrize("suite", ["-x", "a.b", "a_b", ""])
def test_what_is_no_suite(suite: str) -> None:
    with pytest.raises(ImageError, match="not the name of a suite"):
        debootstrap.find_script(suite)


def test_a_recipe_can_fix_its_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[image]\nname = "web"\n'
        '[build]\nbase = "debootstrap"\nsuite = "trixie"\nmirror = "http://m.example"\n'
    )
    monkeypatch.setattr(
        apt, "read_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    )
    monkeypatch.setattr(apt, "read_host_sources", lambda: HOST)
    for tag, suite in (("latest", "trixie"), ("sid", "sid")):
        chosen, sources = debootstrap.choose(read_recipe(tmp_path), tag)
        assert chosen == suite
        assert sources[0].fields["uris"] == "http://host.example"
