"""Who a jail's processes are and what they may do: the security facility.

``capabilities``  names, masks, bounding and ambient sets
``seccomp``       which filter a jail gets, compiled once and cached; ``profile`` is the default
                  one as data, ``compile`` turns a profile into a filter, ``shrink`` makes it small
``limits``        rlimits, priorities, personality and the checks of their values
``ids``           a range of host ids for each jail, and the text of id maps
``passwd``        a user's name, read from the jail's own files
``plan``          the order of all this before exec

Out of scope: namespaces themselves, cgroups, masked paths, devices.
"""
