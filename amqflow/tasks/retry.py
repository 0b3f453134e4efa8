"""The retry policy, pure: options, the attempt and an exception make a decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from amqflow.backoff import retry_delay
from amqflow.errors import Ignore, Reject, Replaced, Retry, TimeLimitExceeded

if TYPE_CHECKING:
    from amqflow.tasks.options import TaskOptions


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What becomes of a failed attempt.

    Attributes:
        again: Run once more.
        delay: Seconds until then.
        park: Where not ``again``: whether the message becomes a dead letter.
        reason: A few words for people.
    """

    again: bool
    delay: float = 0.0
    park: bool = True
    reason: str = ""


def decide(options: TaskOptions, number: int, error: BaseException) -> RetryDecision:
    """Return whether attempt ``number`` (0 for the first run), ended by ``error``, runs again.

    Celery's rules (``celery/app/autoretry.py``): ``dont_autoretry_for`` before ``autoretry_for``;
    ``retry_kwargs`` override ``max_retries`` and the delay; a backoff overrides ``countdown``.
    ``throws`` decides parking only: an expected error may well be retried first. A hard time
    limit ends the task, whatever it would retry. ``Retry`` raised by the task itself carries its
    own time and is not decided here.
    """
    if isinstance(error, Ignore | Reject | Replaced | Retry | TimeLimitExceeded):
        return RetryDecision(again=False, reason=type(error).__name__)
    park = not (options.throws and isinstance(error, options.throws))
    if not options.autoretry_for or not isinstance(error, options.autoretry_for):
        return RetryDecision(again=False, park=park, reason="not in autoretry_for")
    if options.dont_autoretry_for and isinstance(error, options.dont_autoretry_for):
        return RetryDecision(again=False, park=park, reason="in dont_autoretry_for")
    most = options.retry_kwargs.get("max_retries", options.max_retries)
    if most is not None and number >= most:
        return RetryDecision(again=False, park=park, reason=f"failed after {number} retries")
    limit = "for ever" if most is None else f"of {most}"
    return RetryDecision(
        again=True, delay=autoretry_delay(options, number), reason=f"retry {number + 1} {limit}"
    )


def autoretry_delay(options: TaskOptions, number: int) -> float:
    """Return the seconds before retry ``number + 1``.

    ``retry_backoff=True`` counts as 1, as in Celery. Celery rounds a fraction down to a whole
    second and up to 1; here ``retry_backoff=0.5`` means what it says.
    """
    if options.retry_backoff:
        return retry_delay(
            number,
            factor=float(options.retry_backoff),
            most=options.retry_backoff_max,
            jitter=options.retry_jitter,
        )
    delay: float = options.retry_kwargs.get("countdown", options.default_retry_delay)
    return delay
