"""The engine, floor 4: create, start, enter, signal, pause, resume, update, delete, state.

Owns: the parent's side of a start, and the record on disk.  One module a concern:

``launch``     makes and starts a jail: the whole order
``enter``      one more process in a jail that runs
``lifecycle``  start (of a created jail), signal, pause, resume, update, wait, finish, delete
``state``      what a jail is doing, from the kernel
``monitor``    detached jails
``record``     what is on disk; ``release`` undoes it
``payload``    the last operations before an exec; ``hooks``; ``prepare``; ``translate``

Names are imported from their modules: nothing is loaded here that a caller may not need.
"""
