"""What a Redis is set up to lose: told by ``amqflow doctor``, and by a worker at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What the URL of a Redis begins with.
REDIS: Final = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True)
class Weakness:
    """One way in which a Redis forgets what it was told.

    Args:
        text: A sentence for people.
        mend: The command that mends it.
        loses_now: It does so already, not only after a crash or when it is full.
    """

    text: str
    mend: str
    loses_now: bool = False


def read_info(text: bytes) -> dict[str, str]:
    """Read the lines ``name:value`` of Redis' INFO."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def durability(about: Mapping[str, str]) -> Weakness | None:
    """Return what a crash of the Redis of this INFO would lose; None: nothing."""
    if about.get("aof_enabled") != "1":
        return Weakness(
            "Redis keeps no append-only file: a crash forgets results and chord counts",
            "redis-cli CONFIG SET appendonly yes; redis-cli CONFIG REWRITE",
        )
    if about.get("aof_last_write_status", "ok") != "ok":
        return Weakness(
            "Redis could not write its append-only file",
            "make room on its disk, then redis-cli BGREWRITEAOF",
            loses_now=True,
        )
    return None


def eviction(about: Mapping[str, str]) -> Weakness | None:
    """Return what the Redis of this INFO drops when it is full; None: nothing."""
    policy = about.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return None
    bounded = about.get("maxmemory", "0") != "0"
    now = "drops keys when it is full" if bounded else "would drop keys once maxmemory is set"
    return Weakness(
        f"maxmemory-policy is {policy}: Redis {now}, results and chord counts among them",
        "redis-cli CONFIG SET maxmemory-policy noeviction; redis-cli CONFIG REWRITE",
    )
