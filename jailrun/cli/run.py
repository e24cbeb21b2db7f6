"""``jailrun run``: one command in a new jail, in the foreground or in the background.

Owns: the verb, its options and its help.  Out of scope: what it does (`jailrun.cli.start`).
"""

from __future__ import annotations

import typer

from jailrun.cli import options as o
from jailrun.cli.start import run_jail

HELP = """Run a command in a new jail.

\b
Examples:
  jailrun run --rm --memory 64M --cpus 0.5 --pids 32 busybox sh -c 'id; ps'
  jailrun run --rm -it debian bash
  jailrun run -d --name web -p 8080:80 -v /srv/www:/www:ro busybox httpd -f -h /www
  echo words | jailrun run --rm -i busybox wc -w

The exit status is the command's own; 128+n if signal n ended it; 125 where jailrun failed, 126
where the command cannot be executed, 127 where it does not exist.
"""


def run(
    image: o.Image,
    command: o.Command = None,
    *,
    interactive: o.Interactive = False,
    tty: o.Tty = False,
    detach: o.Detach = False,
    remove: o.Remove = False,
    name: o.Name = None,
    memory: o.Memory = None,
    swap: o.Swap = None,
    memory_reservation: o.MemoryReservation = None,
    cpus: o.Cpus = None,
    cpuset: o.Cpuset = None,
    cpu_shares: o.CpuShares = None,
    pids: o.Pids = None,
    shm_size: o.ShmSize = None,
    device_read_bps: o.ReadBps = None,
    device_write_bps: o.WriteBps = None,
    device_read_iops: o.ReadIops = None,
    device_write_iops: o.WriteIops = None,
    ulimit: o.Ulimit = None,
    oom_score_adj: o.OomScore = None,
    user: o.User = None,
    groups: o.Groups = None,
    workdir: o.Workdir = None,
    env: o.Env = None,
    env_file: o.EnvFile = None,
    entrypoint: o.Entrypoint = None,
    init: o.Init = False,
    hostname: o.Hostname = None,
    domainname: o.Domainname = None,
    volumes: o.Volumes = None,
    tmpfs: o.Tmpfs = None,
    read_only: o.ReadOnly = False,
    devices: o.Devices = None,
    cap_add: o.CapAdd = None,
    cap_drop: o.CapDrop = None,
    security_opt: o.SecurityOpt = None,
    allow: o.Allow = None,
    sysctl: o.Sysctl = None,
    privileged: o.Privileged = False,
    network: o.Net = None,
    publish: o.Publish = None,
    ip: o.Ip = None,
    ip6: o.Ip6 = None,
    mac_address: o.Mac = None,
    deny: o.Deny = None,
    dns: o.Dns = None,
    dns_search: o.DnsSearch = None,
    dns_option: o.DnsOption = None,
    add_host: o.AddHost = None,
    pid: o.Pid = None,
    ipc: o.Ipc = None,
    uts: o.Uts = None,
    userns: o.Userns = None,
    cgroupns: o.Cgroupns = None,
    time_offset: o.TimeOffset = None,
    labels: o.Labels = None,
    explain: o.Explain = False,
    format: o.Format = "text",
    quiet: o.Quiet = False,
) -> None:
    raise typer.Exit(run_jail(image, command, locals()))


run.__doc__ = HELP
