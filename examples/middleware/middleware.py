"""A middleware in ten lines: every task knows which tenant it works for, without being told."""

from contextvars import ContextVar

from amqflow import AmqFlow, Ignore, Middleware

tenant = ContextVar("tenant", default="nobody")


class Tenants(Middleware):
    """Sends the caller's tenant along, and sets it where the task runs."""

    def before_publish(self, message):
        message.extra.setdefault("tenant", tenant.get())

    def before_execute(self, request):
        tenant.set(request.headers["tenant"])
        if tenant.get() == "suspended":
            raise Ignore


app = AmqFlow("tenants", middleware=[Tenants()])


@app.task(queue="tenants")
def invoice(number: int) -> str:
    return f"invoice {number} of {tenant.get()}"


@app.task(queue="tenants")
def month() -> list:
    # A task sent from a task is for the same tenant: before_publish runs here, too.
    return [invoice.delay(number).id for number in (1, 2)]


if __name__ == "__main__":
    with app:
        for name in ("acme", "beta"):
            tenant.set(name)
            print(invoice.delay(7).get(timeout=10))
        for sent in month.delay().get(timeout=10):
            print(app.AsyncResult(sent).get(timeout=10))
