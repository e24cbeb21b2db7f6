"""The host's package sources, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import ImageError
from jailrun.images import apt, debootstrap

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://mirror.example/source
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://off.example x main
deb http://a.example/debian bookworm main # comment
deb [arch=amd64,arm64 signed-by=/k.gpg trusted=yes] https://b.example/s bookworm-security main
deb [ arch=amd64 ] https://c.example ./
deb-src http://a.example/debian bookworm main
deb
deb http://short
"""


def test_deb822() -> None:
    (source,) = apt.parse_deb822(DEB822)
    assert source.fields["uris"] == "http://mirror.example/debian"
    assert source.fields["types"] == "deb"
    assert source.fields["signed-by"].endswith("END PGP PUBLIC KEY BLOCK-----")
    assert apt.format_deb822([source]).count("\n") == 9


def test_one_line() -> None:
    first, second, third = apt.parse_one_line(ONE_LINE)
    assert (first.fields["uris"], first.fields["components"]) == ("http://a.example/debian", "main")
    assert second.fields["architectures"] == "amd64 arm64"
    assert second.fields["trusted"] == "yes"
    assert third.fields["suites"] == "./"


def test_only_the_distributions_own_sources_count() -> None:
    sources = [*apt.parse_deb822(DEB822), *apt.parse_one_line(ONE_LINE)]
    sources.append(
        apt.Source({"types": "deb", "uris": "u", "suites": "nodistro", "components": "main"})
    )
    chosen = apt.choose_sources(sources, suite="trixie", host_suite="bookworm", components=["main"])
    assert [source.fields["suites"] for source in chosen] == [
        *("trixie trixie-updates", "trixie", "trixie-security"),
    ]
    assert {source.fields["components"] for source in chosen} == {"main"}
    assert "architectures" not in chosen[2].fields


def test_the_hosts_files(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example x main\n")
    (parts / "b.sources").write_text(DEB822)
    (parts / "c.list").write_text("deb http://c.example x main\n")
    (parts / "d.list.disabled").write_text("deb http://d.example x main\n")
    uris = [source.fields["uris"] for source in apt.read_host_sources(tmp_path)]
    assert uris == ["http://a.example", "http://mirror.example/debian", "http://c.example"]
    assert apt.read_host_sources(tmp_path / "missing") == []


@given(st.text(alphabet="deb [=]#:\n\t./ax-", max_size=200))
def test_any_text_is_parsed(text: str) -> None:
    for source in [*apt.parse_deb822(text), *apt.parse_one_line(text)]:
        assert source.fields["types"] == "deb"


def test_without_sources_of_its_own_the_archive_is_the_public_one() -> None:
    common = {"mirror": "http://m.example", "security_mirror": "http://s.example"}
    main, security = apt.default_sources(suite="trixie", components=["main"], **common)
    assert main.fields["suites"] == "trixie trixie-updates"
    assert security.fields["suites"] == "trixie-security"
    assert len(apt.default_sources(suite="sid", components=["main"], **common)) == 1


def test_os_release(tmp_path: Path) -> None:
    (tmp_path / "os").write_text("# x\nID=debian\nVERSION_CODENAME='bookworm'\n\nPRETTY=\"a b\"\n")
    found = apt.read_os_release(tmp_path / "os")
    assert (found["ID"], found["VERSION_CODENAME"], found["PRETTY"]) == (
        *("debian", "bookworm"),
        "a b",
    )
    assert apt.read_os_release(tmp_path / "missing") == {}


def test_the_time_of_a_package(tmp_path: Path) -> None:
    for number in (5, 7, 6):
        header = b"!<arch>\n" + b"debian-binary   " + b"%-12d" % number + b"0     0     100644  4"
        (tmp_path / f"{number}.deb").write_bytes(header.ljust(80))
    assert apt.built_at(tmp_path.glob("*.deb")) == 7
    (tmp_path / "bad.deb").write_bytes(b"not a package")
    with pytest.raises(ImageError, match=r"bad\.deb is not a Debian package"):
        apt.built_at([tmp_path / "bad.deb"])


PACKAGES = """\
Package: one
Version: 1
Architecture: amd64
Filename: pool/one.deb
SHA256: 00
Description: a line
 and more

Package: one
Version: 1
Architecture: i386
Filename: pool/other.deb

Package: two
Version: 2
Architecture: all
Filename: pool/two.deb
Depends: one

Package: virtual
Version: 1
Architecture: all
"""


def test_the_list_of_packages(tmp_path: Path) -> None:
    stanzas = debootstrap.parse_packages(PACKAGES, "amd64")
    assert sorted(stanzas) == ["one", "two"]
    assert stanzas["one"]["Filename"] == "pool/one.deb"
    assert "Description" not in stanzas["one"]
    mirror = debootstrap.Mirror(tmp_path / "mirror", "bookworm", "amd64")
    mirror.write_lists(stanzas.values())
    lists = tmp_path / "mirror/dists/bookworm"
    text = (lists / "main/binary-amd64/Packages").read_text()
    assert text.endswith("\n\n")
    assert f"{len(text)} main/binary-amd64/Packages" in (lists / "Release").read_text()
    with pytest.raises(ImageError, match="cannot fetch the package three"):
        mirror.add_packages(tmp_path, stanzas, ["three"])
