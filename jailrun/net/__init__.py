"""The network facility.  For now: the loopback interface of a jail's own network namespace."""

from __future__ import annotations

from _struct import pack

from jailrun.kernel import constants as c
from jailrun.kernel.program import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.program import Program


def plan_loopback(program: Program) -> None:
    """Add bringing ``lo`` up (netdevice(7)); the kernel gives it its addresses itself."""
    program.enter("net")
    request = Struct(pack("<16sH22x", b"lo", c.IFF_UP), label="{lo, up}")
    socket = program.child.socket(c.AF_INET, c.SOCK_DGRAM, what="open a socket")
    program.child.ioctl(socket, c.SIOCSIFFLAGS, request, what="bring up", object="lo")
    program.child.close(socket)
