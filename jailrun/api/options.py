"""The options of a jail, as `jailrun.run` and `jailrun.Jail` take them.

Owns: `Options` and `Limits`, for type checkers alone.  The values are checked by
`jailrun.spec.compile`; ``docs/reference/python.md`` says what each means.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Limits(TypedDict, total=False):
        """What can also be changed while the jail runs; see `jailrun.Jail.update`."""

        memory: str | int | None
        swap: str | int | None
        memory_reservation: str | int | None
        cpus: str | float | None
        cpuset: str | None
        cpuset_mems: str | None
        cpu_shares: str | int | None
        pids: str | int | None
        io_weight: str | int | None
        device_read_bps: list[str] | None
        device_write_bps: list[str] | None
        device_read_iops: list[str] | None
        device_write_iops: list[str] | None

    class Options(Limits, total=False):
        """All that can be said about a jail."""

        name: str | None
        hostname: str | None
        domainname: str | None
        user: str | int | None
        groups: list[str | int] | None
        home: str | None
        workdir: str | None
        env: list[str] | dict[str, str] | None
        umask: str | int | None
        tmpfs: list[str] | None
        volumes: list[str] | None
        shm_size: str | int | None
        read_only: bool | None
        cap_add: list[str] | None
        cap_drop: list[str] | None
        allow: list[str] | None
        security_opt: list[str] | None
        seccomp: object
        privileged: bool | None
        devices: list[str] | None
        sysctl: list[str] | dict[str, str] | None
        ulimit: list[str] | None
        oom_score_adj: str | int | None
        network: str | list[str] | None
        publish: list[str] | None
        deny: list[str] | None
        dns: list[str] | None
        dns_search: list[str] | None
        dns_option: list[str] | None
        add_host: list[str] | None
        names: bool | None
        pid: str | None
        ipc: str | None
        uts: str | None
        userns: str | None
        cgroupns: str | None
        time: str | None
        time_offsets: dict[str, str | int] | None
        labels: list[str] | dict[str, str] | None
        annotations: dict[str, str] | None

    class RunOptions(Options, total=False):
        """What only a jail for one command can be told."""

        entrypoint: list[str] | None
        init: bool | None
