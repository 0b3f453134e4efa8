"""The retry policy: Celery's rules as a pure function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.errors import Ignore, Reject, Retry, TimeLimitExceeded
from amqflow.tasks import TaskOptions, decide
from amqflow.tasks.options import read_options
from amqflow.tasks.retry import autoretry_delay


def options(**given):
    return TaskOptions(**read_options("t", given))


def test_without_autoretry_a_failure_is_final_and_parked():
    decision = decide(options(), 0, OSError())
    assert (decision.again, decision.park) == (False, True)


def test_what_is_named_is_retried_subclasses_included():
    declared = options(autoretry_for=(OSError,))
    assert decide(declared, 0, ConnectionError()).again
    assert not decide(declared, 0, ValueError()).again


def test_exceptions_from_the_rule_win():
    declared = options(autoretry_for=(OSError,), dont_autoretry_for=(ConnectionError,))
    assert decide(declared, 0, OSError()).again
    assert not decide(declared, 0, ConnectionRefusedError()).again


@pytest.mark.parametrize(("most", "runs"), [(0, 1), (3, 4)])
def test_max_retries_counts_retries_not_runs(most, runs):
    declared = options(autoretry_for=(OSError,), max_retries=most)
    assert [decide(declared, number, OSError()).again for number in range(runs)] == (
        [True] * (runs - 1) + [False]
    )


def test_none_is_for_ever():
    assert decide(options(autoretry_for=(OSError,), max_retries=None), 10**6, OSError()).again


def test_retry_kwargs_override_as_in_celery():
    declared = options(autoretry_for=(OSError,), retry_kwargs={"max_retries": 5, "countdown": 7})
    assert decide(declared, 4, OSError()).delay == 7
    assert not decide(declared, 5, OSError()).again
    assert decide(
        options(autoretry_for=(OSError,), retry_kwargs={"max_retries": None}), 99, OSError()
    ).again


def test_expected_errors_fail_without_being_parked_and_may_be_retried():
    decision = decide(options(throws=(KeyError,)), 0, KeyError())
    assert (decision.again, decision.park) == (False, False)
    declared = options(throws=(OSError,), autoretry_for=(OSError,), max_retries=1)
    assert decide(declared, 0, OSError()).again
    assert not decide(declared, 1, OSError()).park


@pytest.mark.parametrize("error", [Ignore(), Reject("x"), Retry(), TimeLimitExceeded()])
def test_what_a_task_or_worker_decided_is_not_retried(error):
    assert not decide(options(autoretry_for=(Exception,)), 0, error).again


def test_the_delay_without_backoff_is_the_default():
    assert autoretry_delay(options(), 5) == 180
    assert autoretry_delay(options(default_retry_delay=3), 5) == 3


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [(True, [1, 2, 4, 8]), (2, [2, 4, 8, 10]), (0.5, [0.5, 1, 2, 4]), (1000, [10] * 4)],
)
def test_backoff_doubles_up_to_its_bound(backoff, delays):
    declared = options(retry_backoff=backoff, retry_backoff_max=10, retry_jitter=False)
    assert [autoretry_delay(declared, number) for number in range(4)] == delays


@given(number=st.integers(0, 10_000), factor=st.floats(0.01, 1000))
def test_jitter_stays_between_zero_and_the_delay(number, factor):
    declared = options(retry_backoff=factor, retry_backoff_max=600)
    bound = autoretry_delay(declared.changed(retry_jitter=False), number)
    assert 0 <= autoretry_delay(declared, number) <= bound <= 600


def test_a_decision_says_why():
    declared = options(autoretry_for=(OSError,), max_retries=3)
    assert decide(declared, 0, OSError()).reason == "retry 1 of 3"
    assert decide(declared, 3, OSError()).reason == "failed after 3 retries"
    assert decide(declared.changed(max_retries=None), 3, OSError()).reason == "retry 4 for ever"
