"""Whether a configuration is checked for another machine, whose users, homes and secrets are not here."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_elsewhere: ContextVar[bool] = ContextVar("is_elsewhere", default=False)


def is_elsewhere() -> bool:
    """Whether it is for another machine."""
    return _is_elsewhere.get()


@contextmanager
def for_another_machine() -> Iterator[None]:
    """What is read within is for another machine: no secret is read, and homes may be missing."""
    token = _is_elsewhere.set(True)
    try:
        yield
    finally:
        _is_elsewhere.reset(token)
