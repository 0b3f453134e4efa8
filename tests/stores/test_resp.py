"""Redis's pub/sub answers: read whole, in parts of any size, and refused where they are none."""

from __future__ import annotations

import pytest

from amqflow.stores.resp import Answers

STREAM = (
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
    b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10\r\nx\r\ny\r\n*3\r\n\r\n"
    b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
    b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    b"+PONG\r\n"
)
ANSWERS = [
    [b"subscribe", b"a", 1],
    [b"message", b"a", b"x\r\ny\r\n*3\r\n"],
    [b"unsubscribe", None, 0],
    [b"pong", b""],
    b"PONG",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_answers_come_whole_however_the_bytes_are_cut(size):
    answers, found = Answers(), []
    for start in range(0, len(STREAM), size):
        answers.feed(STREAM[start : start + size])
        while (one := answers.next()) is not None:
            found.append(one)
    assert found == ANSWERS


def test_nothing_gives_nothing():
    assert Answers().next() is None


@pytest.mark.parametrize("data", [b"-ERR no\r\n", b"HTTP/1.1 200\r\n", b"*x\r\n", b"$x\r\n"])
def test_what_is_no_answer_is_refused(data):
    answers = Answers()
    answers.feed(data)
    with pytest.raises(ValueError):
        answers.next()
