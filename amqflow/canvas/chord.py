"""A chord: a body that runs with the list of results of its header, once all are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from amqflow.canvas.check import check_body
from amqflow.canvas.composition import Composition
from amqflow.canvas.group import Group
from amqflow.canvas.node import Node, signature_from
from amqflow.canvas.stamps import merged
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Self, Unpack

    from amqflow.abc import Dispatcher
    from amqflow.canvas.call import CallOptions
    from amqflow.canvas.signature import Signature
    from amqflow.handles import AsyncResult, GroupResult


class Chord(Composition[Any], kind=True):
    """A header that runs side by side, and a body that runs once with the list of its results.

    ``chord(header)(body)`` sends it; ``chord(header, body)`` keeps it as data, as in Celery.
    """

    __slots__ = ("body", "header")

    subtask_type: ClassVar[str | None] = "chord"

    #: What runs first.
    header: Group
    #: What runs then; None while it is still to be given.
    body: Node[Any] | None

    def __init__(
        self, header: Any, body: Any = None, *, app: Dispatcher | None = None, **options: Any
    ) -> None:
        """Put a header before a body.

        Args:
            header: A group; or signatures, as :class:`Group` takes them.
            body: A signature or composition; None: given when it is called.
            app: The application; None: the members'.
            **options: Execution options: ``link``, ``link_error`` and ``task_id`` are those of the
                whole, thus of the body's end; ``countdown`` and ``eta`` delay the header; the
                others hold for header and body.

        Raises:
            ConfigurationError: Header or body are no signatures.
            InvalidArguments: The body can never take the list of the header's results.
        """
        self._dispatcher = app
        self._options = merged({}, options)
        self.immutable = False
        if isinstance(header, Mapping):
            header = signature_from(header, app)
        self.header = header.clone() if isinstance(header, Group) else Group(header, app=app)
        self.body = None if body is None else signature_from(body, app).clone()
        self._check()

    @property
    def tasks(self) -> tuple[Node[Any], ...]:
        """The members of the header (Celery's name)."""
        return self.header.tasks

    def _nodes(self) -> Iterator[Node[Any]]:
        if self.body is not None:
            yield self.body
        yield self.header

    def _members(self) -> dict[str, Any]:
        return {"header": self.header, "body": self.body}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dispatcher: Dispatcher | None = None) -> Self:
        """Return the chord of Celery's dict form; its header is a group or a list of members."""
        (header, body), options = cls._read(data, "header", "body")
        if not isinstance(header, Mapping | Iterable) or isinstance(header, str):
            raise ConfigurationError("celery.chord: header must be a group or a list of signatures")
        made = cls(header, body, app=dispatcher, **options)
        made.immutable = bool(data.get("immutable", False))
        return made

    def __repr__(self) -> str:
        return f"chord({self.header!r}, {self.body!r})"

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return a copy with ``args`` put before those of each member of the header."""
        if self.immutable:
            args, kwargs = (), None
        made = self._copied(options)
        made.header = self.header.clone(args, kwargs)
        made.body = None if self.body is None else self.body.clone()
        return made

    def receivers(self) -> Iterator[Signature[Any]]:
        """Yield those of the header."""
        return iter(()) if self.immutable else self.header.receivers()

    def result_types(self) -> Iterator[tuple[str, Any]]:
        """Yield those of the body."""
        return iter(()) if self.body is None else self.body.result_types()

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        *,
        group_index: int | None = None,
    ) -> AsyncResult[Any] | GroupResult:
        """Give header and body the ids they will have; return the body's handle."""
        header = self.header.freeze()
        return self._freeze_end(self.required_body(), header, _id, group_id, group_index)

    def with_body(self, body: Any) -> Self:
        """Return a copy with another body."""
        made = self.clone()
        made.body = signature_from(body, self.dispatcher).clone()
        made._check()  # noqa: SLF001 - its own kind
        return made

    def _check(self) -> None:
        self._check_nesting()
        if self.body is not None and any(one.sender for one in self.body.receivers()):
            check_body(self.body, self.header.known_members())

    def followed_by(self, step: Node[Any]) -> Self:
        """Return a copy whose body goes on with a step; what was linked to this stays before it."""
        made = self.with_body(self._with_links_inside())
        if self._options.get("link_error"):
            made.header.link_error(self._options["link_error"])
        made.set(link=None, link_error=None)
        made.body = made.required_body() | step
        return made

    def _with_links_inside(self) -> Node[Any]:
        body = self.required_body().clone()
        for option, link in (("link", body.link), ("link_error", body.link_error)):
            if self._options.get(option):
                link(self._options[option])
        return body

    def required_body(self) -> Node[Any]:
        """Return the body.

        Raises:
            ConfigurationError: There is none yet.
        """
        if self.body is None:
            raise ConfigurationError("this chord has no body: chord(header)(body)")
        return self.body

    # -- running ----------------------------------------------------------------------------

    def __call__(self, body: Any = None, **kwargs: Any) -> Any:
        """Send, with this body where one is given: ``chord(header)(body)``."""
        return (self if body is None else self.with_body(body)).apply_async((), kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Send; ``args`` and ``kwargs`` are for the members of the header.

        A ``body`` among ``kwargs`` is taken as the body, as in Celery.
        """
        named = dict(kwargs or {})
        body = named.pop("body", None)
        chord = self if body is None else self.with_body(body)
        chord.required_body()
        return super(Chord, chord).apply_async(args, named, **options)

    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Async twin of :meth:`apply_async`."""
        named = dict(kwargs or {})
        body = named.pop("body", None)
        chord = self if body is None else self.with_body(body)
        chord.required_body()
        return await super(Chord, chord).aapply_async(args, named, **options)


def ends_in_group(node: Node[Any] | None) -> bool:
    """Return whether a node's last to run is a group, whose join is its result."""
    if isinstance(node, Group):
        return True
    if isinstance(node, Chord):
        return ends_in_group(node.body)
    steps: Sequence[Node[Any]] = getattr(node, "tasks", ())
    return bool(steps) and ends_in_group(steps[-1])
