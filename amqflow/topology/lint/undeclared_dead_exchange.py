"""AT107: a dead-letter exchange that the file does not declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level
from amqflow.topology.names import OWN_PREFIX
from amqflow.topology.positions import near

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look for names nobody declares, and for consumed queues' near misses of declared ones.

    For a consumed queue the exchange is derived, so a name of its own is fine.
    """
    declared = subject.declared
    known = declared.own.exchanges_by_name
    for queue in declared.queues:
        letter = queue.dead_letter
        if letter is None or not letter.exchange or letter.exchange.startswith(OWN_PREFIX):
            continue
        if declared.exchange_type(letter.exchange) is not None:
            continue
        hint = near(letter.exchange, known)
        path = ("queues", queue.name, "dead_letter", "exchange")
        if queue.name not in declared.consumed and letter.exchange not in (
            subject.topology.exchanges_by_name
        ):
            text = (
                f"no exchange {letter.exchange!r} here, and the broker drops dead letters for an "
                f"exchange that is not there{hint or '; declare it'}"
            )
            yield Hit(path, text)
        elif hint:
            yield Hit(path, f"{letter.exchange!r} is not declared, and is made{hint}")


ANALYZER = Analyzer("AT107", "dead-letter exchange not declared", Level.WARNING, check)
