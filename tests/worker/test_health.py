"""The health port: alive, ready and why not, status as JSON; nobody is told a secret."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request

import pytest

from amqflow import AmqFlow, ConfigurationError
from amqflow.worker.health import HealthServer
from tests.servers.process import free_port
from tests.servers.wait import until


class Worker:
    """What the port asks, with answers of the test's."""

    why = None

    def unready(self):
        return self.why

    def status(self):
        return {"worker": "w1", "running": 3}


async def ask(port, path="/status", method="GET"):
    def request():
        url = f"http://127.0.0.1:{port}{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method=method), timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(request)


async def test_probes_are_answered():
    worker = Worker()
    async with HealthServer(worker, 0) as server:
        assert await ask(server.port, "/live") == (200, "alive\n")
        assert await ask(server.port, "/ready") == (200, "ready\n")
        assert json.loads((await ask(server.port, "/"))[1]) == {"worker": "w1", "running": 3}
        assert await ask(server.port, "/live", "HEAD") == (200, "")
        worker.why = "not consuming: default (away)"
        assert await ask(server.port, "/ready") == (503, "not consuming: default (away)\n")
        assert (await ask(server.port, "/live"))[0] == 200
        assert (await ask(server.port, "/secrets"))[0] == 404
        assert (await ask(server.port, "/live", "POST"))[0] == 405


async def test_garbage_and_silence_harm_nobody():
    async with HealthServer(Worker(), 0) as server:
        for garbage in (b"\x00\xff\r\n\r\n", b"x" * 100_000, b"GET"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            with contextlib.suppress(ConnectionError):
                writer.write_eof()
                await reader.read()
            writer.close()
        assert (await ask(server.port, "/live"))[0] == 200


async def test_a_taken_port_is_said_in_a_sentence():
    async with HealthServer(Worker(), 0) as server:
        with pytest.raises(ConfigurationError, match=f"--health-port {server.port}"):
            async with HealthServer(Worker(), server.port):
                pass


async def test_a_worker_tells_what_it_does(bench):
    go, began = asyncio.Event(), set()

    @bench.app.task(name="hold", bind=True)
    async def hold(self):
        began.add(self.request.id)
        await go.wait()

    async with bench.working(slots=2) as worker:
        assert worker.unready() is None
        calls = [await hold.adelay() for _ in range(3)]
        await until(lambda: worker.status()["waiting"] == 1 and len(began) == 2, deadline=30)
        status = worker.status()
        assert (status["state"], status["pool"], status["slots"], status["running"]) == (
            "ready",
            "auto",
            2,
            2,
        )
        assert {queue["queue"] for queue in status["queues"]} >= {"default", "default.suspect"}
        assert all(queue["active"] for queue in status["queues"])
        json.dumps(status)
        await bench.app.runtime().transport.delete_queue("default")
        await until(lambda: worker.unready() is not None, deadline=30)
        assert worker.unready().startswith("not consuming: default")
        go.set()
        # What runs ends and its outcome is kept; what waited, whichever it was, went with its queue.
        running = [call for call in calls if call.id in began]
        await asyncio.gather(*(call.aget(timeout=30) for call in running))
        assert len(began) == 2
        worker.stop()
        assert worker.unready() == "stopping"


async def test_while_the_broker_is_away_it_lives_and_is_not_ready():
    from amqflow.worker import Worker as RealWorker

    url = f"amqp://me:hunter2@127.0.0.1:{free_port()}/"
    app = AmqFlow("away", broker=url, backend=None)
    worker = RealWorker(app)
    running = asyncio.create_task(worker.run())
    async with HealthServer(worker, 0) as server:
        assert (await ask(server.port, "/live"))[0] == 200
        code, why = await ask(server.port, "/ready")
        assert (code, why.startswith("starting")) == (503, True)
        assert "hunter2" not in (await ask(server.port))[1]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await app.aclose()
