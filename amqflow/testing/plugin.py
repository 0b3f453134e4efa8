"""The pytest plugin: fixtures that give a test a broker of its own.

It is imported by every pytest run where amqflow is installed, so it imports nothing until asked.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.app import App
    from amqflow.testing.binding import VhostBroker
    from amqflow.testing.server import BrokerThread


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option ``amqflow_app``."""
    parser.addini("amqflow_app", "the application that the fixture amqflow_app binds, module:name")


@pytest.fixture(scope="session")
def amqflow_server() -> Iterator[BrokerThread]:
    """The embedded broker of this test session, started when the first test asks for it."""
    from amqflow.testing.server import BrokerThread  # noqa: PLC0415 - see above

    with BrokerThread() as server:
        yield server


@pytest.fixture
def amqflow_broker(amqflow_server: BrokerThread) -> Iterator[VhostBroker]:
    """A virtual host of the test's own: ``.url``, ``.bind(app)``, ``.clock``."""
    from amqflow.testing.binding import VhostBroker  # noqa: PLC0415 - see above

    broker = VhostBroker(amqflow_server)
    yield broker
    broker.close()


@pytest.fixture
def amqflow_app(request: pytest.FixtureRequest, amqflow_broker: VhostBroker) -> App:
    """The application of the ini option ``amqflow_app``, bound to the test's virtual host."""
    place = request.config.getini("amqflow_app")
    module, _, name = place.partition(":")
    if not module:
        pytest.fail(
            "name the application in pytest's configuration, amqflow_app = module:name, or write "
            "a fixture of your own: return amqflow_broker.bind(app)"
        )
    app: App = getattr(import_module(module), name or "app")
    return amqflow_broker.bind(app)
