"""Results kept with the call they are of, as Celery keeps them with ``result_extended``."""

import json

from amqflow.abc import Outcome
from amqflow.handles import AsyncResult
from amqflow.results.meta import decode_meta, encode_meta
from tests.held import HeldOutcomes

CALL = {
    "name": "t",
    "args": [1],
    "kwargs": {"a": 2},
    "worker": "w@h",
    "retries": 3,
    "queue": "default",
}


def test_a_result_is_read_with_its_call():
    written = encode_meta(Outcome("id", "SUCCESS", 5, extended=CALL))
    assert json.loads(written).items() >= CALL.items()
    assert decode_meta(written, "id").extended == CALL


def test_a_result_without_its_call_says_nothing_of_it():
    written = encode_meta(Outcome("id", "SUCCESS", 5))
    assert "args" not in json.loads(written)
    assert decode_meta(written, "id").extended is None


def test_an_argument_that_json_cannot_hold_does_not_lose_the_result():
    odd = object()
    written = encode_meta(Outcome("id", "SUCCESS", 5, extended={**CALL, "args": [odd]}))
    found = decode_meta(written, "id")
    assert (found.result, found.extended["args"]) == (5, repr([odd]))


def test_a_handle_tells_of_the_call_where_it_was_kept():
    reader = HeldOutcomes(
        kept=Outcome("kept", "SUCCESS", extended=CALL), bare=Outcome("bare", "SUCCESS")
    )

    def told(name):
        result = AsyncResult(name, reader)
        return result.args, result.kwargs, result.worker, result.retries

    assert told("kept") == ([1], {"a": 2}, "w@h", 3)
    assert told("bare") == told("nothing") == (None, None, None, None)
