"""The root file system facility: layers, mounts, devices, masks, and the change of root.

Owns: everything that the jail sees below ``/``, made inside its own mount namespace, so that it
dies with it.  Out of scope: where layers come from (`jailrun.images`), which writable layer is
whose (`jailrun.engine`).

The order, all of it before the change of root, while the host's /dev and /proc are in sight:

0. `plan_views`: file systems of namespaces of others, while there are the rights to
1. `plan_root`: the layers (or the plain folder) become one mount at the meeting place
2. `plan_mounts`: the config's mounts, in their order, below the descriptor of that root
3. `plan_devices`: nodes and links in /dev
4. `plan_console`: a terminal from the jail's own devpts
5. `plan_masks`: what the config hides or makes read-only
6. `plan_pivot`: the root becomes ``/`` and the host's is gone
7. `plan_seal`: the root read-only, its propagation

No descriptor is closed here: the exec closes them all (or, in a jail that waits for its start,
`jailrun.engine.payload.plan_hold`), and a call for each would cost more.

What lies inside a root is hostile: every path in it is resolved by `plan_target`, from the root's
descriptor, with openat2(2).
"""

from __future__ import annotations

from jailrun.rootfs.devices import plan_console, plan_devices, plan_terminal
from jailrun.rootfs.etc import plan_etc
from jailrun.rootfs.facts import Facts, read_facts
from jailrun.rootfs.layers import meeting_place, plan_root, prepare_meeting_place, release
from jailrun.rootfs.masks import plan_masks, plan_pivot, plan_seal
from jailrun.rootfs.mounts import plan_mounts
from jailrun.rootfs.views import plan_views

__all__ = [
    "Facts",
    "meeting_place",
    "plan_console",
    "plan_devices",
    "plan_etc",
    "plan_masks",
    "plan_mounts",
    "plan_pivot",
    "plan_root",
    "plan_seal",
    "plan_terminal",
    "plan_views",
    "prepare_meeting_place",
    "read_facts",
    "release",
]
