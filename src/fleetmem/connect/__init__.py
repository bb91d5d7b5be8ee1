"""Stage 2: reach the hosts. One `Link` per host: one SSH connection, one channel, one resident probe.

The only stage that knows asyncssh; its errors and the OS's leave through `translate`.
"""

from fleetmem.connect.libraries import hush_deprecations, spared_searches

hush_deprecations()
with spared_searches():
    import asyncssh  # noqa: F401 - before a module of this stage does
