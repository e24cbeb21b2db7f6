"""The network facility: interfaces, addresses, names and published ports of jails.

`jailrun.net.member` is what a jail does in its networks, `jailrun.net.networks` what is done to
them; every other module is one thing that both stand on.
"""
