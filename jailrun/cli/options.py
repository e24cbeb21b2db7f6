"""The options that describe a jail, as Typer types.

Owns: the types shared by the verbs that make a jail (``run``, later ``create``) and by ``exec``.
Out of scope: what they come to (`jailrun.cli.asked`).
"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from jailrun.cli.complete import complete_net

# Options after the first argument belong to the command in the jail.
CONTEXT_SETTINGS = {"allow_interspersed_args": False}

Text = str | None
Texts = list[str] | None
Flag = bool

Image = Annotated[
    str,
    Argument(
        metavar="IMAGE|FOLDER|FILE",
        help="Name of an image; or path, with / or . first, of a root folder or its tar file.",
    ),
]
Command = Annotated[
    Texts, Argument(metavar="[COMMAND]...", help="What to run instead of the image's own command.")
]
Jail = Annotated[str, Argument(metavar="NAME", help="Name of a running jail.")]
Inside = Annotated[list[str], Argument(metavar="COMMAND...", help="What to run in the jail.")]

# --- how it runs ---
Interactive = Annotated[Flag, Option("-i", "--interactive", help="Pass standard input on.")]
Tty = Annotated[Flag, Option("-t", "--tty", help="Give the command a terminal.")]
Detach = Annotated[Flag, Option("-d", "--detach", help="Run in the background; print the name.")]
DetachExec = Annotated[Flag, Option("-d", "--detach", help="Do not wait; throw its output away.")]
Remove = Annotated[Flag, Option("--rm", help="Remove the jail when it has ended.")]
Name = Annotated[Text, Option("--name", metavar="NAME", help="Name of the jail.")]
Explain = Annotated[Flag, Option("--explain", help="Print what would be done, and do nothing.")]
Format = Annotated[
    str, Option("--format", metavar="text|json", help="Form of what -d and --explain print.")
]
Quiet = Annotated[Flag, Option("-q", "--quiet", help="Show no progress of making an image.")]
# --- resources ---
Memory = Annotated[Text, Option("-m", "--memory", metavar="SIZE", help="Memory limit, as 64M.")]
Swap = Annotated[
    Text, Option("--swap", metavar="SIZE", help="Swap beyond the memory; -1: no limit.")
]
MemoryReservation = Annotated[
    Text, Option("--memory-reservation", metavar="SIZE", help="Memory kept when the host is short.")
]
ShmSize = Annotated[Text, Option("--shm-size", metavar="SIZE", help="Size of /dev/shm.")]
Cpus = Annotated[Text, Option("--cpus", metavar="N", help="CPU time in CPUs, as 0.5.")]
Cpuset = Annotated[
    Text, Option("--cpuset", "--cpuset-cpus", metavar="LIST", help="CPUs to run on, as 0-1,3.")
]
CpuShares = Annotated[
    Text, Option("-c", "--cpu-shares", metavar="N", help="Weight against other jails; 1024.")
]
Pids = Annotated[
    Text, Option("--pids", "--pids-limit", metavar="N", help="Most processes and threads at once.")
]
_RATE = "DEVICE:RATE"
ReadBps = Annotated[
    Texts, Option("--device-read-bps", metavar=_RATE, help="Bytes read per second at most.")
]
WriteBps = Annotated[
    Texts, Option("--device-write-bps", metavar=_RATE, help="Bytes written per second at most.")
]
ReadIops = Annotated[
    Texts, Option("--device-read-iops", metavar=_RATE, help="Reads per second at most.")
]
WriteIops = Annotated[
    Texts, Option("--device-write-iops", metavar=_RATE, help="Writes per second at most.")
]
Ulimit = Annotated[
    Texts, Option("--ulimit", metavar="NAME=SOFT[:HARD]", help="Resource limit, as nofile=1024.")
]
OomScore = Annotated[
    Text, Option("--oom-score-adj", metavar="N", help="From -1000 to 1000: 1000 dies first.")
]
# --- the process ---
User = Annotated[
    Text, Option("-u", "--user", metavar="USER[:GROUP]", help="Names or numbers, as in the image.")
]
Groups = Annotated[Texts, Option("--group-add", metavar="GROUP", help="One more group.")]
Workdir = Annotated[Text, Option("-w", "--workdir", metavar="PATH", help="Working directory.")]
Env = Annotated[
    Texts,
    Option("-e", "--env", metavar="NAME[=VALUE]", help="Variable; NAME alone: as it is here."),
]
EnvFile = Annotated[Texts, Option("--env-file", metavar="FILE", help="File of NAME=VALUE lines.")]
Entrypoint = Annotated[
    Text, Option("--entrypoint", metavar="PROGRAM", help="Program that the command is given to.")
]
Init = Annotated[Flag, Option("--init", help="Run a small init that reaps and passes signals on.")]
Hostname = Annotated[Text, Option("-h", "--hostname", metavar="NAME", help="Host name inside.")]
Domainname = Annotated[Text, Option("--domainname", metavar="NAME", help="NIS domain name inside.")]
# --- files ---
Volumes = Annotated[
    Texts,
    Option(
        "-v",
        "--volume",
        metavar="SOURCE:TARGET[:OPTIONS]",
        help="Show a file or folder of the host inside; options as ro, idmap.",
    ),
]
Tmpfs = Annotated[
    Texts, Option("--tmpfs", metavar="TARGET[:OPTIONS]", help="Folder in memory, as /tmp:size=64M.")
]
ReadOnly = Annotated[Flag, Option("--read-only", help="Make the root file system read-only.")]
Devices = Annotated[
    Texts, Option("--device", metavar="HOST[:JAIL][:rwm]", help="Device of the host, as /dev/fuse.")
]
# --- rights ---
CapAdd = Annotated[Texts, Option("--cap-add", metavar="NAME", help="Add a capability, or ALL.")]
CapDrop = Annotated[Texts, Option("--cap-drop", metavar="NAME", help="Drop a capability, or ALL.")]
SecurityOpt = Annotated[
    Texts,
    Option("--security-opt", metavar="NAME=VALUE", help="As seccomp=FILE, seccomp=unconfined."),
]
Allow = Annotated[
    Texts,
    Option(
        "--allow",
        metavar="NAME|RULE",
        help="Allow one thing by name, as mount, fuse, ptrace; or traffic, as in:tcp:80.",
    ),
]
Sysctl = Annotated[
    Texts, Option("--sysctl", metavar="NAME=VALUE", help="Kernel setting of the jail's own.")
]
Privileged = Annotated[
    Flag, Option("--privileged", help="Take the fences down, but for the namespaces. Unsafe.")
]
# --- network ---
Net = Annotated[
    Texts,
    Option(
        "--net",
        "--network",
        metavar="NETWORK",
        help="Network to be in; if not given, the one called default. Several times: several "
        "interfaces. NAME[,ip=A][,ip6=A][,mac=M][,rate=R][,name=IF], none, host, jail:NAME, "
        "ns:PATH, shared:ADDRESS, device:INTERFACE.",
        autocompletion=complete_net,
    ),
]
Publish = Annotated[
    Texts,
    Option(
        "-p",
        "--publish",
        metavar="[[ADDRESS:]PORT:]PORT[/udp]",
        help="Port of the host that leads to one of the jail, as 8080:80; 80 is 80:80.",
    ),
]
Ip = Annotated[Text, Option("--ip", metavar="ADDRESS", help="IPv4 address in the first network.")]
Ip6 = Annotated[Text, Option("--ip6", metavar="ADDRESS", help="IPv6 address in the first network.")]
Mac = Annotated[
    Text, Option("--mac-address", metavar="MAC", help="MAC address in the first network.")
]
Deny = Annotated[
    Texts,
    Option(
        "--deny",
        metavar="in|out[:PROTOCOL][:ADDRESS][:PORT]",
        help="Drop traffic, as out:10.0.0.0/8 or in:tcp:22.",
    ),
]
Dns = Annotated[Texts, Option("--dns", metavar="ADDRESS", help="Name server to ask.")]
DnsSearch = Annotated[
    Texts,
    Option("--dns-search", metavar="DOMAIN", help="Domain that short names are looked up in."),
]
DnsOption = Annotated[
    Texts, Option("--dns-option", metavar="OPTION", help="Option of resolv.conf, as ndots:2.")
]
AddHost = Annotated[
    Texts, Option("--add-host", metavar="NAME:ADDRESS", help="One more line of /etc/hosts.")
]
# --- namespaces ---
_OWN = "private|host|PATH"
Pid = Annotated[Text, Option("--pid", metavar=_OWN, help="Whose processes to see.")]
Ipc = Annotated[Text, Option("--ipc", metavar=_OWN, help="Whose shared memory and queues to see.")]
Uts = Annotated[Text, Option("--uts", metavar=_OWN, help="Whose host name to have.")]
Userns = Annotated[Text, Option("--userns", metavar=_OWN, help="Whose user ids to have.")]
Cgroupns = Annotated[Text, Option("--cgroupns", metavar=_OWN, help="Whose cgroup root to see.")]
TimeOffset = Annotated[
    Texts,
    Option("--time-offset", metavar="CLOCK=TIME", help="Shift monotonic or boottime, as -1h."),
]
Labels = Annotated[Texts, Option("-l", "--label", metavar="KEY[=VALUE]", help="Note on the jail.")]
