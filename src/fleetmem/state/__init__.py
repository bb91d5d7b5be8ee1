"""What fleetmem remembers across restarts: a folder of its own, a lock on it, and files that grow by append.

It knows nothing of what is in the files: who keeps something there gives it a kind and a version.
"""
