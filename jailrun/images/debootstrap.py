"""The recipe base ``debootstrap``: a Debian root from packages that apt has fetched.

Owns: `make_debootstrap`, what has to go afterwards.  Out of scope: fetching (`jailrun.images.apt`).

debootstrap by itself fetches with wget, which knows nothing of the proxies, credentials,
certificates and transports in apt's configuration, and it installs from one suite, without the
security updates.  So apt fetches and verifies, a small mirror of exactly the packages needed is
laid out in the workspace, and debootstrap installs from that: offline, and the newest versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from jailrun.errors import ImageError
from jailrun.images import apt
from jailrun.images.progress import Progress
from jailrun.images.recipe import Recipe
from jailrun.images.store import Workspace
from jailrun.images.tools import require_tool, run_tool

_SCRIPTS = Path("/usr/share/debootstrap/scripts")
_ROLLING = ("sid", "unstable")
# What an installation leaves that is the host's, or of its day, or can be fetched again.
LEFTOVERS = (
    *("dev/*", "run/*", "tmp/*", "etc/*-", "etc/.pwd.lock"),
    *("var/cache/apt/*", "var/cache/debconf/*-old", "var/cache/ldconfig/aux-cache"),
    *("var/lib/apt/lists/*", "var/lib/dbus/machine-id", "var/lib/dpkg/*-old"),
    *("var/log/*.log", "var/log/apt/*"),
)
EMPTY = ("etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf")
_RELATIONS = frozenset({"Depends", "Pre-Depends", "Provides", "Priority", "Essential"})
_CONTENTS = frozenset(
    {"Package", "Version", "Architecture", "Filename", "Size", "MD5sum", "SHA256"}
)
_FIELDS = _RELATIONS | _CONTENTS


def make_debootstrap(
    recipe: Recipe, tag: str, space: Workspace, tree: Path, progress: Progress
) -> int:
    """Fill ``tree``; return when the newest package was built, in seconds since 1970."""
    for needed, package in (("apt-get", "apt"), ("dpkg", "dpkg")):
        require_tool(needed, package, progress)
    debootstrap = require_tool("debootstrap", "debootstrap", progress)
    suite, sources = choose(recipe, tag)
    script = find_script(suite)
    architecture = run_tool(
        ["dpkg", "--print-architecture"], what="find out the architecture"
    ).strip()
    private = apt.PrivateApt(space, sources, architecture)
    private.update(progress)
    stanzas = parse_packages(private.available(), architecture)
    mirror = Mirror(space.path / "mirror", suite, architecture)
    progress.step(f"choose the packages of {suite}")
    mirror.write_lists(stanzas.values())
    packages = ",".join(recipe.words("packages"))
    command = [
        debootstrap,
        "--variant=minbase",
        f"--arch={architecture}",
        "--no-check-gpg",  # apt checked the signatures; the mirror's sums are still compared
        "--components=main",
        *([f"--include={packages}"] if packages else []),
    ]
    arguments = [suite, str(tree), mirror.url, *script]
    names = _choose_packages(command, arguments, space)
    debs = private.download([name for name in names if name in stanzas], progress)
    newest = mirror.add_packages(debs, stanzas, names)
    _install(command, arguments, len(names), newest, space, progress)
    _write_sources(recipe, suite, tree)
    return newest


def choose(recipe: Recipe, tag: str) -> tuple[str, list[apt.Source]]:
    """Return the suite to install, and the sources that have it."""
    host = apt.read_os_release()
    host_suite = host.get("VERSION_CODENAME", "")
    same = host.get("ID") == recipe.build.get("distribution", "debian")
    suite = tag if tag != "latest" else recipe.build.get("suite", "")
    suite = suite or (host_suite if same else "") or recipe.build.get("default_suite", "")
    components = recipe.words("components") or ["main"]
    sources: list[apt.Source] = []
    if same:
        sources = apt.choose_sources(
            apt.read_host_sources(), suite=suite, host_suite=host_suite, components=components
        )
    if not sources:
        sources = apt.default_sources(
            suite=suite,
            mirror=recipe.build["mirror"],
            security_mirror=recipe.build.get("security_mirror", ""),
            components=components,
        )
    if suite in _ROLLING:  # these have neither updates nor security suites
        sources = [apt.Source({**source.fields, "suites": suite}) for source in sources[:1]]
    return suite, sources


def find_script(suite: str) -> list[str]:
    """Return debootstrap's last argument: a script for a suite that is newer than it is."""
    if suite.startswith("-") or not suite.replace("-", "").isalnum():
        raise ImageError(f"{suite!r} is not the name of a suite")
    if (_SCRIPTS / suite).exists():
        return []
    return [str(_SCRIPTS / "sid")]


def parse_packages(text: str, architecture: str) -> dict[str, dict[str, str]]:
    """Return the newest version of each package of that architecture, by name; pure.

    Only the fields that debootstrap reads are kept.
    """
    stanzas: dict[str, dict[str, str]] = {}
    for block in text.split("\n\n"):
        fields = {}
        for line in block.splitlines():
            if line[:1] in " \t":
                continue
            key, _, value = line.partition(": ")
            if key in _FIELDS:
                fields[key] = value
        name = fields.get("Package")
        if name and fields.get("Architecture") in {architecture, "all"} and "Filename" in fields:
            stanzas[name] = fields
    return stanzas


class Mirror:
    """The folder from which debootstrap installs, laid out as an archive of one suite."""

    def __init__(self, folder: Path, suite: str, architecture: str) -> None:
        self._folder = folder
        self._suite = suite
        self._architecture = architecture
        self._lists = folder / f"dists/{suite}"
        self.url = f"file://{folder}"

    def write_lists(self, stanzas: Iterable[dict[str, str]]) -> None:
        """Write the list of packages, and the sums over it."""
        relative = f"main/binary-{self._architecture}/Packages"
        packages = self._lists / relative
        packages.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(  # debootstrap drops a last stanza that no empty line follows
            "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"
            for fields in stanzas
        ).encode("utf-8", "surrogateescape")
        packages.write_bytes(text)
        lines = [
            f"Suite: {self._suite}",
            f"Codename: {self._suite}",
            f"Architectures: {self._architecture}",
            "Components: main",
            "SHA256:",
            f" {hashlib.sha256(text).hexdigest()} {len(text)} {relative}",
        ]
        (self._lists / "Release").write_text("\n".join(lines) + "\n")

    def add_packages(
        self, debs: Path, stanzas: dict[str, dict[str, str]], names: Iterable[str]
    ) -> int:
        """Move the fetched packages in and list only these; return the newest one's time."""
        pool = self._folder / "pool"
        pool.mkdir()
        by_name = {path.name.partition("_")[0]: path for path in debs.glob("*.deb")}
        chosen = []
        for name in names:
            path = by_name.get(name)
            if path is None or name not in stanzas:
                raise ImageError(f"cannot fetch the package {name}: the archive does not have it")
            path = path.rename(pool / f"{name}_{self._architecture}.deb")
            chosen.append({**stanzas[name], "Filename": f"pool/{path.name}"})
        self.write_lists(chosen)
        return apt.built_at(pool.glob("*.deb"))


def _choose_packages(command: list[str], arguments: list[str], space: Workspace) -> list[str]:
    """Return the packages that debootstrap would install, from the whole list."""
    what = f"choose the packages of {arguments[0]}"
    suite, _, *others = arguments
    scratch = str(space.path / "choose")
    printed = run_tool(
        [*command, "--print-debs", suite, scratch, *others],
        what=what,
        keep_open=[space.lock_fd],
        isolate=True,
    )
    names = {name for line in printed.splitlines() if line[1:2] != ":" for name in line.split()}
    if not names:
        raise ImageError(f"cannot {what}: debootstrap named none")
    return sorted(names)


def _install(
    command: list[str],
    arguments: list[str],
    count: int,
    newest: int,
    space: Workspace,
    progress: Progress,
) -> None:
    progress.step(f"install {count} packages with debootstrap")
    done = 0
    stages = ("I: Validating", "I: Extracting", "I: Unpacking", "I: Configuring")

    def on_line(line: str) -> None:
        nonlocal done
        if line.startswith(stages):
            done += 1
            progress.advance(min(done, 3 * count), 3 * count, "steps")

    log = space.path / "tree/debootstrap/debootstrap.log"
    try:
        run_tool(
            [*command, *arguments],
            what=f"install {arguments[0]}",
            extra_env={"SOURCE_DATE_EPOCH": str(newest), "TMPDIR": str(space.path)},
            keep_open=[space.lock_fd],
            on_line=on_line,
            isolate=True,
        )
    except ImageError as error:
        try:
            said = log.read_text(errors="replace").splitlines()[-3:]
        except OSError:
            raise error from None
        raise ImageError(f"{error}; its log ends with: {'; '.join(said)}") from error


def _write_sources(recipe: Recipe, suite: str, tree: Path) -> None:
    """Name the distribution's public archive in the image, whatever mirror the host uses."""
    for path in (tree / "etc/apt/sources.list.d").glob("*"):
        path.unlink()
    components = " ".join(recipe.words("components") or ["main"])
    mirror, security = recipe.build["mirror"], recipe.build.get("security_mirror")
    lines = [f"deb {mirror} {suite} {components}"]
    if suite not in _ROLLING:
        lines.append(f"deb {mirror} {suite}-updates {components}")
        if security:
            lines.append(f"deb {security} {suite}-security {components}")
    target = tree / "etc/apt/sources.list"
    target.write_text("\n".join(lines) + "\n")
    target.chmod(0o644)
