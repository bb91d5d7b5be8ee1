#!/usr/bin/env python3
"""Prints the modules of integration tests that belong to one of several shards: `shard.py 2/4`.

Every module is in one shard, whole: its tests share servers. `1/1` is all of them.
"""

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def modules(shard: str) -> list[Path]:
    """Returns the modules of a shard `NUMBER/SHARDS`, by name; they are dealt like cards, so shards are of one size.

    Raises:
        ValueError: it is no such shard, or one without a module.
    """
    paths = sorted((REPOSITORY / "tests" / "integration").glob("test_*.py"))
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", shard)
    number, shards = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= shards <= len(paths):
        raise ValueError(f"not a shard: {shard!r}; write 1/4, 2/4, 3/4 or 4/4, for example")
    return [path.relative_to(REPOSITORY) for path in paths[number - 1 :: shards]]


if __name__ == "__main__":
    try:
        sys.stdout.write("".join(f"{path}\n" for path in modules(sys.argv[1])))
    except ValueError as error:
        sys.exit(str(error))
