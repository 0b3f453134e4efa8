"""Exchanges, keys, priorities and dead letters declared in YAML; tasks routed by it."""

from amqflow import AmqFlow

app = AmqFlow(
    "declared",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    topology="shop.yaml",
)


def way_of(task) -> str:
    info = task.request.delivery_info
    return f"{info['exchange']} / {info['routing_key']} -> {info['queue']}"


@app.task(bind=True, name="shop.send_receipt")
def send_receipt(self, to: str) -> str:
    return way_of(self)


@app.task(bind=True, name="shop.place_order")
def place_order(self, number: int) -> str:
    return way_of(self)


if __name__ == "__main__":
    print("send_receipt:", send_receipt.delay("a@b.c").get(timeout=10))
    print("place_order: ", place_order.delay(7).get(timeout=10))
