"""What a task sent from a task takes over: trace, marked headers, priority, deadline."""

from amqflow.abc import Call
from amqflow.settings import Settings
from amqflow.tasks import Request
from amqflow.tasks.inherit import inherit

SETTINGS = Settings(
    task_inherit_parent_priority=True,
    task_inherit_parent_expires=True,
    task_inherit_headers=("tenant",),
)


def request(**fields):
    return Request(id="parent", root_id="root", delivery_info={"priority": 7}, **fields)


def test_what_the_call_says_itself_stands():
    call = Call("t", priority=1, headers={"tenant": "own"}, expires=50.0, root_id="other")
    inherit(call, request(headers={"tenant": "acme"}, expires="2100-01-01T00:00:00Z"), SETTINGS)
    assert (call.priority, call.headers, call.expires) == (1, {"tenant": "own"}, 50.0)
    assert (call.root_id, call.parent_id) == ("other", "parent")


def test_by_default_only_the_trace_and_the_family_are_taken_over():
    call = Call("t")
    inherit(
        call,
        request(
            headers={"tenant": "acme"}, expires="2100-01-01T00:00:00Z", traceparent="00-1-2-01"
        ),
        Settings(),
    )
    assert (call.priority, call.expires) == (None, None)
    assert call.headers == {"traceparent": "00-1-2-01"}
    assert (call.root_id, call.parent_id) == ("root", "parent")


async def test_a_chain_of_calls_keeps_tenant_trace_and_deadline(bench):
    seen = {}

    @bench.app.task(name="child", bind=True)
    async def child(self):
        seen.update(
            tenant=self.request.headers["tenant"],
            trace=self.request.traceparent,
            expires=self.request.expires,
        )

    @bench.app.task(name="parent", bind=True)
    async def parent(self):
        seen["before"] = self.request.expires
        await (await child.adelay()).aget(timeout=20, disable_sync_subtasks=False)

    bench.app.conf.update(task_inherit_headers=["tenant"], task_inherit_parent_expires=True)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with bench.working():
        sent = await parent.aapply_async(
            headers={"tenant": "acme", "traceparent": trace}, expires=600
        )
        await sent.aget(timeout=60)
    assert seen["tenant"] == "acme"
    assert seen["trace"] == trace
    assert seen["before"] is not None
    assert seen["expires"] == seen["before"]
