"""Freezing: gives every node of a composition its id, and every option its place. Pure.

It works on Celery's dict form, as it travels in messages and records: what was frozen once is
frozen for good, and freezing it again changes nothing. Members of a group get ids derived from
the group's, so that nobody has to keep ten thousand of them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from amqflow.canvas.call import link_dicts
from amqflow.canvas.node import read_fields
from amqflow.canvas.stamps import merged, stamp_options
from amqflow.errors import ConfigurationError
from amqflow.protocol.ids import derived_id, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: A node in Celery's dict form.
Step: TypeAlias = "Mapping[str, Any]"
#: Makes the ids that nobody has chosen, by kind of node: ``"task"``, ``"group"``.
Ids: TypeAlias = "Callable[[str], str]"

#: Options that say where a node's result goes; they go to the task that gives it.
_RESULT: Final = ("task_id", "group_id", "group_index", "replaced_task_nesting")
_LINKS: Final = frozenset({"link", "link_error"})
_OWN: Final = frozenset({*_RESULT, *_LINKS, "root_id", "parent_id", "chain"})
#: Options that delay what runs first; the body of a chord runs when its header has.
_DELAYS: Final = frozenset({"countdown", "eta"})


def fresh_ids(_kind: str) -> str:
    """Return a random id: for a composition that is sent by its caller."""
    return new_id()


class DerivedIds:
    """Ids that a rerun makes again (``uuid5``): for what is sent while a task is settled."""

    def __init__(self, parent_id: str, purpose: str) -> None:
        """Derive from a parent's id; ``purpose`` keeps apart what else follows from it."""
        self._parent = parent_id
        self._purpose = purpose
        self._made: Counter[str] = Counter()

    def __call__(self, kind: str) -> str:
        """Return the next id of a kind."""
        ordinal = self._made[kind]
        self._made[kind] += 1
        return derived_id(self._parent, f"{self._purpose}.{kind}", ordinal)


def kind_of(step: Step) -> str | None:
    """Return the kind of composition, None for a plain signature.

    Raises:
        ConfigurationError: It is none that is known here.
    """
    kind = step.get("subtask_type")
    if kind in _FREEZERS or kind is None:
        return kind
    raise ConfigurationError(f"{step.get('task')}: a {kind!r:.50} is no composition known here")


def freeze(
    step: Step,
    ids: Ids,
    *,
    result: Mapping[str, Any] | None = None,
    common: Mapping[str, Any] | None = None,
    links: Sequence[Step] = (),
    errbacks: Sequence[Step] = (),
    immutable: bool = False,
) -> dict[str, Any]:
    """Return a node with an id on every task and group in it.

    Args:
        step: Its dict form; left as it is.
        ids: Makes ids where none was chosen.
        result: Options for the task that gives its result: ``task_id``, ``group_id``…
        common: Options of what surrounds it, over its own.
        links: Run after it has succeeded.
        errbacks: Run after it has failed.
        immutable: It ignores what is passed to it.

    Raises:
        ConfigurationError: Something in it is no signature.
    """
    task, args, kwargs, options = read_fields(step)
    options = merged(options, common or {})
    options.update({key: value for key, value in (result or {}).items() if value is not None})
    made = {
        "task": task,
        "args": list(args),
        "kwargs": kwargs,
        "options": options,
        "subtask_type": step.get("subtask_type"),
        "immutable": immutable or bool(step.get("immutable", False)),
    }
    if links:
        options["link"] = _joined(options.get("link"), links)
    if errbacks:
        options["link_error"] = _joined(options.get("link_error"), errbacks)
    kind = kind_of(step)
    if kind is None:
        if not options.get("task_id"):
            options["task_id"] = ids("task")
        return made
    _FREEZERS[kind](made, ids)
    return made


def _chain(made: dict[str, Any], ids: Ids) -> None:
    """Put a chain's links at its last step, errbacks and stamps at each, the rest at the first."""
    options = made["options"]
    steps = _nodes(made, "tasks")
    if not steps:
        raise ConfigurationError("a chain needs at least one step")
    last = len(steps) - 1
    tasks: list[dict[str, Any]] = []
    for place, one in enumerate(steps):
        frozen = freeze(
            one,
            ids,
            result=_chosen(options) if place == last else None,
            common=_passed_on(options) if place == 0 else stamp_options(options),
            links=_list(options, "link") if place == last else (),
            errbacks=_list(options, "link_error"),
            immutable=made["immutable"] and place == 0,
        )
        tasks += frozen["kwargs"]["tasks"] if kind_of(frozen) == "chain" else [frozen]
    made["kwargs"], made["options"], made["immutable"] = {"tasks": tasks}, {}, False


def _group(made: dict[str, Any], ids: Ids) -> None:
    options = made["options"]
    group_id = options.get("task_id") or ids("group")
    members = frozen_members(
        _nodes(made, "tasks"), group_id, ids, _passed_on(options), immutable=made["immutable"]
    )
    made["kwargs"] = {"tasks": list(members)}
    made["options"] = {
        "task_id": group_id,
        **{key: options[key] for key in _LINKS & options.keys()},
    }
    if nesting := options.get("replaced_task_nesting"):
        made["options"]["replaced_task_nesting"] = nesting
    made["immutable"] = False


def freeze_lazily(
    step: Step, members: Iterable[Step], ids: Ids
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return a group, or a chord over one, frozen without members, and these as they are drawn.

    Args:
        step: Its dict form with an empty group.
        members: The dict forms of the group's members.
        ids: Makes ids where none was chosen.
    """
    frozen = freeze(step, ids)
    if kind_of(step) == "chord":
        common, own = _passed_on(step["options"]), as_group(step["kwargs"]["header"])
        group_id = frozen["kwargs"]["header"]["options"]["task_id"]
        immutable = bool(step.get("immutable")) or bool(own.get("immutable"))
    else:
        common, own, group_id = {}, step, frozen["options"]["task_id"]
        immutable = bool(step.get("immutable"))
    common = merged(_passed_on(own["options"]), common)
    return frozen, frozen_members(members, group_id, ids, common, immutable=immutable)


def frozen_members(
    members: Iterable[Step],
    group_id: str,
    ids: Ids,
    common: Mapping[str, Any],
    *,
    immutable: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the members of a group frozen, one by one as they are drawn.

    Args:
        members: Their dict forms.
        group_id: The group's id, which theirs are derived from where they chose none.
        ids: For the steps before a member's last.
        common: The group's options for each of them.
        immutable: They ignore what is passed to the group.
    """
    for index, member in enumerate(members):
        place = {
            "task_id": chosen_id(member) or derived_id(group_id, "member", index),
            "group_id": group_id,
            "group_index": index,
        }
        yield freeze(member, ids, result=place, common=common, immutable=immutable)


def _chord(made: dict[str, Any], ids: Ids) -> None:
    """Put a chord's links and result at its body, what delays at its header, the rest at both."""
    options, kwargs = made["options"], made["kwargs"]
    header, body = kwargs.get("header"), kwargs.get("body")
    if body is None:
        raise ConfigurationError("this chord has no body: chord(header)(body)")
    common = _passed_on(options)
    frozen_header = freeze(as_group(header), ids, common=common, immutable=made["immutable"])
    frozen_body = freeze(
        body,
        ids,
        result=_chosen(options),
        common={key: value for key, value in common.items() if key not in _DELAYS},
        links=_list(options, "link"),
        errbacks=_list(options, "link_error"),
    )
    made["kwargs"] = {"header": frozen_header, "body": frozen_body}
    made["options"], made["immutable"] = {}, False


_FREEZERS: Final = {"chain": _chain, "group": _group, "chord": _chord}


# -- reading frozen nodes --------------------------------------------------------------------


def as_group(header: Any) -> Step:
    """Return a chord's header as a group: Celery's clients send a list as well."""
    if isinstance(header, list | tuple):
        return {"task": "celery.group", "kwargs": {"tasks": header}, "subtask_type": "group"}
    if not hasattr(header, "get") or header.get("subtask_type") != "group":
        raise ConfigurationError("celery.chord: header must be a group or a list of signatures")
    found: Step = header
    return found


def chosen_id(step: Step) -> str | None:
    """Return the id its caller chose for a node's result, before it is frozen."""
    options = step.get("options") or {}
    own: str | None = options.get("task_id")
    if own:
        return own
    kwargs = step.get("kwargs") or {}
    match step.get("subtask_type"):
        case "chain":
            steps = kwargs.get("tasks")
            return chosen_id(steps[-1]) if steps else None
        case "chord":
            body = kwargs.get("body")
            return None if body is None else chosen_id(body)
        case _:
            return None


def result_id(frozen: Step) -> str:
    """Return the id by which a frozen node's result is known."""
    found = chosen_id(frozen)
    assert found is not None, "a frozen node has an id"
    return found


def first_id(frozen: Step) -> str:
    """Return the id of the first task of a frozen node: the root of what follows."""
    kwargs = frozen["kwargs"]
    match frozen["subtask_type"]:
        case "chain":
            return first_id(kwargs["tasks"][0])
        case "group":
            members = kwargs["tasks"]
            return first_id(members[0]) if members else result_id(frozen)
        case "chord":
            members = kwargs["header"]["kwargs"]["tasks"]
            return first_id(members[0] if members else kwargs["body"])
        case _:
            return result_id(frozen)


def ids_of(frozen: Step) -> Iterator[tuple[str, int, str]]:
    """Yield id, nesting (of ``self.replace``) and task of all in a node, its result first.

    A group's task is an empty text.
    """
    kwargs, options = frozen["kwargs"], frozen["options"]
    match frozen["subtask_type"]:
        case "chain":
            for step in reversed(kwargs["tasks"]):
                yield from ids_of(step)
        case "group":
            yield options["task_id"], options.get("replaced_task_nesting") or 0, ""
            for member in kwargs["tasks"]:
                yield from ids_of(member)
        case "chord":
            yield from ids_of(kwargs["body"])
            yield from ids_of(kwargs["header"])
        case _:
            nesting = options.get("replaced_task_nesting") or 0
            yield options["task_id"], nesting, frozen["task"]


def errbacks_of(frozen: Step) -> list[Step]:
    """Return the errbacks that a node's first task to run would call: they speak for all of it."""
    match frozen["subtask_type"]:
        case "chain":
            return errbacks_of(frozen["kwargs"]["tasks"][0])
        case "chord":
            return errbacks_of(frozen["kwargs"]["body"])
        case _:
            return list(_list(frozen["options"], "link_error"))


def steps_of(frozen: Step) -> list[dict[str, Any]]:
    """Return a frozen node as the steps of a chain."""
    if frozen["subtask_type"] == "chain":
        return list(frozen["kwargs"]["tasks"])
    return [dict(frozen)]


def chain_of(steps: Sequence[Step]) -> Step:
    """Return frozen steps as one node."""
    if len(steps) == 1:
        return steps[0]
    return {
        "task": "celery.chain",
        "args": [],
        "kwargs": {"tasks": list(steps)},
        "options": {},
        "subtask_type": "chain",
        "immutable": False,
    }


def _nodes(made: Mapping[str, Any], name: str) -> Sequence[Step]:
    found = made["kwargs"].get(name)
    if not isinstance(found, list | tuple):
        raise ConfigurationError(f"{made['task']}: {name} must be a list of signatures")
    return found


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options.get(key) for key in _RESULT}


def _passed_on(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _OWN}


def _list(options: Mapping[str, Any], name: str) -> Sequence[Step]:
    value = options.get(name)
    return link_dicts(value) if value else ()


def _joined(known: Any, more: Sequence[Step]) -> list[Step]:
    found = list(link_dicts(known)) if known else []
    return [*found, *(one for one in more if one not in found)]
