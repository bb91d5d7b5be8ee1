"""All use of asyncssh's private names: nobody else may. `self_check` says whether they are as they are expected."""

import fleetmem.connect.ssh  # noqa: F401 - before an inner module of asyncssh is imported
