"""What the faces share above the engine, floor 6.

``check``      whether this host can run jails; ``trial`` does what it must find out by doing
``limits``     the limits of a jail as the kernel has them now
``processes``  the processes of a jail
``stopping``   ending a jail: ask, wait, kill
"""
