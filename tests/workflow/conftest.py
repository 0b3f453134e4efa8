"""A running application per module: tasks of a small shop, and a worker in the tests' own loop."""

import asyncio
import secrets
from collections import Counter
from contextlib import asynccontextmanager, contextmanager

import pytest

from amqflow import AmqFlow
from amqflow.dev.hosting import Host
from amqflow.worker import Worker, WorkerOptions
from tests.servers.embedded import EmbeddedBroker
from tests.servers.wait import until

GET = 30


class Shop:
    """An application with its tasks, and what its tasks have told."""

    def __init__(self, app: AmqFlow) -> None:
        self.app = app
        self.worker: Worker | None = None
        self.ran = Counter()
        self.told = []
        self.gates: dict[str, asyncio.Event] = {}
        declare(self)

    def clear(self):
        self.ran.clear()
        self.told.clear()
        self.gates.clear()

    def __getattr__(self, name):
        return self.app.tasks[f"shop.{name}"]

    async def run(self, node, *args, **kwargs):
        """Send and wait for the result."""
        return await (await node.aapply_async(args, kwargs)).aget(timeout=GET)

    async def count(self, queue):
        transport = self.app.runtime().transport
        return (await transport.declare_queue(queue, passive=True)).messages

    async def quiet(self):
        """Wait until no queue holds anything that is to be done, and the worker does nothing."""
        names = ("default", "amqflow.flow.completions", "amqflow.flow.dropped")

        def working():
            executor, settler = self.worker._executor, self.worker._settler
            return executor.running + executor.waiting + settler.busy

        async def empty():
            return not working() and not any([await self.count(name) for name in names])

        await until(empty, deadline=GET)


def declare(shop):  # noqa: C901, PLR0915 - a task is two lines
    app = shop.app

    def task(function=None, **options):
        def made(body):
            return app.task(name=f"shop.{body.__name__.rstrip('_')}", **options)(body)

        return made if function is None else made(function)

    @task
    async def add(x, y):
        shop.ran["add"] += 1
        return x + y

    @task
    async def double(x):
        shop.ran["double"] += 1
        return 2 * x

    @task
    async def echo(value):
        shop.ran[f"echo {value}"] += 1
        return value

    @task
    async def nested(levels):
        value = 1
        for _ in range(levels):
            value = [value]
        return value

    @task
    async def total(numbers):
        shop.ran["total"] += 1
        return sum(numbers)

    @task
    async def collect(values):
        shop.ran["collect"] += 1
        return values

    @task
    async def both(values, more=None, *, key=None):
        return [values, more, key]

    @task
    async def late(value, seconds):
        await asyncio.sleep(seconds)
        return value

    @task
    async def fail(*_):
        shop.ran["fail"] += 1
        raise KeyError("missing")

    @task(throws=(LookupError,))
    async def miss(*_):
        shop.ran["miss"] += 1
        raise LookupError("nothing there")

    @task
    async def note(value):
        shop.told.append(("note", value))
        return value

    @task
    async def sorry(request, exc, traceback):
        shop.told.append(("sorry", request.id, type(exc).__name__, traceback is not None))

    @task
    async def also(request, exc, traceback):
        shop.told.append(("also", request.id, type(exc).__name__, traceback is not None))

    @task(bind=True, max_retries=3)
    async def shaky_sorry(self, request, exc, traceback):
        shop.ran["shaky_sorry"] += 1
        if self.request.retries < 2:
            raise self.retry(countdown=0.1)
        shop.told.append(("sorry", request.id, type(exc).__name__, traceback is not None))

    @task(bind=True, max_retries=5)
    async def retries(self, value, times):
        shop.ran["retries"] += 1
        if self.request.retries < times:
            raise self.retry(countdown=0.1)
        return [value, self.request.group is not None, self.request.group_index]

    @task(bind=True)
    async def retries_late(self):
        raise self.retry(countdown=3600)

    @task(bind=True)
    async def adds_and_swaps(self, value, node):
        from amqflow.canvas import signature_from

        await self.aadd_to_chord(app.tasks["shop.echo"].s(value))
        raise self.replace(signature_from(node, app))

    @task(soft_time_limit=0.2)
    async def patient():
        from amqflow import SoftTimeLimitExceeded

        try:
            await asyncio.sleep(20)
        except SoftTimeLimitExceeded:
            return "caught"

    @task(bind=True)
    async def ids(self, *_):
        request = self.request
        return [request.id, request.root_id, request.parent_id, request.group, request.group_index]

    @task
    async def held(name):
        shop.ran[f"held {name}"] += 1
        try:
            await shop.gates.setdefault(name, asyncio.Event()).wait()
        except asyncio.CancelledError:
            shop.ran[f"ended {name}"] += 1
            raise
        return name

    @task(bind=True)
    async def swap(self, node, *_):
        shop.ran["swap"] += 1
        from amqflow.canvas import signature_from

        raise self.replace(signature_from(node, app))

    @task(bind=True)
    async def adds(self, *values):
        for value in values:
            await self.aadd_to_chord(app.tasks["shop.echo"].s(value))
        return "added"

    @task
    async def gone():
        from amqflow.errors import Ignore

        raise Ignore

    @task
    async def refuses(*_):
        from amqflow import Reject

        raise Reject("not mine")


@contextmanager
def virtual_host(request):
    """Lend a virtual host of the shared RabbitMQ."""
    server = request.getfixturevalue("rabbitmq")
    vhost = f"test-{secrets.token_hex(4)}"
    server.add_vhost(vhost)
    yield server.vhost_url(vhost)
    server.delete_vhost(vhost)


@asynccontextmanager
async def own_broker():
    """Lend an embedded broker, in a thread: it outlives every worker that is killed."""
    broker = EmbeddedBroker()
    broker.start()
    try:
        yield broker.url
    finally:
        await asyncio.to_thread(broker.close)


def database(request):
    """Return the URL of an empty database of the shared Redis."""
    server = request.getfixturevalue("redis_server")
    number = server.databases - 1 - secrets.randbelow(server.databases // 2)
    server.cli("FLUSHDB", db=number)
    return server.db_url(number)


@asynccontextmanager
async def redis(request, folder):
    """RabbitMQ and Redis."""
    del folder
    with virtual_host(request) as url:
        yield url, database(request)


@asynccontextmanager
async def memory(request, folder):
    """The embedded broker, and the memory of the process."""
    del request, folder
    async with own_broker() as url:
        yield url, "memory://"


@asynccontextmanager
async def embedded(request, folder):
    """What `amqflow dev` serves: the embedded broker, and the store beside it."""
    del request
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        async with Host("flow"):
            yield "embedded://flow", None


@asynccontextmanager
async def memory_on_rabbitmq(request, folder):
    """RabbitMQ, and the memory of the process."""
    del folder
    with virtual_host(request) as url:
        yield url, f"memory://{secrets.token_hex(4)}"


@asynccontextmanager
async def redis_on_embedded(request, folder):
    """The embedded broker and Redis."""
    del folder
    async with own_broker() as url:
        yield url, database(request)


PLACES = [
    redis,
    memory,
    embedded,
    pytest.param(memory_on_rabbitmq, marks=pytest.mark.cross),
    pytest.param(redis_on_embedded, marks=pytest.mark.cross),
]


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: place.__name__)
async def running(request, tmp_path_factory):
    """The application with its worker, once per module and place."""
    async with request.param(request, tmp_path_factory.mktemp("run")) as (broker, backend):
        # Ten thousand publishes at once, the broker in the same loop: a loaded machine takes long.
        app = AmqFlow("flow", broker=broker, backend=backend, once_lease=3, publish_timeout=120)
        shop = Shop(app)
        worker = Worker(app, WorkerOptions(concurrency=50, hostname="test"))
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(30):
            await worker.ready.wait()
        shop.worker = worker
        yield shop
        worker.stop()
        async with asyncio.timeout(30):
            await task


@pytest.fixture(params=["rabbitmq", pytest.param("embedded", marks=pytest.mark.cross)])
async def broker_url(request):
    """What outlives a killed worker, for a test that brings the Redis beside it."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("amqp_url")
        return
    async with own_broker() as url:
        yield url


@pytest.fixture
async def shop(running):
    running.clear()
    return running
