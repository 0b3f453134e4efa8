"""Redis's answers: read whole, in parts of any size, and refused where they are none."""

from __future__ import annotations

import pytest

from amqflow.stores.resp import NOTHING, Answers, Refusal

STREAM = (
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
    b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$10\r\nx\r\ny\r\n*3\r\n\r\n"
    b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
    b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    b"+PONG\r\n"
    b"$-1\r\n"
    b"*-1\r\n"
    b"*0\r\n"
    b"*2\r\n*2\r\n:1\r\n*1\r\n$1\r\nb\r\n*0\r\n"
)
ANSWERS = [
    [b"subscribe", b"a", 1],
    [b"message", b"a", b"x\r\ny\r\n*3\r\n"],
    [b"unsubscribe", None, 0],
    [b"pong", b""],
    b"PONG",
    None,
    None,
    [],
    [[1, [b"b"]], []],
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_answers_come_whole_however_the_bytes_are_cut(size):
    answers, found = Answers(), []
    for start in range(0, len(STREAM), size):
        answers.feed(STREAM[start : start + size])
        while (one := answers.next()) is not NOTHING:
            found.append(one)
    assert found == ANSWERS
    assert answers.empty


def test_nothing_gives_nothing():
    assert Answers().next() is NOTHING
    assert Answers().empty


def test_an_answer_that_says_no_is_one_of_the_answers():
    answers = Answers()
    answers.feed(b"*2\r\n-ERR in a list\r\n:1\r\n-WRONGTYPE of this key\r\n+OK\r\n")
    refused, one = answers.next()
    assert (refused.text, one) == ("ERR in a list", 1)
    last = answers.next()
    assert isinstance(last, Refusal)
    assert last.text == "WRONGTYPE of this key"
    assert answers.next() == b"OK"


def test_a_long_answer_is_not_read_again_with_every_part_of_it():
    answers, whole = Answers(), b"*20000\r\n" + b"$3\r\nabc\r\n" * 20_000
    looks = 0

    class Counted(bytearray):
        def find(self, *args):
            nonlocal looks
            looks += 1
            return super().find(*args)

    answers._data = Counted()
    for start in range(0, len(whole), 1000):
        answers.feed(whole[start : start + 1000])
        found = answers.next()
    assert found == [b"abc"] * 20_000
    assert looks < 25_000


@pytest.mark.parametrize("data", [b"HTTP/1.1 200\r\n", b"*x\r\n", b"$x\r\n"])
def test_what_is_no_answer_is_refused(data):
    answers = Answers()
    answers.feed(data)
    with pytest.raises(ValueError):
        answers.next()
