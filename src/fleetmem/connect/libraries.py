"""Spares asyncssh the search for libraries that the dynamic loader does not have, and people its warnings.

asyncssh takes what it can from liboqs (post-quantum key exchange) and nettle (umac). It looks for them by
`ctypes.util.find_library`, which has ldconfig, gcc and ld run before it says that there is none: much of a start, for
two names each. What they find must be loaded to be of use; so where the loader has nothing by a name, the answer is
known. Wherever there is a doubt, they are asked.
"""

import ctypes.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CACHE = "etc/ld.so.cache"
_FOLDERS = ("lib", "lib64", "lib/*-linux-*", "usr/lib", "usr/lib64", "usr/lib/*-linux-*", "usr/local/lib")
_VARIABLES = {"LD_LIBRARY_PATH", "LD_PRELOAD"}


def loadable(root: Path = Path("/")) -> bytes | None:
    """Returns names of files, among them all that the loader (ld.so(8)) may find; None where it may find others.

    These are those of its cache, which `ldconfig -p` lists, of its own folders and of Python's. A loader that a
    variable sends elsewhere may find any. So may one without a cache: another one than glibc's.
    """
    try:
        names = [(root / _CACHE).read_bytes()]
    except OSError:
        return None
    if _VARIABLES & os.environ.keys():
        return None
    folders = [folder for pattern in _FOLDERS for folder in root.glob(pattern)]
    for folder in (*folders, Path(sys.prefix, "lib"), Path(sys.base_prefix, "lib")):
        try:
            names += map(os.fsencode, os.listdir(folder))  # noqa: PTH208 - thousands, of which no path is needed
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # the loader may open what is in a folder that cannot be listed
            return None
    return b"\0".join(names)


@contextmanager
def spared_searches() -> Iterator[None]:
    """For the import of asyncssh: what cannot be loaded is not searched for."""
    names = loadable()
    if names is None:
        yield
        return
    search = ctypes.util.find_library
    ctypes.util.find_library = lambda name: search(name) if f"lib{name}.".encode() in names else None
    try:
        yield
    finally:
        ctypes.util.find_library = search


def hush_deprecations() -> None:
    """Keeps off the screen what cryptography tells those who write programs: which algorithms it will drop.

    Old hosts have no others. Whoever sets filters (`python -W`, PYTHONWARNINGS) sees it.
    """
    if sys.warnoptions:
        return
    from cryptography.utils import CryptographyDeprecationWarning

    warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning)
