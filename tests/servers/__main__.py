"""`python -m tests.servers run -- CMD…`: run a command beside a private RabbitMQ and Redis."""

import os
import signal
import subprocess
import sys

from tests.servers import resolver
from tests.servers.process import ServerUnavailableError

USAGE = "usage: python -m tests.servers run -- COMMAND [ARGUMENT…]"


def main(argv: list[str]) -> int:
    """Start the servers, run the command with AMQFLOW_BROKER and AMQFLOW_BACKEND set, stop them."""
    if argv[:2] != ["run", "--"] or len(argv) < 3:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        broker = resolver.shared_rabbitmq()
        store = resolver.shared_redis()
    except ServerUnavailableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        environment = os.environ | {
            "AMQFLOW_BROKER": broker.url,
            "AMQFLOW_MANAGEMENT_URL": broker.management_url,
            "AMQFLOW_BACKEND": store.db_url(0),
        }
        return _run(argv[2:], environment)
    finally:
        broker.close()
        store.close()


def _run(command: list[str], environment: dict[str, str]) -> int:
    with subprocess.Popen(command, env=environment) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The terminal sent it to the command too: let it end in its own way.
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
