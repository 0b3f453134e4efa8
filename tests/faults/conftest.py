"""What the fault tests share: an application whose workers are processes to kill."""

import asyncio
import importlib
from contextlib import asynccontextmanager

import pytest

from amqflow.provision import apply
from amqflow.topology import BrokerFacts
from tests.faults.account import Account
from tests.faults.ledger import Workers


class Stage:
    """An application, its account, its workers and the folder they all write to."""

    def __init__(self, account, workers, folder):
        self.account, self.workers, self.folder = account, workers, folder
        self.app = account.app

    async def declared(self):
        """Declare the topology before any worker does."""
        transport = self.app.runtime().transport
        facts = BrokerFacts((await transport.server()).version)
        await apply(self.app.derived_topology(facts), transport)

    def go(self):
        """Let the tasks that hold end."""
        (self.folder / "go").touch()


@asynccontextmanager
async def staged(broker_url, store_url, folder, monkeypatch, *, watch=True):
    """Set up ``worker_app`` on servers; its workers are to end cleanly in the end.

    ``watch``: count the ends that are written, which needs a store that stays.
    """
    log = folder / "runs.log"
    monkeypatch.setenv("AMQFLOW_BROKER", broker_url)
    monkeypatch.setenv("AMQFLOW_BACKEND", store_url)
    monkeypatch.setenv("LEDGER_LOG", str(log))
    import tests.faults.worker_app as module

    app = importlib.reload(module).app
    workers = Workers(folder, "tests.faults.worker_app")
    async with Account(app, log, store_url if watch else None) as account:
        stage = Stage(account, workers, folder)
        try:
            await stage.declared()
            yield stage
        finally:
            stage.go()
            codes = await asyncio.to_thread(workers.close)
    assert codes == [0] * len(codes), f"a worker did not stop cleanly\n{workers.logs()}"


@pytest.fixture
async def stage(amqp_url, redis_url, tmp_path, monkeypatch):
    """The tasks of ``worker_app`` on fresh servers that nobody kills."""
    async with staged(amqp_url, redis_url, tmp_path, monkeypatch) as stage:
        yield stage
