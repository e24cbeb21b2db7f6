"""The cgroups facility: limits, accounting, freezing and killing, on v1, v2 and hybrid hosts.

One module a concern; import the one that is needed, as none is loaded here:

``hierarchy``  which controller is where on this host, and where a jail's cgroups go (pure parser)
``limits``     OCI ``linux.resources`` as (controller, file, text) settings; ``v1`` and ``v2`` are
               its two back ends, ``settings`` what they share
``devices``    the device allow-list: lines for v1, a BPF program for v2
``plan``       the operations that make, fill and join the cgroups of a new jail, or of an exec
``live``       changes the limits of a running jail, all or nothing
``control``    freeze, thaw, kill, list processes, remove
``stats``      usage and events, read from the files
``errors``     what a refused write means, and what to do about it
``check``      what this host can and cannot limit
``inspect``    v1 controllers as cgroupspy's nodes, for the floors that need not be lean

The record of a jail's cgroups is a dict, hierarchy id to directory on the host:
``{"memory": "/sys/fs/cgroup/memory/jailrun/web", "unified": …}``.  Every function that works on a
jail that exists takes that dict and nothing else.

The path of a start uses a few lines of our own for v1 instead of cgroupspy: that library imports
logging and walks the whole tree (10 to 17 ms to import, 83 for 200 cgroups), a start here
costs 0.1 ms a hierarchy.
"""
