"""jailrun: isolated virtual servers on one Linux kernel.

Glossary, for the code and its documentation:

jail        the isolated environment: namespaces, root file system, limits, the processes in it
server      a jail with a configuration of its own that is kept: a folder with server.toml
image       what a jail's root file system is made from; read-only, shared by all its jails
layer       one folder of an image, stacked with others by overlay
config      the OCI runtime specification's config.json as a dict; what a jail is before it runs
program     the ordered system calls that make a jail out of a config
operation   one system call of a program, with its purpose in words
slot        the result of an operation (a descriptor), to be used by a later one
facility    a part of the kernel that jails use: namespaces, cgroups, rootfs, net, security
parent      the process that starts a jail and waits for it
init        process 1 of a jail
payload     the program that the user asked to run in a jail
record      the folder under /run/jailrun that says what was made for a jail, before it is made
floor       a level of the source tree; a module imports from lower floors only
lean        a floor on the path of every start, which imports built-in modules only

``host_path`` is a path as the host sees it, ``jail_path`` as the jail does.  Names that end in
``_fd`` are descriptors; ``_bytes`` and ``_usec`` are units.
"""

from __future__ import annotations

__version__ = "0.1.0.dev0"
