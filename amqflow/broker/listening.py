"""Opening a port: one number for every address a name has, and the address others reach it by."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

#: How often another free port is tried where one is taken on the name's other address.
_ATTEMPTS: Final = 10

#: Addresses to listen on everywhere, and where this machine reaches what does.
_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - never bound here


async def listen(
    create: Callable[[int], Awaitable[asyncio.Server]], port: int
) -> tuple[asyncio.Server, int]:
    """Return a listening server and its port.

    Port 0 is a free one, and the same on every address of the host: ``localhost`` is two, for
    each of which the system would choose another.

    Args:
        create: opens a server on a port of the host.
        port: 0: any.

    Raises:
        OSError: the port is taken, or no free one was found.
    """
    for _ in range(_ATTEMPTS):
        server = await create(port)
        ports = {socket.getsockname()[1] for socket in server.sockets}
        chosen = int(min(ports))
        if len(ports) == 1:
            return server, chosen
        server.close()
        await server.wait_closed()
        try:
            return await create(chosen), chosen
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    message = "no port is free on all addresses of the host"
    raise OSError(errno.EADDRINUSE, message)


def reachable(host: str) -> str:
    """Return the host that URLs name: a wildcard is no address to connect to."""
    return _WILDCARDS.get(host, host)
