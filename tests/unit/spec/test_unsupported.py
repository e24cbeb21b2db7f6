"""`jailrun.spec.unsupported`: what is not done is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from jailrun.errors import UnsupportedError
from jailrun.spec.default import default_config
from jailrun.spec.facts import HostFacts
from jailrun.spec.unsupported import refuse_unsupported, unsupported_paths


def facts(*, apparmor: bool = False, selinux: bool = False) -> HostFacts:
    return HostFacts(cpu_numbers=[0], memory_bytes=2**30, apparmor=apparmor, selinux=selinux)


def config_with(path: str, value: object) -> Any:
    config: Any = default_config()
    place = config
    *parents, last = path.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return config


@pytest.mark.parametrize("path", unsupported_paths())
def test_what_no_host_can_do_is_refused_by_its_path(path: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"^{path}: ") as caught:
        refuse_unsupported(config_with(path, {"x": 1}), facts(apparmor=True, selinux=True))
    assert caught.value.hint == f"remove {path} from the config"
    empties: list[object] = [{}, "", None]
    for empty in empties:
        refuse_unsupported(config_with(path, empty), facts())


def test_security_modules_are_the_hosts() -> None:
    for path in ("process.selinuxLabel", "linux.mountLabel"):
        config = config_with(path, "u:r:t:s0")
        with pytest.raises(UnsupportedError, match="no SELinux"):
            refuse_unsupported(config, facts())
        refuse_unsupported(config, facts(selinux=True))
    config = config_with("process.apparmorProfile", "web")
    with pytest.raises(UnsupportedError, match="no AppArmor"):
        refuse_unsupported(config, facts())
    refuse_unsupported(config, facts(apparmor=True))
    refuse_unsupported(config_with("process.apparmorProfile", "unconfined"), facts())


def test_a_default_jail_needs_nothing_special() -> None:
    refuse_unsupported(default_config(), facts())
    refuse_unsupported({"ociVersion": "1.2.1"}, facts())
