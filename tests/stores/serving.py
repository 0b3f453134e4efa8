"""A store served by this process, under a name in a runtime folder of the test's own."""

import os
from contextlib import asynccontextmanager

from amqflow import rendezvous
from amqflow.rendezvous import Rendezvous
from amqflow.stores.server import StoreServer


@asynccontextmanager
async def served(methods, folder, monkeypatch):
    """Serve `methods` under the name "suite"."""
    folder.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    server = StoreServer(methods, token="secret")
    await server.start()
    entry = Rendezvous(
        "suite", os.getpid(), f"amqp://{server.address}/", store=server.address, token="secret"
    )
    rendezvous.announce(entry)
    try:
        yield entry
    finally:
        await server.stop()
