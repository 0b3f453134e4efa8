"""Signals: Celery's connect, sender matching, and receivers that fail."""

from __future__ import annotations

import gc
import logging

import pytest

from amqflow import signals
from amqflow.errors import ConfigurationError
from amqflow.signals import Signal


class FakeTask:
    def __init__(self, name):
        self.name = name


@pytest.fixture
def signal():
    return Signal("something", "value")


def test_a_bare_decorator_connects_and_returns_the_function(signal):
    seen = []

    @signal.connect
    def receiver(sender=None, value=None, **kwargs):
        seen.append((sender, value, kwargs["signal"]))
        return "answer"

    assert signal.send(sender="shop.send", value=1) == [(receiver, "answer")]
    assert seen == [("shop.send", 1, signal)]


def test_a_receiver_with_a_sender_hears_only_that_sender(signal):
    seen = []

    @signal.connect(sender="shop.send")
    def receiver(sender=None, **kwargs):
        seen.append(sender)

    signal.send(sender="shop.other")
    signal.send(sender="shop.send")
    signal.send()
    assert seen == ["shop.send"]


@pytest.mark.parametrize("connected_by", [FakeTask("shop.send"), "shop.send"])
@pytest.mark.parametrize("sent_by", [FakeTask("shop.send"), "shop.send"])
def test_a_task_and_its_name_are_one_sender(signal, connected_by, sent_by):
    seen = []
    signal.connect(lambda sender, **_: seen.append(sender), sender=connected_by)
    signal.send(sender=sent_by)
    signal.send(sender=FakeTask("shop.other"))
    assert seen == [sent_by]


def test_any_object_can_be_a_sender(signal):
    one, other, seen = object(), object(), []
    signal.connect(lambda sender, **_: seen.append(sender), sender=one)
    signal.send(sender=other)
    signal.send(sender=one)
    assert seen == [one]


def test_a_receiver_without_sender_hears_all_even_none(signal):
    seen = []
    signal.connect(lambda sender, **_: seen.append(sender))
    signal.send()
    signal.send(sender="x")
    assert seen == [None, "x"]


def test_a_closure_is_not_collected_by_default(signal):
    seen = []

    def connect():
        signal.connect(lambda **_: seen.append(1))

    connect()
    gc.collect()
    signal.send()
    assert seen == [1]


def test_a_weak_receiver_is_collected(signal):
    def receiver(**kwargs):
        raise AssertionError

    signal.connect(receiver, weak=True)
    del receiver
    gc.collect()
    assert signal.send() == []
    assert not signal.has_receivers()


def test_a_dispatch_uid_connects_once_and_disconnects(signal):
    seen = []
    for number in range(3):
        signal.connect(lambda number=number, **_: seen.append(number), dispatch_uid="mine")
    signal.send()
    assert seen == [0]
    assert signal.disconnect(dispatch_uid="mine")
    assert not signal.disconnect(dispatch_uid="mine")
    signal.send()
    assert seen == [0]


def test_disconnect_says_whether_it_was_connected(signal):
    def receiver(**kwargs):
        return 1

    assert not signal.disconnect(receiver)
    signal.connect(receiver)
    assert signal.disconnect(receiver)
    assert signal.send() == []


def test_a_failing_receiver_is_logged_and_the_next_one_runs(signal, caplog):
    seen, error = [], RuntimeError("receiver broke")

    def failing(**_):
        raise error

    signal.connect(failing)
    signal.connect(lambda **_: seen.append(1))
    with caplog.at_level(logging.ERROR):
        answers = dict(signal.send())
    assert seen == [1]
    assert answers[failing] is error
    assert "receiver broke" in caplog.text
    assert "something" in caplog.text


def test_a_coroutine_function_is_refused(signal):
    async def receiver(**_): ...

    with pytest.raises(ConfigurationError, match="coroutine function"):
        signal.connect(receiver)


def test_a_receiver_must_take_any_keyword(signal):
    with pytest.raises(ConfigurationError, match=r"\*\*kwargs"):
        signal.connect(lambda sender: None)
    with pytest.raises(ConfigurationError, match="callable"):
        signal.connect(5)


def test_has_receivers_answers_by_sender(signal):
    assert not signal.has_receivers()
    assert not signal.has_receivers("shop.send")
    signal.connect(lambda **_: None, sender="shop.send")
    assert signal.has_receivers()
    assert signal.has_receivers("shop.send")
    assert signal.has_receivers(FakeTask("shop.send"))
    assert not signal.has_receivers("shop.other")


def test_names_and_arguments_are_celerys():
    import celery.signals as celery

    ours = {name: one for name, one in vars(signals).items() if isinstance(one, Signal)}
    for name, one in ours.items():
        if name in {"beat_published", "beat_missed", "beat_failed"}:
            continue  # Celery's beat tells nothing of these
        theirs = getattr(celery, name)
        assert one.name == name == theirs.name
        missing = set(theirs.providing_args or ()) - one.providing_args
        assert missing == set(), name
