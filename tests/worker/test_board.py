"""The page a worker and a pool child share: what one writes the other reads whole."""

import os
import subprocess
import sys
import time

import pytest

from amqflow.worker.pools.board import Board, shared_page

#: Frames as long as these lie over each other exactly: a torn one is whole by its length.
SIZE = 20_000
#: Writes what a child holds back, and says that it is sent, as fast as it can.
WRITER = """
import sys
from amqflow.worker.pools.board import Board
board = Board(int(sys.argv[1]))
frames = [bytes((number,)) * int(sys.argv[2]) for number in range(251)]
print("up", flush=True)
rounds = 0
while not board.limited:
    rounds += 1
    for frame in frames:
        board.put(frame)
        board.put(frame)
        board.sent()
print(rounds, flush=True)
"""


@pytest.fixture
def board():
    page = shared_page()
    made = Board(page)
    os.close(page)
    yield made
    made.close()


def test_what_has_begun_is_not_taken_back_and_what_has_not_does_not_begin(board):
    assert board.start(3)
    assert board.withdraw(5) == 3
    assert not board.start(4)
    assert not board.start(5)
    assert board.start(6)


def test_what_was_taken_back_stays_so_when_less_is_taken_back_after_it(board):
    """The child has not come to 3 yet; they ran twice: there and where they had been given to."""
    board.start(2)
    assert board.withdraw(4) == 2
    assert board.withdraw(2) == 2
    assert not board.start(3)
    assert not board.start(4)
    assert board.start(5)


def test_an_outbox_that_is_emptied_meanwhile_is_never_read_in_part():
    page = shared_page()
    board = Board(page)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(page), str(SIZE)],
        pass_fds=[page],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(page)
    try:
        assert writer.stdout.readline() == "up\n"
        seen = torn = 0
        end = time.monotonic() + 20
        while seen < 20_000 and time.monotonic() < end:
            found = board.outbox()
            seen += bool(found)
            torn += len(found) % SIZE != 0 or len(set(found)) > 1
        board.limit(1)
        rounds = int(writer.stdout.readline())
        assert writer.wait(10) == 0
    finally:
        writer.kill()
        writer.wait(10)
        writer.stdout.close()
        board.close()
    assert rounds > 10
    assert seen > 1000
    assert not torn
