"""Whether what a launch sends can be written at all: asked before anything of it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amqflow.errors import EncodeError
from amqflow.protocol import dumps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from amqflow.workflow.freeze import Step
    from amqflow.workflow.unfold import Launch


def check_written(launch: Launch, sent: int) -> None:
    """Refuse arguments that cannot be written, of what begins now and of what follows it.

    A message is written when it is sent, others of its composition with it: without this they
    would run, and what waits for all of them would wait in vain.

    Args:
        launch: What begins together.
        sent: How many messages of the same composition went out before it.

    Raises:
        EncodeError: The message names the task, which of those that begin it is, and the place.
    """
    later: list[Step] = []
    for number, call in enumerate(launch.calls, sent + 1):
        title = f"{call.task} (number {number} of what begins)"
        _check(title, call.args, call.kwargs)
        later += [*call.chain, *call.callbacks, *call.errbacks]
    for record in launch.records:
        spec = record.spec
        later += [*((spec.body,) if spec.body else ()), *spec.links, *spec.fate.errbacks]
    # Members share what follows them; each is looked at once.
    for step in _signatures({id(one): one for one in later}.values()):
        task = str(step.get("task"))
        _check(f"{task} (a later step)", step.get("args") or (), step.get("kwargs") or {})


def _check(title: str, args: Any, kwargs: Any) -> None:
    try:
        dumps([args, kwargs])
    except EncodeError as error:
        text = str(error)
        for name, value in (("args", args), ("kwargs", kwargs)):
            try:
                dumps(value, root=name)
            except EncodeError as placed:
                text = str(placed)
                break
        raise EncodeError(f"{title}: {text}") from error


def _signatures(steps: Iterable[Any]) -> Iterator[Step]:
    """Yield the signatures in nodes in dict form, which foreign clients may have made."""
    for step in steps:
        if not isinstance(step, Mapping):
            continue
        kwargs = step.get("kwargs") or {}
        match step.get("subtask_type"):
            case "chain" | "group":
                yield from _signatures(kwargs.get("tasks") or ())
            case "chord":
                header = kwargs.get("header") or ()
                yield from _signatures((header,) if isinstance(header, Mapping) else header)
                yield from _signatures((kwargs.get("body"),))
            case _:
                yield step
