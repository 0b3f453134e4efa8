"""Says at a worker's start what its Redis is set up to lose, in the doctor's words."""

from __future__ import annotations

from amqflow.errors import StoreError
from amqflow.logs import get_logger
from amqflow.stores.durability import REDIS, durability, eviction, read_info

log = get_logger("amqflow.worker")


async def warn_of_forgetting(backend: str | None) -> None:
    """Ask a result backend that is Redis how it is set up, and warn once of what it may lose.

    Only INFO is asked, which managed ones answer too; one that does not is not warned of.
    """
    if not backend or not backend.startswith(REDIS):
        return
    from amqflow.stores.redis import RedisClient  # noqa: PLC0415 - an extra

    client = RedisClient(backend)
    try:
        about = read_info(await client.command("INFO"))
    except StoreError as error:
        log.debug("Redis does not say how it is set up", error=str(error))
        return
    finally:
        await client.close()
    found = [one for one in (durability(about), eviction(about)) if one is not None]
    if found:
        log.warning("; ".join(one.text for one in found), mend="; ".join(one.mend for one in found))
