"""asyncssh, imported in the way that starts fastest: all others take it from here (import-linter keeps it so)."""

from fleetmem.connect.libraries import hush_deprecations, spared_searches

hush_deprecations()
with spared_searches():
    import asyncssh

__all__ = ["asyncssh"]
