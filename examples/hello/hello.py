"""Two tasks, called from plain code and from a coroutine."""

import asyncio

from amqflow import AmqFlow, InvalidArguments

app = AmqFlow(
    "hello",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    task_default_queue="hello",
)


@app.task  # a function runs in a thread of the worker
def add(x: int, y: int) -> int:
    return x + y


@app.task  # a coroutine runs in the worker's event loop
async def shout(words: str) -> str:
    await asyncio.sleep(0.1)
    return words.upper()


async def several() -> list[str]:
    """Call three at once; inside a loop every blocking verb has an ``a`` twin."""
    sent = [await shout.adelay(word) for word in ("nothing", "is", "lost")]
    try:
        return [await result.aget(timeout=10) for result in sent]
    finally:
        await app.aclose()


if __name__ == "__main__":
    result = add.delay(2, 3)  # returns when the broker has confirmed the message
    print("add.delay(2, 3).get() is", result.get(timeout=10))
    print("its state is", result.state)
    try:
        add.delay("two", 3)
    except InvalidArguments as error:
        print("not sent:", error)
    print("awaited:", " ".join(asyncio.run(several())))
