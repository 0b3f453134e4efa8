"""Chains, groups and chords: data that is composed, checked, drawn, and then sent."""

from amqflow import AmqFlow, InvalidArguments, chain, chord, group

app = AmqFlow(
    "workflows",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    task_default_queue="workflows",
)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def fail(number: int) -> int:
    raise ValueError(f"{number} is not welcome")


if __name__ == "__main__":
    print("chain:", chain(add.s(1, 2), add.s(3))().get(timeout=10))
    print("group:", group(add.s(i, i) for i in range(5))().get(timeout=10))
    print("chord:", chord(group(add.s(i, i) for i in range(5)))(total.s()).get(timeout=10))
    try:
        chord(group(add.s(i, i) for i in range(5)))(add.s(10))
    except InvalidArguments:
        print("refused: add takes an int, and a chord's body gets a list")
    broken = chord([add.s(1, 1), fail.s(7)])(total.s())
    try:
        broken.get(timeout=10)
    except ValueError as error:
        print("failed:", error)
