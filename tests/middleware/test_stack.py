"""The stack: order, flags, errors, and how short a middleware of one's own is."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from amqflow.abc import FAILURE, SUCCESS, Outcome
from amqflow.errors import ConfigurationError, Reject
from amqflow.middleware import Middleware, Stack


class Noted(Middleware):
    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def before_publish(self, message):
        self.notes.append(f"{self.name} before_publish")

    def after_publish(self, message):
        self.notes.append(f"{self.name} after_publish")

    def before_execute(self, request):
        self.notes.append(f"{self.name} before_execute")

    def after_execute(self, request, result, error):
        self.notes.append(f"{self.name} after_execute")


class TenantOnly(Middleware):
    """A user's own, in ten lines: one decision."""

    def __init__(self, tenant):
        self.tenant = tenant

    def before_publish(self, message):
        message.extra["tenant"] = self.tenant

    def before_execute(self, request):
        if request.headers.get("tenant") != self.tenant:
            raise Reject("another tenant's task")


def test_before_hooks_run_in_order_and_after_hooks_in_reverse():
    notes = []
    stack = Stack([Noted("a", notes), Noted("b", notes)])
    stack.before_publish(None)
    stack.after_publish(None)
    stack.before_execute(None)
    stack.after_execute(None, 1, None)
    assert notes == [
        "a before_publish", "b before_publish", "b after_publish", "a after_publish",
        "a before_execute", "b before_execute", "b after_execute", "a after_execute",
    ]  # fmt: skip


def test_an_empty_stack_says_that_nothing_needs_calling():
    stack = Stack()
    assert not any([stack, stack.publishes, stack.receives, stack.executes, stack.settles])
    assert len(stack) == 0


def test_the_flags_tell_which_hooks_exist():
    class Receiving(Middleware):
        def after_receive(self, message): ...

    class Settling(Middleware):
        def before_settle(self, message, outcome):
            return outcome

    class Inheriting(Settling): ...

    members = [Noted("", []), Receiving(), Inheriting(), Middleware()]
    flags = [
        (stack.publishes, stack.receives, stack.executes, stack.settles)
        for stack in (Stack([member]) for member in members)
    ]
    assert flags == [
        (True, False, True, False),
        (False, True, False, False),
        (False, False, False, True),
        (False, False, False, False),
    ]


def test_a_middleware_of_ones_own():
    stack = Stack([TenantOnly("acme")])
    message = SimpleNamespace(extra={})
    stack.before_publish(message)
    assert message.extra == {"tenant": "acme"}
    stack.before_execute(SimpleNamespace(headers=message.extra))
    with pytest.raises(Reject, match="another tenant"):
        stack.before_execute(SimpleNamespace(headers={}))


def test_an_outcome_can_be_replaced_and_each_sees_the_one_before():
    class Forgiving(Middleware):
        def before_settle(self, message, outcome):
            return Outcome(outcome.id, SUCCESS, result=message)

    class Broken(Middleware):
        def before_settle(self, message, outcome):
            raise RuntimeError("broken")

        def after_settle(self, message, outcome):
            raise RuntimeError("broken")

    stack = Stack([Broken(), Forgiving(), Broken()])
    assert stack.before_settle("m", Outcome("1", FAILURE)) == Outcome("1", SUCCESS, result="m")
    stack.after_settle("m", Outcome("1", SUCCESS))


def test_errors_after_the_fact_are_logged_and_the_rest_still_runs(caplog):
    notes = []

    class Broken(Middleware):
        def after_publish(self, message):
            raise RuntimeError("broken hook")

        def before_publish(self, message):
            raise ValueError("refused")

    stack = Stack([Noted("a", notes), Broken()])
    with caplog.at_level(logging.ERROR):
        stack.after_publish(None)
    assert notes == ["a after_publish"]
    assert "broken hook" in caplog.text
    with pytest.raises(ValueError, match="refused"):
        stack.before_publish(None)


def test_only_middleware_instances_are_taken():
    with pytest.raises(ConfigurationError, match=r"write Noted\(\)"):
        Stack([Noted])
    with pytest.raises(ConfigurationError, match="not a middleware: 5"):
        Stack([5])


def test_a_stack_grows_into_a_new_one():
    first = Stack([Noted("a", [])])
    assert [one.name for one in first.with_member(Noted("b", []))] == ["a", "b"]
    assert len(first) == 1
