"""Execution options become a checked call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from amqflow.abc import Call
from amqflow.canvas import Signature, build_call
from amqflow.errors import ConfigurationError

NOW = 1_000_000.0


def call(**options):
    return build_call("shop.send", (1,), {"a": 2}, options, now=lambda: NOW)


def test_without_options_only_the_arguments_are_set():
    assert build_call("t", None, None, {}) == Call("t")
    assert call() == Call("shop.send", (1,), {"a": 2})


def test_celerys_options_have_their_places():
    made = call(
        countdown=5, expires=10, priority=3, exchange="x", routing_key="r", task_id="id",
        headers={"h": 1}, ignore_result=True, retry=False, time_limit=9, soft_time_limit=8.5,
        shadow="s", compression="zlib", serializer="json", reply_to="me", root_id="root",
        parent_id="parent", group_id="g", group_index=0, retries=2, timeout=1, add_to_parent=False,
    )  # fmt: skip
    assert made == Call(
        "shop.send", (1,), {"a": 2}, eta=NOW + 5, expires=NOW + 10, priority=3, exchange="x",
        routing_key="r", task_id="id", headers={"h": 1}, ignore_result=True, retry=False,
        time_limit=9.0, soft_time_limit=8.5, shadow="s", compression="zlib", reply_to="me",
        root_id="root", parent_id="parent", group="g", group_index=0, retries=2, timeout=1.0,
    )  # fmt: skip


def test_none_is_not_given():
    names = ["countdown", "eta", "expires", "priority", "queue", "link", "link_error", "task_id"]
    assert call(**dict.fromkeys(names)) == call()


@pytest.mark.parametrize("countdown", [0, -5, timedelta(0)])
def test_a_countdown_that_is_over_is_no_delay(countdown):
    assert call(countdown=countdown).eta is None


def test_moments():
    moment = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    seconds = datetime(2030, 1, 1, 10, tzinfo=UTC).timestamp()
    assert call(eta=moment).eta == seconds
    assert call(eta=datetime(2030, 1, 1, 10)).eta == seconds  # noqa: DTZ001 - naive is UTC
    assert call(eta="2030-01-01T12:00:00+02:00").eta == seconds
    assert call(expires=moment).expires == seconds
    assert call(expires=timedelta(minutes=1)).expires == NOW + 60
    assert call(countdown=timedelta(minutes=1)).eta == NOW + 60
    assert call(time_limit=timedelta(minutes=1)).time_limit == 60


def test_links_may_be_signatures_dicts_one_or_several():
    one, other = Signature("a", (1,)), {"task": "b", "args": [2]}
    assert [link["task"] for link in call(link=one).callbacks] == ["a"]
    assert [link["task"] for link in call(link=[one, other]).callbacks] == ["a", "b"]
    assert [link["task"] for link in call(link_error=(other,)).errbacks] == ["b"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"countdown": 1, "eta": datetime.now(UTC)}, ValueError, "countdown or eta, not both"),
        ({"time_limit": 1e300}, ValueError, "option time_limit: must be a year"),
        ({"soft_time_limit": 10**400}, ValueError, "that a float can hold"),
        ({"countdown": "5"}, TypeError, "option countdown: must be seconds"),
        ({"countdown": True}, TypeError, "countdown"),
        ({"countdown": float("inf")}, ValueError, "finite"),
        ({"countdown": float("nan")}, ValueError, "finite"),
        ({"eta": 5}, TypeError, "use countdown for seconds"),
        ({"eta": "tomorrow"}, ValueError, "option eta"),
        ({"expires": object()}, TypeError, "option expires"),
        ({"priority": "high"}, TypeError, "option priority"),
        ({"priority": True}, TypeError, "option priority"),
        ({"priority": 256}, ValueError, "between 0 and 255"),
        ({"priority": -1}, ValueError, "between 0 and 255"),
        ({"queue": 5}, TypeError, "option queue: must be a string"),
        ({"queue": "a", "exchange": "b"}, ValueError, "queue, or exchange"),
        ({"headers": [1]}, TypeError, "dict with string keys"),
        ({"headers": {1: 2}}, TypeError, "dict with string keys"),
        ({"link": "shop.send"}, TypeError, "must be a signature"),
        ({"link": [5]}, TypeError, "must be a signature"),
        ({"ignore_result": 1}, TypeError, "True or False"),
        ({"retry_policy": 5}, TypeError, "retry_policy"),
        ({"time_limit": 0}, ValueError, "above 0"),
        ({"time_limit": 5, "soft_time_limit": 6}, ValueError, "must not be above"),
        ({"serializer": "pickle"}, ValueError, "only 'json'"),
        ({"countdwon": 1}, ConfigurationError, "did you mean 'countdown'"),
        ({"connection": 1}, ConfigurationError, "no place here"),
        ({"delivery_mode": 1}, ConfigurationError, "always persistent"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, error, words):
    with pytest.raises(error, match=words) as caught:
        call(**options)
    assert "shop.send" in str(caught.value)


@pytest.mark.parametrize("args", ["text", b"bytes", 5, {1: 2}, iter([1])])
def test_arguments_must_be_a_sequence(args):
    with pytest.raises(TypeError, match="args must be a list or tuple"):
        build_call("t", args, None, {})


def test_keywords_must_be_a_mapping():
    with pytest.raises(TypeError, match="kwargs must be a dict"):
        build_call("t", None, [1], {})


def test_a_long_value_is_cut_in_the_error():
    with pytest.raises(TypeError) as caught:
        call(priority="x" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_retry_policy_without_retries_is_one_try():
    assert call(retry_policy={"max_retries": 0}).retry is False
    assert call(retry_policy={"max_retries": 3, "interval_start": 0}).retry is True
