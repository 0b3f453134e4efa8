"""Compositions, revoking and large values over what `amqflow dev` serves, from another process."""

import signal

import pytest

SHOP = """
    from amqflow import AmqFlow

    app = AmqFlow("shop", broker="embedded://")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task
    def fail(x: int) -> int:
        raise KeyError("missing")

    @app.task
    def repeat(text: str, times: int) -> str:
        return text * times
"""

CALL = """
    from amqflow import GroupResult, TaskRevoked, chain, chord, group
    from shop import add, app, fail, repeat, total

    print("chord", chord(group(add.s(i, i) for i in range(5)))(total.s()).get(timeout=30))
    print("chain", chain(add.s(1, 2), add.s(3))().get(timeout=30))
    print("in a chain", chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s())().get(timeout=30))

    sent = group(add.s(n, 1) for n in range(3))()
    print("group", sent.get(timeout=30))
    sent.save()
    print("restored", app.restore_group(sent.id).get(timeout=30))

    try:
        chord([add.s(1, 1), fail.s(1)], total.s())().get(timeout=30)
    except KeyError as error:
        print("failed", error)

    later = add.apply_async((1, 1), countdown=3600)
    app.control.revoke(later.id)
    try:
        later.get(timeout=30)
    except TaskRevoked:
        print("revoked", later.state)

    mebibytes = "x" * (2 * 1024 * 1024)
    print("large result", repeat.delay("x", len(mebibytes)).get(timeout=30) == mebibytes)
    print("large body", repeat.delay(mebibytes, 2).get(timeout=30) == 2 * mebibytes)
"""

PRINTED = """\
chord 20
chain 6
in a chain 7
group [1, 2, 3]
restored [1, 2, 3]
failed 'missing'
revoked REVOKED
large result True
large body True
"""


@pytest.fixture
def shop(folder):
    folder.write(shop=SHOP, call=CALL)
    return folder


def test_a_script_composes_revokes_and_sends_what_is_large(shop):
    """Nothing is installed but the package: no Redis, no RabbitMQ."""
    with shop.started("-A", "shop", "dev", "--no-reload") as dev:
        dev.wait_for("ready, queues default")
        done = shop.run(python=("call.py",), deadline=120)
        assert done.stderr == ""
        assert done.stdout == PRINTED
        listed = shop.run("-A", "shop", "workflow", "list", "--all")
        assert listed.returncode == 0, listed.stderr
        assert "shop.total" in listed.stdout
        assert dev.stop(signal.SIGINT) == 0


TWO_WORKERS = """
    import asyncio, os
    from amqflow import AmqFlow

    app = AmqFlow("shop", broker="embedded://", worker_prefetch_multiplier=1)

    @app.task
    async def where(seconds: float) -> int:
        await asyncio.sleep(seconds)
        return os.getpid()

    @app.task
    def different(pids: list[int]) -> int:
        return len(set(pids))

    @app.task(track_started=True)
    async def hold() -> None:
        await asyncio.sleep(3600)
"""

USE_THEM = """
    import time
    from amqflow import TaskRevoked, chord
    from shop import app, different, hold, where

    print("workers", chord([where.s(0.2) for _ in range(8)], different.s())().get(timeout=30))

    running = [hold.delay() for _ in range(2)]
    while any(one.state != "STARTED" for one in running):
        time.sleep(0.05)
    app.control.revoke([one.id for one in running], terminate=True)
    for one in running:
        try:
            one.get(timeout=30)
        except TaskRevoked:
            print("revoked", one.state)
"""


def test_two_workers_count_one_chord_and_both_hear_of_a_revoke(folder):
    folder.write(shop=TWO_WORKERS, call=USE_THEM)
    worker = ("-A", "shop", "worker", "-c", "1")
    with folder.started("broker", "--port", "0", "--management-port", "0") as broker:
        broker.wait_for("join it")
        with (
            folder.started(*worker, "-n", "a") as first,
            folder.started(*worker, "-n", "b") as second,
        ):
            for each in (first, second):
                each.wait_for("ready")
            done = folder.run(python=("call.py",))
            assert done.stderr == ""
            assert done.stdout == "workers 2\nrevoked REVOKED\nrevoked REVOKED\n"
            for each in (first, second):
                each.wait_for("terminated")
                assert each.stop() == 0
        assert broker.stop() == 0


def test_chords_work_in_one_process(shop):
    shop.write(
        script="""
            from amqflow import chord, group
            from shop import add, app, total

            with app.running():
                print(chord(group(add.s(n, n) for n in range(20)))(total.s()).get(timeout=30))
        """,
    )
    done = shop.run(python=("script.py",))
    assert (done.stdout, done.stderr) == ("380\n", "")
