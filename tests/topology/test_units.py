import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.topology.units import parse_duration, parse_size, write_duration, write_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("0.1s", 0.1),
        ("0s", 0),
        (" 10s ", 10),
        (0, 0),
    ],
)
def test_durations_in_words_are_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (10, "needs a unit: write 10s, or 10ms"),
        ("11", "needs a unit: write 11s, or 11ms"),
        (1.5, "needs a unit"),
        ("", "is no duration"),
        ("10 s", "is no duration"),
        ("10S", "is no duration"),
        ("-10s", "is no duration"),
        ("1h-", "is no duration"),
        ("1 month", "is no duration"),
        ("1٣s", "is no duration"),
        ("1e3s", "is no duration"),
        ("0.1ms", "finer than a millisecond"),
        ("3650d1ms", "longer than the 3650 days"),
        (True, "is no duration"),
        (None, "is no duration"),
        ([], "is no duration"),
        (float("nan"), "is no duration"),
    ],
)
def test_what_is_no_duration_says_what_is(value, says):
    with pytest.raises(ValueError, match=says):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65_536),
        ("10MB", 10_000_000),
        ("1.5GiB", 1_610_612_736),
        ("1TiB", 1 << 40),
        ("5kB", 5000),
        ("5KB", 5000),
        ("7B", 7),
        ("10 MB", 10_000_000),
        (12, 12),
        (0, 0),
    ],
)
def test_sizes_in_words_are_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("10", "is no size"),
        ("10mb", "is no size"),
        ("ten MB", "is no size"),
        ("-1MB", "is no size"),
        (-1, "is no size|out of range"),
        (1.5, "is no size"),
        (True, "is no size"),
        (None, "is no size"),
        ("1.5B", "whole number"),
        ("99999999999TB", "out of range"),
    ],
)
def test_what_is_no_size_says_what_is(value, says):
    with pytest.raises(ValueError, match=says):
        parse_size(value)


@given(st.integers(0, 3650 * 86_400_000))
def test_every_duration_reads_back(milliseconds):
    assert round(parse_duration(write_duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.integers(0, (1 << 63) - 1))
def test_every_size_reads_back(size):
    assert parse_size(write_size(size)) == size


def test_the_largest_whole_unit_is_written():
    assert [write_duration(seconds) for seconds in (0, 0.5, 90, 5400, 86_400, 30 * 86_400)] == [
        "0s",
        "500ms",
        "90s",
        "90m",
        "1d",
        "30d",
    ]
    assert [write_size(size) for size in (0, 7, 1024, 10**6)] == ["0B", "7B", "1KiB", "1MB"]
