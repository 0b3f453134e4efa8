"""The reader's side of the seam between handles and the application."""

from __future__ import annotations

import asyncio

from amqflow.errors import SyncInLoop


class HeldOutcomes:
    """The reader's side of the seam: outcomes by id, in memory."""

    def __init__(self, **outcomes):
        self.outcomes = outcomes
        self.reads = 0
        self.explained = []
        self.groups = {}
        self.revoked = []
        self.running = None

    def run(self, coroutine, *, twin):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(coroutine)
        coroutine.close()
        raise SyncInLoop(f"use {twin}")

    async def fetch_outcome(self, task_id):
        self.reads += 1
        return self.outcomes.get(task_id)

    async def fetch_outcomes(self, task_ids):
        self.reads += 1
        return [self.outcomes.get(task_id) for task_id in task_ids]

    async def save_group(self, group_id, members):
        self.groups[group_id] = members

    async def load_group(self, group_id):
        return self.groups.get(group_id)

    async def arevoke(self, ids, *, terminate=False):
        self.revoked.append((tuple(ids), terminate))

    def running_task(self):
        return self.running

    async def wait_outcome(self, task_id, timeout):
        self.reads += 1
        outcome = self.outcomes.get(task_id)
        if outcome is None or not outcome.terminal:
            raise TimeoutError
        return outcome

    async def forget_outcome(self, task_id):
        self.outcomes.pop(task_id, None)

    async def explain(self, task_id, queue):
        self.explained.append((task_id, queue))
        return "queue email: 12 ready, 0 consumers"

    def decode_result(self, task, value):
        return f"{task}:{value}" if task else value
