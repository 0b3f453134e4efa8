"""AT121: an exchange nothing is bound to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look for exchanges of the file without a binding from them and without an alternate."""
    sources = subject.topology.bindings_by_source
    for exchange in subject.declared.exchanges:
        if exchange.name not in sources and "alternate-exchange" not in exchange.arguments:
            text = (
                f"nothing is bound to {exchange.name!r}: what is published there is returned or "
                "dropped; bind a queue to it, or leave it out"
            )
            yield Hit(("exchanges", exchange.name), text)


ANALYZER = Analyzer("AT121", "exchange that leads nowhere", Level.WARNING, check)
