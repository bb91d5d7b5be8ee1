"""Stage 2: reach the hosts. One `Link` per host: one SSH connection, one channel, one resident probe.

The only stage that knows asyncssh, which `connect.ssh` imports; its errors and the OS's leave through `translate`.
"""
