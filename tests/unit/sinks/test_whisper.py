import pytest

from fleetmem.sinks.whisper import Archive, parse_retention


def test_the_size_of_a_file() -> None:
    """2160 + 10080 + 52560 points in three archives."""
    retention = parse_retention("10s:6h,60s:7d,10m:1y")
    assert [archive.points for archive in retention.archives] == [2160, 10080, 52560]
    assert retention.file_bytes == 16 + 3 * 12 + 64_800 * 12 == 777_652
    assert retention.step_seconds == 10


@pytest.mark.parametrize(
    ("text", "archives"),
    [
        ("60:1440", (Archive(60, 1440),)),
        ("1min:1day", (Archive(60, 1440),)),
        ("1m:2h, 10s:1h", (Archive(10, 360), Archive(60, 120))),
        ("1d:1w", (Archive(86_400, 7),)),
    ],
)
def test_ways_to_write_it(text: str, archives: tuple[Archive, ...]) -> None:
    """Points or periods, with the units that carbon knows, in any order."""
    assert parse_retention(text).archives == archives


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "STEP:PERIOD"),
        ("10s", "STEP:PERIOD"),
        ("10s:6h,", "STEP:PERIOD"),
        ("0s:6h", "more than 0"),
        ("10s:0", "more than 0"),
        ("60s:10s", "shorter than the step"),
        ("10s:6h,15s:7d", "15 s is not a multiple of 10 s"),
        ("10s:6h,10s:7d", "the step of 10 s is there twice"),
        ("10s:6h,60s:1h", "covers no more time"),
        ("10s:5,60s:1h", "5 points of 10 s are not enough for 60 s"),
    ],
)
def test_what_carbon_would_not_take(text: str, message: str) -> None:
    """The message names the part that is wrong."""
    with pytest.raises(ValueError, match=message):
        parse_retention(text)
