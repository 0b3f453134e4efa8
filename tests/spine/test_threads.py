"""The pool of threads: every submitted job gets a thread while there is room for one."""

import asyncio
import queue
import threading
from dataclasses import replace

from amqflow.worker.pools.seam import Hooks
from amqflow.worker.pools.threads import ThreadPool


class Slow(queue.SimpleQueue):
    """A thread that has taken its job is held up before it does anything else."""

    def __init__(self):
        super().__init__()
        self.taken = threading.Semaphore(0)
        self.go_on = threading.Event()

    def get(self):
        item = super().get()
        self.taken.release()
        self.go_on.wait(10)
        return item


class Pool(ThreadPool):
    """Its jobs are over as soon as a thread has them."""

    def _run(self, runner, job):
        self._finished.append((job, None, None))
        return True


async def test_a_thread_that_has_just_taken_a_job_is_not_free_for_the_next():
    ended = asyncio.Event()
    done = []

    def on_done(finished, _freed):
        done.extend(finished)
        if len(done) == 2:
            ended.set()

    hooks = Hooks(**dict.fromkeys(Hooks.__slots__, lambda *_: None))
    pool = Pool(replace(hooks, ended=on_done), 2, close_loop=asyncio.sleep)
    pool._inbox = inbox = Slow()
    pool.submit(object())
    assert await asyncio.to_thread(inbox.taken.acquire, timeout=10)
    pool.submit(object())
    assert await asyncio.to_thread(inbox.taken.acquire, timeout=10), "nobody takes the second job"
    inbox.go_on.set()
    async with asyncio.timeout(10):
        await ended.wait()
    await pool.close()
