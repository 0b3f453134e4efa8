"""Where the brokers differ in what a client can see: the suite asks here instead of asking who.

docs/embedded-broker.md shows this table; `python -m tests.broker.differences` prints it.
"""

BROKERS = ("RabbitMQ 3.10", "RabbitMQ 4.0", "embedded")

LAST_DEATH = {"x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"}

# Behaviour: what each of BROKERS does.
TABLE: dict[str, tuple[object, object, object]] = {
    "the protocol it would rather speak": (
        b"AMQP\x00\x00\x09\x01",
        b"AMQP\x03\x01\x00\x00",  # AMQP 1.0 with SASL
        b"AMQP\x00\x00\x09\x01",
    ),
    "a mistake before the connection is open": ("hangs up", "hangs up", "says why"),
    "a method of an unknown class": (
        "hangs up",
        "hangs up",
        ("connection", 503, "COMMAND_INVALID - unknown method 61.10", None),
    ),
    "an unknown method of a known class": (
        "hangs up",
        "hangs up",
        ("connection", 503, "COMMAND_INVALID - unknown method 60.199", None),
    ),
    "an unknown method on channel 0": (
        "hangs up",
        "hangs up",
        ("connection", 503, "COMMAND_INVALID - unknown method 10.199", None),
    ),
    "a table that is none": (
        "hangs up",
        "hangs up",
        (
            "connection",
            501,
            "FRAME_ERROR - cannot decode <<0,0,1,113,0,0,0,0,5,3,97,98,99,255>>",
            "Queue.Declare",
        ),
    ),
    "properties that are not what their flags say": (
        ("connection", 541, "INTERNAL_ERROR", None),
        ("connection", 541, "INTERNAL_ERROR", None),
        ("connection", 541, "INTERNAL_ERROR", None),
    ),
    "a body longer than announced": (
        "nothing",
        "nothing",
        (
            "connection",
            501,
            "FRAME_ERROR - content body frame exceeds remaining content size",
            "Basic.Publish",
        ),
    ),
    "an unknown exchange type": (
        ("connection", 503, "COMMAND_INVALID"),
        ("channel", 406, "PRECONDITION_FAILED"),
        ("connection", 503, "COMMAND_INVALID"),
    ),
    "headers exchange: 1 matches 1.0": (True, False, True),
    "headers exchange: a timestamp matches itself": (True, False, True),
    "a delivery mode other than 1 and 2 is kept": (False, True, False),
    # Without a delivery limit, which 4.0 always has, 3.10 puts returns to the queue's end.
    "quorum queue: 1, then 0 return to 2": ([2, 1, 0], [1, 0, 2], [2, 1, 0]),
    "quorum queue: x-delivery-count of a first delivery": (0, None, 0),
    "quorum queue: x-delivery-count of 7 sent by a client, then 1 return": (
        [0, 1],
        [7, 1],
        [0, 1],
    ),
    "quorum queue without a limit: returns, 25 tried": (25, 21, 25),
    "quorum queue with limit -1: returns, 25 tried": (1, 25, 1),
    # 4.0 knows two levels, 0-4 and 5-255.
    "quorum queue: order of priorities 1, 9, 1, 9": (
        ["0:1", "1:9", "2:1", "3:9"],
        ["1:9", "3:9", "0:1", "2:1"],
        ["0:1", "1:9", "2:1", "3:9"],
    ),
    "headers of the last death": (set(), LAST_DEATH, set()),
    "a letter with a given key keeps its CC header": (False, True, False),
    "letters follow BCC": (True, True, True),
    "x-death after: one expired, two, one, two, one rejected": (
        ["one rejected", "one expired", "two rejected"],
        ["one rejected", "two rejected", "one expired"],
        ["one rejected", "one expired", "two rejected"],
    ),
    # 4.0 does not believe what clients tell in x-death.
    "x-death count after 4 rejections of a message its client publishes again": (4, 1, 4),
    # Received and current, as the text goes on.
    "406 text: a queue without a type declared again as quorum": (
        ("the value 'quorum' of type 'longstr'", "none"),
        ("'quorum'", "'classic'"),
        ("the value 'quorum' of type 'longstr'", "none"),
    ),
    "406 text: a quorum queue declared again without a type": (
        ("none", "the value 'quorum' of type 'longstr'"),
        ("'classic'", "'quorum'"),
        ("none", "the value 'quorum' of type 'longstr'"),
    ),
}


def of(broker: str, behaviour: str) -> object:
    """Return what `broker` does."""
    return TABLE[behaviour][BROKERS.index(broker)]


def page() -> str:
    """Return the table as docs/embedded-broker.md shows it."""
    lines = ["| behaviour | " + " | ".join(BROKERS) + " |", "|---|" + "---|" * len(BROKERS)]
    for behaviour, cells in TABLE.items():
        shown = ("`" + _shown(cell).replace("|", "\\|") + "`" for cell in cells)
        lines.append(f"| {behaviour} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _shown(cell: object) -> str:
    return str(sorted(cell)) if isinstance(cell, set) else str(cell)


if __name__ == "__main__":
    print(page())
