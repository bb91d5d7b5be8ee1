"""Stage 1: which hosts.

`inventory.Inventory` reads all sources and folds duplicates. A new kind of inventory is a module here with a function
from its argument to a `Listing`, and one line in `sources.KINDS`.
"""
