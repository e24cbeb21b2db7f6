"""Fetch packages through the host's own apt, without changing anything of the host's.

Owns: the host's package sources, a private apt with the suites of one image, downloads.
Out of scope: unpacking and installing (`jailrun.images.builder`, `jailrun.images.debootstrap`).

apt is what can reach the host's mirror: it alone knows the proxies, certificates, credentials and
transports that the host's configuration names, and it checks the signatures.  Nothing of that
configuration is copied into an image.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jailrun.errors import ImageError
from jailrun.images.progress import Progress
from jailrun.images.store import Workspace
from jailrun.images.tools import run_tool

_ALIASES = ("stable", "testing", "unstable", "oldstable")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The host's hooks (emptying caches, telling desktops) concern the host's packages, not ours.
_OVERRIDES = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
#clear Acquire::Languages;
Acquire::Languages {{ "none"; }};
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{cache}";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{sources}";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


@dataclass(frozen=True)
class Source:
    """One entry of the host's sources: the fields of a deb822 stanza, keys in lower case."""

    fields: Mapping[str, str]

    def words(self, key: str) -> list[str]:
        """Return the words of a field; empty where it is absent."""
        return self.fields.get(key, "").split()


def read_os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """Return what the host says of its distribution."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            found[key] = "".join(shlex.split(value))
    return found


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the enabled binary sources of a ``.sources`` file."""
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            enabled = fields.get("enabled", "yes").strip().lower() not in {"no", "false", "0"}
            if "deb" in fields.get("types", "").split() and enabled:
                yield Source({**fields, "types": "deb"})
            fields, last = {}, ""
        elif line[0] in " \t" and last:
            fields[last] += "\n" + line
        else:
            key, _, value = line.partition(":")
            last = key.strip().lower()
            fields[last] = value.strip()


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the binary sources of a ``.list`` file, as `parse_deb822` would."""
    names = {"arch": "architectures", "lang": "languages", "target": "targets"}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words or words.pop(0) != "deb":
            continue
        fields = {"types": "deb"}
        if words and words[0].startswith("["):
            options = []
            while words:
                option = words.pop(0)
                options.append(option.strip("[]"))
                if option.endswith("]"):
                    break
            for option in filter(None, options):
                key, _, value = option.partition("=")
                fields[names.get(key.lower(), key.lower())] = value.replace(",", " ")
        if len(words) >= 2:
            yield Source(
                {**fields, "uris": words[0], "suites": words[1], "components": " ".join(words[2:])}
            )


def read_host_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    """Return the package sources that the host's apt uses."""
    sources: list[Source] = []
    main = root / "sources.list"
    parts = sorted((root / "sources.list.d").glob("*"))
    for path in [main, *parts]:
        try:
            if path.suffix == ".sources":
                sources += parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
            elif path.suffix == ".list":
                sources += parse_one_line(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror}") from error
    return sources


def choose_sources(
    sources: Iterable[Source], *, suite: str, host_suite: str, components: Sequence[str]
) -> list[Source]:
    """Return the host's sources of its own distribution, turned to ``suite``; pure.

    An entry counts where its suite is the host's (by name or alias), or one of that suite's
    updates or security suites.  Other repositories of the host's do not belong into an image.
    """
    chosen = []
    for source in sources:
        suites = []
        for name in source.words("suites"):
            base, rest = _split_suite(name)
            if base == host_suite or base in _ALIASES:
                suites.append(suite + rest)
        wanted = [part for part in source.words("components") if part in components]
        if suites and wanted:
            fields = {key: value for key, value in source.fields.items() if key != "architectures"}
            fields.update(suites=" ".join(suites), components=" ".join(wanted))
            chosen.append(Source(fields))
    return chosen


def _split_suite(name: str) -> tuple[str, str]:
    for index, character in enumerate(name):
        if character in "-/":
            return name[:index], name[index:]
    return name, ""


def default_sources(
    *, suite: str, mirror: str, security_mirror: str, components: Sequence[str]
) -> list[Source]:
    """Return the sources for a host that has none of that distribution; pure."""
    common = {"types": "deb", "components": " ".join(components), "signed-by": str(_KEYRING)}
    sources = [Source({**common, "uris": mirror, "suites": f"{suite} {suite}-updates"})]
    if suite in {"sid", "unstable"}:
        return [Source({**common, "uris": mirror, "suites": suite})]
    if security_mirror:
        security = {**common, "uris": security_mirror, "suites": f"{suite}-security"}
        sources.append(Source(security))
    return sources


def format_deb822(sources: Iterable[Source]) -> str:
    """Return the text of a ``.sources`` file."""
    stanzas = ["".join(f"{key}: {value}\n" for key, value in s.fields.items()) for s in sources]
    return "\n".join(stanzas)


class PrivateApt:
    """An apt with its own lists, cache and sources, all inside a workspace."""

    def __init__(self, space: Workspace, sources: Sequence[Source], architecture: str) -> None:
        self._space = space
        self._folder = space.path / "apt"
        state, cache = self._folder / "state", self._folder / "cache"
        lists, parts = self._folder / "sources", cache / "archives/partial"
        for folder in (state / "lists/partial", parts, lists):
            folder.mkdir(parents=True)
        (state / "status").write_text("")
        (lists / "image.sources").write_text(format_deb822(sources))
        self._config = self._folder / "apt.conf"
        self._config.write_text(
            _OVERRIDES.format(architecture=architecture, state=state, cache=cache, sources=lists)
        )
        for folder in self._folder.rglob("*"):
            if folder.is_dir():
                folder.chmod(0o755)
        self._folder.chmod(0o755)

    def update(self, progress: Progress) -> None:
        """Fetch and check the lists of packages."""
        progress.step("fetch the list of packages")
        self._run(["apt-get", "update"], what="fetch the list of packages")

    def available(self) -> str:
        """Return a stanza for the newest version of each package."""
        return self._run(["apt-cache", "dumpavail"], what="read the list of packages")

    def download(self, packages: Sequence[str], progress: Progress) -> Path:
        """Fetch those packages; return the folder that holds the ``.deb`` files."""
        folder = self._folder / "debs"
        download(packages, folder, progress, config=self._config, lock_fd=self._space.lock_fd)
        return folder

    def _run(self, words: list[str], *, what: str) -> str:
        command = [words[0], f"--config-file={self._config}", "--quiet=2", *words[1:]]
        return run_tool(command, what=what, keep_open=[self._space.lock_fd], isolate=True)


def download(
    packages: Sequence[str],
    folder: Path,
    progress: Progress,
    *,
    config: Path | None = None,
    lock_fd: int,
) -> None:
    """Fetch packages into ``folder`` with the host's lists, or those of a private apt."""
    progress.step(f"fetch {len(packages)} package{'s' if len(packages) != 1 else ''}")
    folder.mkdir(exist_ok=True)
    _give_to_apt(folder)
    done = 0

    def on_line(line: str) -> None:
        nonlocal done
        if line.startswith("Get:"):
            done += 1
            progress.advance(min(done, len(packages)), len(packages), "packages")

    options = [f"--config-file={config}"] if config is not None else []
    what = f"fetch the packages {_shorten(packages)}"
    command = ["apt-get", *options, "--quiet", "download", *packages]
    run_tool(command, what=what, cwd=folder, keep_open=[lock_fd], on_line=on_line, isolate=True)


def _shorten(packages: Sequence[str]) -> str:
    shown = ", ".join(packages[:3])
    return shown if len(packages) <= 3 else f"{shown} and {len(packages) - 3} more"


def _give_to_apt(folder: Path) -> None:
    """Let apt's unprivileged downloader write there, where the host has one."""
    folder.chmod(0o755)
    try:
        user = pwd.getpwnam("_apt")
        os.chown(folder, user.pw_uid, user.pw_gid)
    except (KeyError, PermissionError):
        return


def built_at(packages: Iterable[Path]) -> int:
    """Return when the newest of the packages was built, in seconds since 1970.

    Each ``.deb`` is an ``ar`` archive whose first member's header says it.
    """
    newest = 0
    for path in packages:
        with path.open("rb") as file:
            header = file.read(68)
        try:
            newest = max(newest, int(header[24:36]))
        except ValueError as error:
            raise ImageError(f"{path.name} is not a Debian package") from error
    return newest
