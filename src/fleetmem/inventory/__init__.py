"""Stage 1: which hosts.

`sources.resolve` reads them all and folds duplicates. A new kind of inventory is a module here that yields hosts, and
one line there.
"""
