import dataclasses

import pytest

from fleetmem import model
from unit.builders import MEMORY, WEB, command, failure, process, sample


@pytest.mark.parametrize(
    "thing", [WEB, MEMORY, command(), failure(), sample(), sample().shaped], ids=lambda thing: type(thing).__name__
)
def test_nouns_are_frozen_and_small(thing: object) -> None:
    """What stages hand on cannot be changed on the way, and carries no dict."""
    field = dataclasses.fields(thing)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, field, None)
    assert not hasattr(thing, "__dict__")


def test_a_process_is_a_tuple_and_counts_as_one() -> None:
    """Thousands are made each cycle; it can be added up like a command."""
    row = process(pid=7)
    assert row == tuple(row)
    assert row.procs == 1
    assert not hasattr(row, "__dict__")


def test_an_outcome_is_one_of_two() -> None:
    """Every host has exactly one outcome: a sample or a failure."""
    assert set(model.Outcome.__args__) == {model.Sample, model.Failure}
