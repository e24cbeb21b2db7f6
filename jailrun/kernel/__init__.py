"""Floor 0: programs of system calls, and the two executors that run them."""
