"""The types of what a face asks `jailrun.spec.compile` for.

Owns: `Request`, `ImageConfig`.  They exist for mypy alone, so that this module is lean: import
them under ``TYPE_CHECKING``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias, TypedDict

    from jailrun.spec.facts import DeviceNode, HostFacts

    class ImageConfig(TypedDict, total=False):
        """What an image says about the jails that run it, and where its files are."""

        reference: str
        layers: list[str]
        env: list[str]
        entrypoint: list[str]
        cmd: list[str]
        user: str  # numeric, "uid[:gid]": the caller resolved names
        workdir: str
        labels: dict[str, str]
        stop_signal: str

    # None: there is no such device
    StatDevice: TypeAlias = Callable[[str], DeviceNode | None]

    class Request(TypedDict, total=False):
        """All that a face can ask for, each as the user wrote it; see `compile_config`."""

        command: list[str] | None
        image: ImageConfig | None
        rootfs: str | None
        name: str | None
        hostname: str | None
        domainname: str | None
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
        user: str | int | None
        home: str | None
        groups: list[str | int] | None
        workdir: str | None
        env: list[str] | dict[str, str] | None
        entrypoint: list[str] | None
        tmpfs: list[str] | None
        volumes: list[str] | None
        read_only: bool | None
        cap_add: list[str] | None
        cap_drop: list[str] | None
        security_opt: list[str] | None
        seccomp: object  # a profile in the OCI form, as loaded from JSON
        devices: list[str] | None
        sysctl: list[str] | dict[str, str] | None
        ulimit: list[str] | None
        init: bool | None
        privileged: bool | None
        tty: bool | None
        network: str | list[str] | None
        network_path: str | None  # the namespace of the jail that ``network`` names
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
        oom_score_adj: str | int | None
        allow: list[str] | None
        labels: list[str] | dict[str, str] | None
        annotations: dict[str, str] | None
        shm_size: str | int | None
        umask: str | int | None
        host: HostFacts | None
        stat_device: StatDevice | None
