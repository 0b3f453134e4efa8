"""Options: Celery's names and types, checked where they are declared."""

from __future__ import annotations

from datetime import timedelta

import pytest

from amqflow.errors import ConfigurationError
from amqflow.tasks import RateLimit, TaskOptions, parse_rate
from amqflow.tasks.options import OPTION_NAMES, WITHOUT_MEANING, GivenOptions, read_options


def read(**given):
    return TaskOptions(**read_options("shop.send", given))


def test_defaults_are_celerys():
    from celery import Task

    options = TaskOptions()
    for name in (
        "max_retries",
        "default_retry_delay",
        "priority",
        "time_limit",
        "throws",
        "expires",
    ):
        assert getattr(options, name) == getattr(Task, name), name
    assert options.retry_backoff_max == 600
    assert options.retry_jitter is True


def test_values_are_brought_into_one_form():
    options = read(
        autoretry_for=OSError, dont_autoretry_for=[ValueError], throws={KeyError}, time_limit=timedelta(minutes=1),
        expires=timedelta(hours=1), rate_limit="10/m", pool="prefork", retry_backoff=True, max_retries=None,
        default_retry_delay=5, serializer="application/json", retry_kwargs={"max_retries": 7, "countdown": 2},
    )  # fmt: skip
    assert options.autoretry_for == (OSError,)
    assert options.dont_autoretry_for == (ValueError,)
    assert options.throws == (KeyError,)
    assert (options.time_limit, options.expires) == (60.0, 3600.0)
    assert options.rate_limit == RateLimit(10, 60)
    assert options.pool == "processes"
    assert options.retry_backoff is True
    assert options.max_retries is None
    assert options.serializer == "json"
    assert dict(options.retry_kwargs) == {"max_retries": 7, "countdown": 2.0}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10/s", RateLimit(10, 1)), ("10/m", RateLimit(10, 60)), ("0.5/h", RateLimit(0.5, 3600)),
        ("7", RateLimit(7, 1)), (7, RateLimit(7, 1)), (0.5, RateLimit(0.5, 1)),
        (None, None), (0, RateLimit(0, 1)), ("0/m", RateLimit(0, 60)),
        (RateLimit(1, 2), RateLimit(1, 2)),
    ],
)  # fmt: skip
def test_rates(given, expected):
    assert parse_rate(given) == expected


def test_a_rate_by_the_second():
    assert RateLimit(30, 60).per_second == 0.5
    assert RateLimit(30, 60).interval == 2.0


def test_a_rate_of_zero_is_no_limit_and_says_so():
    """Unlike None, for which the default stands."""
    assert not parse_rate(0)
    assert parse_rate(10)


@pytest.mark.parametrize(
    ("rate", "words"),
    [(RateLimit(10, 60), "10/m"), (RateLimit(0.5, 1), "0.5/s"), (RateLimit(3, 10), "3/10 s")],
)
def test_a_rate_is_shown_as_it_is_declared(rate, words):
    assert str(rate) == words


@pytest.mark.parametrize(
    ("count", "period"), [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0), (1, -1)]
)
def test_what_is_no_rate_cannot_be_made(count, period):
    with pytest.raises(ValueError, match="expected"):
        RateLimit(count, period)


def test_a_rate_beyond_a_float_is_none():
    with pytest.raises(ValueError, match="a float can hold"):
        parse_rate(10**400)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_retires": 5}, "did you mean 'max_retries'"),
        ({"nonsense": 5}, "unknown option 'nonsense'"),
        ({"queue": 5}, "option queue: expected a string, got 5"),
        ({"queue": ""}, "option queue"),
        ({"priority": 256}, "between 0 and 255"),
        ({"priority": True}, "between 0 and 255"),
        ({"max_retries": -1}, "0 or more, or None for ever"),
        ({"max_retries": 1.5}, "an integer"),
        ({"autoretry_for": ("OSError",)}, "exception classes"),
        ({"throws": OSError()}, "option throws"),
        ({"throws": int}, "exception classes"),
        ({"retry_backoff": "2"}, "number of seconds"),
        ({"retry_backoff_max": -1}, "0 seconds or more"),
        ({"retry_jitter": 1}, "True or False"),
        ({"retry_kwargs": {"countdown": "x"}}, "retry_kwargs"),
        ({"retry_kwargs": {"nonsense": 1}}, "not 'nonsense'"),
        ({"time_limit": 0}, "more than 0 seconds"),
        ({"time_limit": float("nan")}, "option time_limit"),
        ({"time_limit": 1e300}, "a year .366 days. at most, got 1e.300"),
        ({"time_limit": 10**400}, "that a float can hold"),
        ({"soft_time_limit": timedelta(days=367)}, "a year .366 days. at most"),
        ({"time_limit": 5, "soft_time_limit": 6}, "must not be above"),
        ({"rate_limit": "often"}, "'10/m'"),
        ({"rate_limit": True}, "'10/m'"),
        ({"rate_limit": -1}, "0 or more"),
        ({"rate_limit": "10/d"}, "'10/m'"),
        ({"rate_limit": "0.00001/h"}, "a start a year at least"),
        ({"rate_limit": (10, 60)}, "'10/m'"),
        ({"expires": "1h"}, "seconds"),
        ({"ignore_result": "yes"}, "True or False"),
        ({"serializer": "pickle"}, "'json'"),
        ({"pool": "gevent"}, "'threads' or 'asyncio'"),
        ({"pool": "swimming"}, "asyncio, prefork"),
        ({"shadow_name": "x"}, "a function"),
        ({"queue": "a", "exchange": "b"}, "not both"),
    ],
)
def test_a_wrong_option_is_refused_at_the_declaration(given, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        read(**given)
    assert "task shop.send" in str(caught.value)


def test_celerys_options_without_meaning_are_accepted():
    assert read(**dict.fromkeys(WITHOUT_MEANING, True)) == TaskOptions()


def test_every_option_is_known_to_type_checkers():
    assert set(GivenOptions.__annotations__) - {"name", "base"} >= OPTION_NAMES


def test_options_change_into_new_ones():
    options = read(max_retries=1)
    assert options.changed(rate_limit="1/s").rate_limit == RateLimit(1, 1)
    assert options.rate_limit is None
    with pytest.raises(ConfigurationError):
        options.changed(rate_limit="x")
    with pytest.raises(AttributeError):
        options.max_retries = 5
