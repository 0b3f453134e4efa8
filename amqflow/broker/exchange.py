"""An exchange: its properties and its bindings; the kind does the routing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.broker.exchanges import KINDS, Default

if TYPE_CHECKING:
    from amqflow.broker.bindings import Binding
    from amqflow.broker.exchanges import Kind
    from amqflow.broker.tables import Table


class Exchange:
    """One exchange of a virtual host; ``bindings`` are those that begin here."""

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Table,
    ) -> None:
        """Begin without bindings."""
        self.name = name
        self.type = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments
        self.bindings: dict[Binding, None] = {}
        self.kind: Kind = KINDS[kind]() if name else Default()
        self.policy: str | None = None
        #: The exchange that gets what no binding takes; a policy may name it.
        self.alternate = self.own_alternate

    @property
    def own_alternate(self) -> str | None:
        """The alternate exchange its arguments name."""
        field = self.arguments.get("alternate-exchange")
        return None if field is None else str(field.value)

    def bind(self, binding: Binding) -> bool:
        """Take a binding in; False where it was there.

        Raises:
            Refusal: its arguments mean nothing here.
        """
        if binding in self.bindings:
            return False
        self.kind.add(binding)
        self.bindings[binding] = None
        return True

    def unbind(self, binding: Binding) -> bool:
        """Let a binding go; False where it was not there."""
        if binding not in self.bindings:
            return False
        self.kind.remove(binding)
        del self.bindings[binding]
        return True
