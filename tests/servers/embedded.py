"""The embedded broker where tests ask for a RabbitMQ: in a thread of this process."""

import asyncio
import re
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amqflow import broker as embedded
from tests.servers.rabbitmq import Broker

if TYPE_CHECKING:
    from concurrent.futures import Future

# Commands of rabbitmqctl that stand for something the embedded broker can do.
CLOSE_ALL = "close_all_connections"

# A memory watermark below this is an alarm.
LEAST_WATERMARK = 0.01


class EmbeddedBroker(Broker):
    """An embedded broker that may be stopped and started; durable things stay until `close`.

    Of `conf` it knows `max_message_size`.
    """

    private = True
    product = embedded.PRODUCT

    def __init__(self, conf: Mapping[str, str] | None = None) -> None:
        """Prepare a broker; `start` starts it."""
        super().__init__("", "")
        self.ctl_used = False
        limits = embedded.Limits()
        if size := (conf or {}).get("max_message_size"):
            limits = replace(limits, max_message_size=int(size))
        self._broker = embedded.Broker(management_port=0, limits=limits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.running = False

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if not self._thread.is_alive():
            self._thread.start()
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(timeout=30)

    def start(self) -> None:
        """Start it on the ports it had, if it had any."""
        if self.running:
            return
        self._run(self._broker.start())
        self.url = self._broker.url
        self.management_url = self._broker.management_url or ""
        self.running = True

    def stop(self) -> None:
        """Stop it in order; what is durable stays."""
        if self.running:
            self._run(self._broker.suspend())
            self.running = False

    def kill9(self) -> None:
        """Cut every connection without a word and stop; what is durable stays."""
        if self.running:
            self._run(self._broker.suspend(crash=True))
            self.running = False

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def settle(self) -> None:
        """Return at once: what was declared is there."""

    def ctl(self, *args: str, deadline: float = 90) -> str:
        """Do what a command of rabbitmqctl does, where it has a meaning here."""
        command, *rest = args
        if command == CLOSE_ALL:
            self._call(lambda: self._broker.faults.close_connections(rest[-1] if rest else ""))
        elif command == "stop_app":
            self.stop()
        elif command == "start_app":
            self.start()
        elif command == "set_vm_memory_high_watermark":
            self._alarm(float(rest[-1]) < LEAST_WATERMARK)
        elif command == "set_disk_free_limit":
            self._alarm(rest[-1].endswith("GB"))
        elif command == "eval":
            return self._eval(rest[0])
        else:
            raise RuntimeError(f"rabbitmqctl {command}: the embedded broker has nothing like it")
        return ""

    def _alarm(self, on: bool) -> None:
        faults = self._broker.faults
        self._call(faults.block if on else faults.unblock)

    def _eval(self, expression: str) -> str:
        """Set a limit that the tests change, as they do on RabbitMQ; other settings mean nothing."""
        if found := re.search(r"set_env\(rabbit, consumer_timeout, (\d+)\)", expression):
            seconds = int(found[1]) / 1000
            limits = replace(self._broker.limits, consumer_timeout=seconds)
            self._call(lambda: setattr(self._broker, "limits", limits))
        return "0.4" if "get_vm_memory_high_watermark" in expression else "ok"

    def _call(self, action: Any) -> None:
        async def call() -> None:
            action()

        self._run(call())

    def close(self) -> None:
        """End it and forget what it holds."""
        if not self._thread.is_alive():
            return
        self._run(self._broker.stop())
        self.running = False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()
