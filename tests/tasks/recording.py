"""An application that notes its calls instead of sending them: the tasks' side of the seam."""

from __future__ import annotations

import asyncio
import uuid

from amqflow.abc import Sent
from amqflow.errors import SyncInLoop
from amqflow.settings import Configuration
from amqflow.tasks import TaskDecorator, TaskRegistry


class RecordingApp(TaskDecorator):
    """Implements ``tasks.TaskApp``; ``sent`` holds the calls in order."""

    def __init__(self, main="shop", **settings):
        self.main = main
        self.tasks = TaskRegistry()
        self.conf = Configuration(settings, environ={})
        self.sent = []

    def run(self, coroutine, *, twin):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(coroutine)
        coroutine.close()
        raise SyncInLoop(f"use {twin}")

    async def send_call(self, call):
        self.sent.append(call)
        return Sent(call.task_id or str(uuid.uuid4()), call.task, call.queue)

    def decode_result(self, task, value):
        return self.tasks[task].decode_result(value) if task in self.tasks else value
