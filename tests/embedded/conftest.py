"""A broker without sockets for each test, on a clock that the test steps."""

import pytest

from amqflow.broker.node import Node
from tests.embedded.sansio import Client, SteppedClock


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def node(clock) -> Node:
    return Node("test@localhost", {"guest": "guest"}, ("/",), clock)


@pytest.fixture
def client(node) -> Client:
    """A client with channel 1 open."""
    return Client(node).open()


@pytest.fixture
def step(clock, node):
    """Let time pass: `step(5)`; what is due then is done."""

    def step(seconds: float) -> None:
        clock.step(seconds)
        node.timers.run_due()

    return step
