"""A broker for a public client's test suite: `serve.py embedded|rabbitmq CERTS`.

Prints a line of JSON with its ports, then does what it reads, a word a line, each answered by `ok`:
`kill`, `start`, `stop_app`, `start_app`. It ends with its standard input. CERTS is a folder with
`server.pem` and `server.key`; AMQP over TLS is ended here, so that both brokers have the same.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.servers.embedded import EmbeddedBroker
from tests.servers.rabbitmq import RabbitMQ, server_properties
from tests.servers.wait import until

# What the suites' own broker image is configured to.
CONF = {"max_message_size": "134217728"}


async def main(kind: str, certificates: Path) -> None:
    """Run the broker until standard input ends."""
    broker = EmbeddedBroker() if kind == "embedded" else RabbitMQ(conf=CONF)
    await asyncio.to_thread(broker.start)
    port = int(broker.url.rsplit(":", 1)[1].strip("/"))
    server = await tls(port, certificates)
    secure = server.sockets[0].getsockname()[1]
    print(json.dumps({"5672/tcp": port, "5671/tcp": secure}), flush=True)
    verbs = {
        "kill": broker.kill9,
        "start": broker.start,
        "stop_app": lambda: broker.ctl("stop_app"),
        "start_app": lambda: broker.ctl("start_app"),
    }
    try:
        while verb := (await asyncio.to_thread(sys.stdin.readline)).strip():
            await asyncio.to_thread(verbs[verb])
            if verb.startswith("start"):
                await until(lambda: answers(broker.url), deadline=60)
            print("ok", flush=True)
    finally:
        broker.close()


def answers(url: str) -> bool:
    """Say whether the broker takes connections."""
    try:
        return bool(server_properties(url))
    except (OSError, ValueError, AssertionError):
        return False


async def tls(port: int, certificates: Path) -> asyncio.Server:
    """Listen for TLS on a port of loopback and pass on what is inside to `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
