"""Crontabs: Celery's fields, Debian's rules for DST, held against cronsim and against counting."""

import calendar
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amqflow.errors import ConfigurationError, ScheduleError
from amqflow.schedules import crontab, slots_until, zone_named
from amqflow.schedules.fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR

#: Half an hour of DST; DST that ends for Ramadan; winter time as "DST" below zero; a day that never
#: was (30 December 2011); gaps at midnight; a zone with 45 minutes; the plain ones.
ZONES = (
    *("Australia/Lord_Howe", "Africa/Casablanca", "Europe/Dublin", "Pacific/Apia"),
    *("America/Sao_Paulo", "Asia/Beirut", "America/St_Johns", "Asia/Tehran", "Africa/Cairo"),
    *("Pacific/Chatham", "America/New_York", "Europe/Berlin", "Asia/Shanghai", "UTC"),
)
FIRST, LAST = datetime(1996, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def at(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def shown(instant, zone="UTC"):
    return datetime.fromtimestamp(instant, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z")


def slots(schedule, after, until):
    return list(slots_until(schedule, after, until))


def transitions(zone):
    """Return the instants, to the minute, at which a zone's clocks change in these years."""
    found = []
    at, step = FIRST.timestamp(), 86400
    while at < LAST.timestamp():
        if _offset(at, zone) != _offset(at + step, zone):
            low, high = at, at + step
            while high - low > 60:
                middle = low + (high - low) // 2
                low, high = (low, middle) if _offset(middle, zone) != _offset(low, zone) else (
                    (middle, high)
                )  # fmt: skip
            found.append(high)
        at += step
    return found


def _offset(instant, zone):
    return datetime.fromtimestamp(instant, zone).utcoffset()


TRANSITIONS = {name: transitions(ZoneInfo(name)) for name in ZONES}

moments = st.one_of(
    st.tuples(st.sampled_from(ZONES), st.integers(int(FIRST.timestamp()), int(LAST.timestamp()))),
    # Near a change of the clocks, where the rules are.
    st.sampled_from([(name, at) for name, all_of in TRANSITIONS.items() for at in all_of]).flatmap(
        lambda known: st.tuples(
            st.just(known[0]),
            st.integers(-2 * 86400, 86400).map(lambda seconds: int(known[1]) + seconds),
        )
    ),
)


def numbers(low, high):
    return st.one_of(
        st.integers(low, high).map(str),
        st.lists(st.integers(low, high), min_size=1, max_size=4).map(
            lambda found: ",".join(map(str, sorted(set(found))))
        ),
        st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda pair: f"{min(pair)}-{max(pair)}"
        ),
    )


def starred(low, high):
    return st.one_of(st.just("*"), st.integers(1, high // 2).map("*/{}".format))


fixed = st.tuples(numbers(0, 59), st.one_of(numbers(0, 23), numbers(0, 4)))
walking = st.one_of(
    st.tuples(starred(0, 59), st.one_of(starred(0, 23), numbers(0, 23))),
    st.tuples(numbers(0, 59), starred(0, 23)),
)
# One day field at most: with both, cron's own meaning is OR, Celery's and ours is AND.
days = st.one_of(
    st.just("* * *"),
    numbers(1, 31).map("{} * *".format),
    numbers(0, 6).map("* * {}".format),
    numbers(1, 12).map("* {} *".format),
)


@given(fixed, days, moments)
@settings(max_examples=400, deadline=None)
def test_fixed_times_are_those_of_cronsim_in_odd_zones(times, day, moment):
    text, (zone, start) = f"{times[0]} {times[1]} {day}", moment
    try:
        known = crontab.from_string(text, zone)
    except ScheduleError:
        assume(False)
    oracle = CronSim(text, datetime.fromtimestamp(start, ZoneInfo(zone)))
    # Where the start has its reading for the second time, cronsim's first answers lie before it.
    expected = []
    while len(expected) < 5:
        found = next(oracle).timestamp()
        if found > start and found not in expected:
            expected.append(found)
    got, instant = [], start
    for _ in range(5):
        instant = known.next_after(instant)
        got.append(instant)
    assert [shown(slot, zone) for slot in got] == [shown(slot, zone) for slot in expected]


@given(walking, days, moments)
@settings(max_examples=150, deadline=None)
def test_starred_times_are_all_instants_whose_reading_matches(times, day, moment):
    text, (zone, start) = f"{times[0]} {times[1]} {day}", moment
    try:
        known = crontab.from_string(text, zone)
    except ScheduleError:
        assume(False)
    minute, hour, day_of_month, month, weekday = text.split()
    fields = [
        field.read(spec)
        for field, spec in zip(
            (MINUTE, HOUR, DAY_OF_MONTH, MONTH_OF_YEAR, DAY_OF_WEEK),
            (minute, hour, day_of_month, month, weekday),
            strict=True,
        )
    ]
    until = start + 36 * 3600
    expected = []
    for instant in range(start // 60 * 60 + 60, until + 1, 60):
        reading = datetime.fromtimestamp(instant, ZoneInfo(zone))
        values = (
            *(reading.minute, reading.hour, reading.day, reading.month),
            reading.isoweekday() % 7,
        )
        if all(value in field for value, field in zip(values, fields, strict=True)):
            expected.append(instant)
    assert slots(known, start, until) == expected


@given(walking, days, st.integers(int(FIRST.timestamp()), int(LAST.timestamp())))
@settings(max_examples=150, deadline=None)
def test_starred_times_are_those_of_cronsim_where_no_clock_changes(times, day, start):
    text = f"{times[0]} {times[1]} {day}"
    try:
        known = crontab.from_string(text)
    except ScheduleError:
        assume(False)
    assert known.next_after(start) == next(
        CronSim(text, datetime.fromtimestamp(start, UTC))
    ).timestamp()  # fmt: skip


@given(st.one_of(fixed, walking), days, moments, st.integers(0, 90 * 86400))
@settings(max_examples=100, deadline=None)
def test_the_latest_slot_is_the_last_of_all(times, day, moment, seconds):
    text, (zone, start) = f"{times[0]} {times[1]} {day}", moment
    try:
        known = crontab.from_string(text, zone)
    except ScheduleError:
        assume(False)
    assume(not text.startswith("*") or seconds < 3 * 86400)
    found = slots(known, start, start + seconds)
    assert known.latest(start, start + seconds) == (found[-1] if found else None)


@pytest.mark.parametrize(
    ("zone", "gap", "expected"),
    [
        ("America/New_York", "2027-03-14 00:00", ["2027-03-14 03:00 -0400"]),
        ("Australia/Lord_Howe", "2026-10-04 00:00", ["2026-10-04 02:30 +1100"]),
        ("Africa/Cairo", "2026-04-23 23:00", ["2026-04-24 02:15 +0300"]),
    ],
)
def test_a_time_that_is_skipped_is_due_right_after_the_gap(zone, gap, expected):
    start = at(gap, zone)
    known = crontab(hour=2, minute=15, timezone=zone)
    assert [shown(slot, zone) for slot in slots(known, start, start + 6 * 3600)] == expected


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/New_York", "2026-11-01"),
        ("Europe/Berlin", "2026-10-25"),
        ("Australia/Lord_Howe", "2027-04-04"),
    ],
)
def test_a_time_that_occurs_twice_is_due_the_first_time_only(zone, day):
    start = at(f"{day} 00:00", zone)
    hour = {"America/New_York": 1, "Europe/Berlin": 2, "Australia/Lord_Howe": 1}[zone]
    known = crontab(hour=hour, minute=45, timezone=zone)
    (found,) = slots(known, start, start + 20 * 3600)
    reading = datetime.fromtimestamp(found, ZoneInfo(zone))
    assert (reading.hour, reading.minute, reading.fold) == (hour, 45, 0)
    assert datetime.fromtimestamp(found + 3600, ZoneInfo(zone)).fold == 1 or zone.endswith("Howe")


def test_what_runs_every_few_minutes_runs_on_through_both_changes():
    known = crontab(minute="*/30", timezone="Europe/Berlin")
    for day in ("2026-03-29", "2026-10-25"):
        start = at(f"{day} 00:00", "Europe/Berlin")
        found = slots(known, start, start + 6 * 3600)
        assert {second - first for first, second in pairwise(found)} == {1800}


def test_a_repeated_hour_by_star_is_due_in_both():
    start = at("2026-10-25 01:00", "Europe/Berlin")
    star = slots(crontab(minute=0, timezone="Europe/Berlin"), start, start + 3 * 3600)
    listed = slots(crontab(0, "0-23", timezone="Europe/Berlin"), start, start + 3 * 3600)
    assert [shown(slot, "Europe/Berlin")[11:] for slot in star] == [
        *("02:00 +0200", "02:00 +0100", "03:00 +0100"),
    ]
    assert [shown(slot, "Europe/Berlin")[11:] for slot in listed] == ["02:00 +0200", "03:00 +0100"]
    assert crontab(0, "*") != crontab(0, "0-23")


def test_a_minute_past_midnight_that_falls_back_into_yesterday_is_not_missed():
    """St. John's changed its clocks at 00:01 until 2011: 23:01 to 23:59 came again."""
    zone = "America/St_Johns"
    known = crontab("*/10", "23", day_of_month="6", timezone=zone)
    start = at("2010-11-06 22:59", zone)
    found = [shown(slot, zone)[11:16] for slot in slots(known, start, start + 4 * 3600)]
    hour = [f"23:{minute:02}" for minute in range(0, 60, 10)]
    assert found == [*hour, *hour[1:]]


def test_both_day_fields_must_match_as_in_celery():
    friday_the_13th = crontab(0, 0, day_of_week="fri", day_of_month=13)
    found = slots(friday_the_13th, at("2026-01-01"), at("2026-12-31"))
    assert [shown(slot)[:10] for slot in found] == ["2026-02-13", "2026-03-13", "2026-11-13"]


def test_celery_s_patterns_mean_what_they_mean_there():
    from celery.schedules import crontab as celerys

    for fields in (
        {"minute": "*/15"},
        {"minute": 0, "hour": "*/3,8-17"},
        {"minute": "0", "hour": "22-5"},
        {"day_of_week": "mon-fri"},
        {"day_of_week": "thu-mon/2"},
        {"day_of_week": "sunday,wednesday"},
        {"day_of_month": "1-7,15-21"},
        {"day_of_month": "2-30/3"},
        {"month_of_year": "*/3"},
        {"month_of_year": "jan-mar"},
        {"minute": [3, 1, 2], "hour": {4, 5}},
    ):
        ours, theirs = crontab(**fields), celerys(**fields)
        assert set(ours._minutes) == theirs.minute, fields
        assert set(ours._hours) == theirs.hour, fields
        assert set(ours._weekdays) == theirs.day_of_week, fields
        assert set(ours._days) == theirs.day_of_month, fields
        assert set(ours._months) == theirs.month_of_year, fields


def test_seven_is_sunday_too_and_a_range_may_end_there():
    assert crontab(day_of_week=7) == crontab(day_of_week="sun")
    assert crontab(day_of_week="5-7") == crontab(day_of_week="fri,sat,sun")


def test_leap_days_and_rare_weekdays_are_found():
    leap_monday = crontab(0, 0, day_of_week="mon", day_of_month=29, month_of_year=2)
    assert shown(leap_monday.next_after(at("2025-01-01")))[:10] == "2044-02-29"
    every_minute = crontab("*", "*", day_of_week="mon", day_of_month=29, month_of_year=2)
    assert shown(every_minute.next_after(at("2025-01-01")))[:10] == "2044-02-29"
    assert calendar.weekday(2044, 2, 29) == 0


def test_fractions_of_a_second_do_not_repeat_a_slot():
    known = crontab(minute="*")
    noon = at("2026-05-05 12:00")
    assert known.next_after(noon - 0.001) == noon
    assert known.next_after(noon) == noon + 60
    assert known.next_after(noon + 0.999) == noon + 60


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"day_of_month": 31, "month_of_year": 2}, "'31' does not occur in month_of_year='2'"),
        ({"day_of_month": "30,31", "month_of_year": "feb"}, "would never be due"),
        ({"day_of_month": 31, "month_of_year": "4,6,9,11"}, "would never be due"),
        ({"minute": 60}, "minute=60 cannot be read; it goes from 0 to 59"),
        ({"hour": "24"}, "hour='24' cannot be read; it goes from 0 to 23"),
        ({"minute": "-5"}, "minute='-5' cannot be read"),
        ({"minute": "*/0"}, "a step is a number above 0"),
        ({"minute": "5/15"}, "as in '5-59/15'"),
        ({"minute": ""}, "minute='' cannot be read"),
        ({"minute": "1,,2"}, "cannot be read"),
        ({"minute": []}, "no number is given"),
        ({"minute": 1.5}, "minute=1.5 cannot be read"),
        ({"minute": True}, "minute=True cannot be read"),
        ({"day_of_week": "mondy"}, "did you mean 'monday'?"),
        ({"month_of_year": "sunday"}, "month_of_year='sunday' cannot be read"),
        ({"timezone": "Asia/Shangai"}, "did you mean 'Asia/Shanghai'?"),
        ({"timezone": "shanghai"}, "did you mean 'Asia/Shanghai'?"),
        ({"timezone": "../etc/passwd"}, "there is no time zone"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_declared(fields, said):
    with pytest.raises(ScheduleError, match=said.replace("*", r"\*").replace("?", r"\?")):
        crontab(**fields)


def test_the_31st_of_february_is_impossible_but_the_29th_is_not():
    assert crontab(day_of_month=29, month_of_year=2).next_after(0) is not None
    with pytest.raises(ConfigurationError):
        crontab.from_string("0 0 31 2 *")


@pytest.mark.parametrize("text", ["* * * *", "* * * * * *", ""])
def test_a_crontab_s_text_has_five_fields(text):
    with pytest.raises(ScheduleError, match="five fields"):
        crontab.from_string(text)


def test_a_zone_of_its_own_wins_over_the_default():
    own = crontab(hour=2, minute=0, timezone="Europe/Berlin").in_zone(zone_named("Asia/Shanghai"))
    default = crontab(hour=2, minute=0).in_zone(zone_named("Asia/Shanghai"))
    start = at("2026-07-01")
    assert shown(own.next_after(start)) == "2026-07-02 00:00 +0000"
    assert shown(default.next_after(start)) == "2026-07-01 18:00 +0000"
    assert timedelta(seconds=default.next_after(start) - start) == timedelta(hours=18)


def test_it_is_written_as_it_can_be_read_again():
    known = crontab("*/5", [3, 1], "mon-fri", timezone="Europe/Berlin")
    assert repr(known) == (
        "crontab(minute='*/5', hour='1,3', day_of_week='mon-fri', timezone='Europe/Berlin')"
    )
    assert eval(repr(known)) == known
    assert str(known) == "*/5 1,3 * * mon-fri Europe/Berlin"
    assert crontab.from_string(known.text, known.zone) == known
