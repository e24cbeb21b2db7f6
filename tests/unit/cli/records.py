"""Records of jails for tests that start none."""

from __future__ import annotations

from typing import Any

from jailrun.engine.record import Record
from jailrun.spec.default import default_config


def make_record(name: str, **values: Any) -> Record:
    """Write the record of a jail that has ended; ``config`` is merged into a default one."""
    record = Record(name)
    record.claim()
    config: Any = default_config()
    config["process"]["args"] = ["sleep", "1"]
    for key, value in values.pop("config", {}).items():
        config[key] = {**config.get(key, {}), **value}
    record.status = 0
    record.image = "busybox"
    record.created = record.started = 1700000000.0
    for key, value in values.items():
        setattr(record, key, value)
    record.write()
    record.write_config(config)
    return record
