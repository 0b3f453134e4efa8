"""What was confirmed is there: the broker killed (fault 9), the confirm itself lost (fault 13)."""

import asyncio

import pamqp.commands
import pamqp.frame
import pytest

from amqflow import AmqFlow, PublishTimeout
from tests.faults.conftest import staged
from tests.faults.ledger import consumed
from tests.servers.rabbitmq import RETRIED
from tests.servers.toxic import Direction, TcpProxy
from tests.servers.wait import until

pytestmark = pytest.mark.faults


@pytest.mark.faults_long
async def test_a_killed_broker_has_everything_it_confirmed(
    private_rabbitmq, redis_url, tmp_path, monkeypatch
):
    """Ready, unacked, delayed and waiting for a retry; a queue of each type."""
    broker = private_rabbitmq()
    async with staged(broker.url, redis_url, tmp_path, monkeypatch) as stage:
        account, workers = stage.account, stage.workers
        workers.start("-Q", "default", "-c", "2")
        await consumed(stage.app)
        await asyncio.to_thread(broker.settle)
        delayed = [
            *await account.send("hit.plain", count=10, countdown=4),
            *await account.send("hit.plain", count=10, countdown=7.5),
        ]
        retrying = await account.send("hit.flaky", count=5)
        await until(lambda: all(account.runs_of(task_id) for task_id in retrying), deadline=60)
        unacked = await account.send("hit.hold", count=2)
        await until(lambda: all(account.runs_of(task_id) for task_id in unacked), deadline=60)
        await account.send("hit.plain", count=30)
        await account.send("hit.innocent", count=30, queue="quorum")
        await account.send("hit.pinnocent", count=30, queue="classic", priority=5)
        await asyncio.to_thread(broker.kill9)
        assert not any(account.runs_of(task_id) for task_id in delayed)
        stage.go()
        await asyncio.to_thread(broker.start)
        workers.start()
        balance = await account.balance(deadline=RETRIED)
        assert set(balance.states.values()) == {"SUCCESS"}
        # Run twice may be what was in the worker's hands, at most: two running, six fetched.
        assert balance.repeated <= 8


class ConfirmThief:
    """Drops the broker's next confirms of published messages, on the way to a client."""

    def __init__(self):
        self.stealing = False
        self.stolen = 0

    def __call__(self, direction, chunk):
        if not self.stealing or direction is Direction.UP or chunk[:1] != b"\x01":
            return chunk
        _, _, frame = pamqp.frame.unmarshal(chunk)
        if not isinstance(frame, pamqp.commands.Basic.Ack):
            return chunk
        self.stolen += 1
        return None


@pytest.fixture
async def behind_a_thief(stage, amqp_url, redis_url, monkeypatch):
    """A caller whose confirms can be stolen, and two workers whose cannot."""
    thief = ConfirmThief()
    async with TcpProxy(amqp_url, frames=True, filter=thief) as proxy:
        stage.workers.start()
        stage.workers.start()
        monkeypatch.setenv("AMQFLOW_BROKER", proxy.url)  # which wins over broker=
        caller = AmqFlow("hit", broker=proxy.url, backend=redis_url)
        await consumed(stage.app, by=2)
        yield caller, thief, proxy
        await caller.aclose()


async def test_a_lost_confirm_is_said_and_the_same_id_sent_again_ends_once(stage, behind_a_thief):
    caller, thief, _ = behind_a_thief
    account = stage.account
    await caller.asend_task("hit.plain", task_id="warm-up")
    thief.stealing = True
    with pytest.raises(PublishTimeout):
        await caller.asend_task("hit.aplain", task_id="one", timeout=1.0)
    await until(lambda: thief.stolen)  # late, where the broker is slow
    thief.stealing = False
    again = await caller.asend_task("hit.aplain", task_id="one")
    account.confirmed += ["warm-up", again.id]
    balance = await account.balance()
    await until(lambda: _quiet(account))
    assert balance.states == {"warm-up": "SUCCESS", "one": "SUCCESS"}
    assert account.runs_of("one") == 1, "the second copy found the outcome of the first"


async def test_a_confirm_lost_with_its_connection_is_made_up_for_under_the_same_id(
    stage, behind_a_thief
):
    """The call returns as if nothing had been; the task ran from the first copy already."""
    caller, thief, proxy = behind_a_thief
    account = stage.account
    await caller.asend_task("hit.plain", task_id="warm-up")
    thief.stealing = True
    calling = asyncio.create_task(caller.asend_task("hit.aplain", task_id="one"))
    await until(lambda: account.runs_of("one") and thief.stolen)
    assert not calling.done()
    thief.stealing = False
    proxy.drop_connections()
    assert (await calling).id == "one"
    account.confirmed += ["warm-up", "one"]
    await account.balance()
    await until(lambda: _quiet(account))
    assert account.runs_of("one") == 1


async def test_two_copies_at_once_end_once(stage, behind_a_thief):
    """Both run, on two workers: equal ids stop nobody; one outcome is written, and links once."""
    caller, thief, proxy = behind_a_thief
    account = stage.account
    await caller.asend_task("hit.plain", task_id="warm-up")
    thief.stealing = True
    link = stage.app.signature("hit.plain").set(task_id="link")
    calling = asyncio.create_task(caller.asend_task("hit.always", task_id="one", link=link))
    await until(lambda: account.runs_of("one") == 1)
    thief.stealing = False
    proxy.drop_connections()
    await calling
    await until(lambda: account.runs_of("one") == 2)
    stage.go()
    account.confirmed += ["warm-up", "one", "link"]
    balance = await account.balance()
    await until(lambda: _quiet(account))
    assert balance.states["one"] == "SUCCESS"
    assert account.runs_of("link") == 1


async def _quiet(account):
    """Say whether nothing is ready or unacked: a queue in use cannot be deleted if empty."""
    counts = await account.app.runtime().transport.declare_queue("default", passive=True)
    return counts.messages == 0
