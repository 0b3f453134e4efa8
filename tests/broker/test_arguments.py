"""Queue arguments: which make sense, and what declaring again with others is told."""

import pytest

from tests.broker.client import METHOD, raw_frame, raw_method, refused

DECLARE = "Queue.Declare"
QUORUM = {"x-queue-type": "quorum"}


def inequivalent(what, queue, served, received, current) -> str:
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{what}' for queue '{queue}' in vhost"
        f" '{served.vhost}': received {received} but current is {current}"
    )


@pytest.mark.parametrize(
    ("what", "before", "again"),
    [
        ("durable", {"durable": True}, {"durable": False}),
        ("durable", {"durable": False}, {"durable": True}),
        ("auto_delete", {"auto_delete": False}, {"auto_delete": True}),
        ("auto_delete", {"auto_delete": True}, {"auto_delete": False}),
    ],
)
def test_a_queue_declared_again_with_another_property_is_refused(
    channel, served, name, what, before, again
):
    channel.queue(name, **before)
    received, current = (str(side[what]).lower() for side in (again, before))
    with refused(
        "channel",
        406,
        inequivalent(what, name, served, f"'{received}'", f"'{current}'"),
        DECLARE,
    ):
        channel.queue(name, **again)


# Numbers over 65535, so that every client's encoder says signedint.
ARGUMENTS = {
    "x-expires": (100_000, 200_000, "signedint"),
    "x-message-ttl": (100_000, 200_000, "signedint"),
    "x-max-length": (100_000, 200_000, "signedint"),
    "x-max-length-bytes": (100_000, 200_000, "signedint"),
    "x-max-priority": (5, 6, "byte"),
    "x-dead-letter-exchange": ("one", "two", "longstr"),
    "x-overflow": ("drop-head", "reject-publish", "longstr"),
    "x-single-active-consumer": (True, False, "bool"),
    "x-queue-mode": ("lazy", "default", "longstr"),
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_a_queue_declared_again_with_another_argument_is_refused(channel, served, name, what):
    before, again, _ = ARGUMENTS[what]
    channel.queue(name, exclusive=True, arguments={what: before})
    assert channel.queue(name, exclusive=True, arguments={what: before}) == name
    received, current = (f"'{str(value).lower()}'" for value in (again, before))
    with refused("channel", 406, inequivalent(what, name, served, received, current), DECLARE):
        channel.queue(name, exclusive=True, arguments={what: again})


@pytest.mark.parametrize("what", ARGUMENTS)
def test_a_queue_declared_again_without_its_argument_is_refused(channel, served, name, what):
    before, _, kind = ARGUMENTS[what]
    channel.queue(name, exclusive=True, arguments={what: before})
    current = f"the value '{str(before).lower()}' of type '{kind}'"
    with refused("channel", 406, inequivalent(what, name, served, "none", current), DECLARE):
        channel.queue(name, exclusive=True)


@pytest.mark.parametrize("what", ARGUMENTS)
def test_a_queue_declared_again_with_an_argument_more_is_refused(channel, served, name, what):
    again, _, kind = ARGUMENTS[what]
    channel.queue(name, exclusive=True)
    received = f"the value '{str(again).lower()}' of type '{kind}'"
    with refused("channel", 406, inequivalent(what, name, served, received, "none"), DECLARE):
        channel.queue(name, exclusive=True, arguments={what: again})


def test_a_dead_letter_routing_key_declared_again_otherwise_is_refused(channel, served, name):
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "one"}
    channel.queue(name, exclusive=True, arguments=arguments)
    text = inequivalent("x-dead-letter-routing-key", name, served, "'two'", "'one'")
    with refused("channel", 406, text, DECLARE):
        channel.queue(
            name, exclusive=True, arguments=arguments | {"x-dead-letter-routing-key": "two"}
        )


@pytest.mark.parametrize(
    ("what", "before", "again"),
    [
        ("x-delivery-limit", 5, 6),
        ("x-dead-letter-strategy", "at-least-once", "at-most-once"),
        ("x-queue-type", "quorum", "classic"),
    ],
)
def test_a_quorum_queue_declared_again_with_another_argument_is_refused(
    channel, served, name, what, before, again
):
    channel.queue(name, arguments=QUORUM | {what: before})
    text = inequivalent(what, name, served, f"'{again}'", f"'{before}'")
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments=QUORUM | {what: again})


def test_a_classic_queue_is_none_of_the_quorum_type(channel, served, name, differs):
    channel.queue(name)
    how = differs("406 text: a queue without a type declared again as quorum")
    text = inequivalent("x-queue-type", name, served, *how)
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments=QUORUM)


def test_a_quorum_queue_is_none_without_a_type(channel, served, name, differs):
    channel.queue(name, arguments=QUORUM)
    how = differs("406 text: a quorum queue declared again without a type")
    text = inequivalent("x-queue-type", name, served, *how)
    with refused("channel", 406, text, DECLARE):
        channel.queue(name)


def test_naming_the_classic_type_is_the_same_as_naming_none(channel, name):
    channel.queue(name, exclusive=True)
    assert channel.queue(name, exclusive=True, arguments={"x-queue-type": "classic"}) == name


@pytest.mark.parametrize(("again", "told"), [(5.0, "5.0"), ("5", "5")])
def test_a_number_is_not_equal_to_one_written_in_another_way(channel, served, name, again, told):
    channel.queue(name, exclusive=True, arguments={"x-max-length": 5})
    text = inequivalent("x-max-length", name, served, f"'{told}'", "'5'")
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, exclusive=True, arguments={"x-max-length": again})


def test_a_number_is_equal_to_itself_in_another_integer_type(connection, channel, name):
    channel.queue(name, exclusive=True, arguments={"x-max-length": 5})
    table = b"\x0cx-max-lengthl" + (5).to_bytes(8, "big")
    connection.write(
        raw_frame(
            METHOD,
            channel.number,
            raw_method(50, 10, b"\x00\x00" + bytes([len(name)]) + name.encode() + b"\x04")
            + len(table).to_bytes(4, "big")
            + table,
        )
    )
    assert channel.answer().queue == name


def test_an_argument_the_broker_does_not_know_is_not_compared(channel, name):
    channel.queue(name, exclusive=True, arguments={"x-mine": 1})
    assert channel.queue(name, exclusive=True, arguments={"x-mine": 2}) == name


# Arguments that make no sense

INTEGERS = ("x-expires", "x-message-ttl", "x-max-length", "x-max-length-bytes")
TOO_LONG = 2**40  # milliseconds
INVALID = [
    ("x-expires", 0, "{value_zero,0}"),
    *((what, -1, "{value_negative,-1}") for what in (*INTEGERS, "x-max-priority")),
    *(
        (what, value, f'"expected integer, got {kind}"')
        for what in INTEGERS
        for value, kind in (("5", "longstr"), (True, "bool"), (1.5, "float"), (None, "void"))
    ),
    ("x-expires", TOO_LONG, f"{{value_too_large,{TOO_LONG}}}"),
    ("x-message-ttl", TOO_LONG, f"{{value_too_large,{TOO_LONG}}}"),
    ("x-max-priority", 256, "{max_value_exceeded,256}"),
    ("x-max-priority", "5", '"expected integer, got longstr"'),
    ("x-overflow", "drop-tail", "invalid_overflow"),
    ("x-overflow", 5, "{unacceptable_type,byte}"),
    ("x-dead-letter-routing-key", "alone", "routing_key_but_no_dlx_defined"),
    ("x-dead-letter-routing-key", 5, "{unacceptable_type,byte}"),
    ("x-single-active-consumer", "yes", "{unacceptable_type,longstr}"),
    ("x-queue-type", "paper", "\"unsupported queue type 'paper'\""),
    ("x-queue-type", 5, "{unacceptable_type,byte}"),
    ("x-queue-mode", "fast", "\"unsupported queue mode 'fast'\""),
    ("x-queue-mode", 5, "{unacceptable_type,byte}"),
    ("x-queue-version", 3, "\"unsupported queue version '3'\""),
]


@pytest.mark.parametrize(("what", "value", "reason"), INVALID)
def test_an_argument_that_makes_no_sense_is_refused(channel, served, name, what, value, reason):
    text = (
        f"PRECONDITION_FAILED - invalid arg '{what}' for queue '{name}' in vhost"
        f" '{served.vhost}': {reason}"
    )
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments={what: value})


QUORUM_INVALID = [
    *(
        each
        for each in INVALID
        if each[0] not in ("x-max-priority", "x-queue-type", "x-queue-mode", "x-queue-version")
    ),
    ("x-dead-letter-strategy", "sometimes", "invalid_dlx_strategy"),
    ("x-dead-letter-strategy", 5, "{unacceptable_type,byte}"),
    ("x-queue-leader-locator", "nowhere", "invalid_queue_locator_arg"),
]


@pytest.mark.parametrize(("what", "value", "reason"), QUORUM_INVALID)
def test_an_argument_that_makes_no_sense_is_refused_for_quorum_queues_too(
    channel, served, name, what, value, reason
):
    text = (
        f"PRECONDITION_FAILED - invalid arg '{what}' for queue '{name}' in vhost"
        f" '{served.vhost}': {reason}"
    )
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments=QUORUM | {what: value})


@pytest.mark.parametrize("type_", ["classic", "quorum"])
def test_a_dead_letter_exchange_that_is_no_name_is_refused(channel, served, name, type_):
    text = (
        f"PRECONDITION_FAILED - invalid type 'byte' for arg 'x-dead-letter-exchange' in queue"
        f" '{name}' in vhost '{served.vhost}'"
    )
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments={"x-queue-type": type_, "x-dead-letter-exchange": 5})


OF_THE_OTHER_TYPE = [
    *(
        ("classic", what)
        for what in (
            "x-delivery-limit",
            "x-quorum-initial-group-size",
            "x-dead-letter-strategy",
            "x-max-in-memory-length",
            "x-max-in-memory-bytes",
            "x-max-age",
            "x-stream-max-segment-size-bytes",
        )
    ),
    *(
        ("quorum", what)
        for what in (
            "x-max-priority",
            "x-queue-mode",
            "x-queue-version",
            "x-max-age",
            "x-stream-max-segment-size-bytes",
        )
    ),
]


@pytest.mark.parametrize(("type_", "what"), OF_THE_OTHER_TYPE)
def test_an_argument_of_another_queue_type_is_refused(channel, served, name, type_, what):
    text = (
        f"PRECONDITION_FAILED - invalid arg '{what}' for queue '{name}' in vhost"
        f" '{served.vhost}' of queue type rabbit_{type_}_queue"
    )
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments={"x-queue-type": type_, what: 5})


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"durable": False}, "non-durable"),
        ({"exclusive": True}, "exclusive-owner"),
        ({"auto_delete": True}, "auto-delete"),
    ],
)
def test_a_quorum_queue_is_durable_shared_and_stays(channel, served, name, options, what):
    text = (
        f"PRECONDITION_FAILED - invalid property '{what}' for queue '{name}' in vhost"
        f" '{served.vhost}'"
    )
    with refused("channel", 406, text, DECLARE):
        channel.queue(name, arguments=QUORUM, **options)


def test_a_quorum_queue_is_named_by_its_client(channel):
    text = "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"
    with refused("channel", 406, text, DECLARE):
        channel.queue("", arguments=QUORUM)


ACCEPTED = [
    {"x-message-ttl": 0},
    {"x-max-length": 0},
    {"x-max-length": 2**40},
    {"x-max-priority": 0},
    {"x-max-priority": 255},
    {"x-overflow": "reject-publish-dlx"},
    {"x-dead-letter-exchange": "not there"},
    {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": ""},
    {"x-queue-version": 2},
    {"x-queue-mode": "lazy"},
    {"x-mine": [1, {"two": None}]},
    QUORUM | {"x-delivery-limit": 0},
    QUORUM | {"x-delivery-limit": -1},
    QUORUM | {"x-quorum-initial-group-size": 5},
    QUORUM | {"x-max-in-memory-length": 5},
    QUORUM | {"x-dead-letter-strategy": "at-least-once"},
    QUORUM | {"x-overflow": "reject-publish-dlx"},
    QUORUM | {"x-queue-leader-locator": "client-local"},
    QUORUM | {"x-single-active-consumer": True},
]


@pytest.mark.parametrize("arguments", ACCEPTED, ids=str)
def test_an_argument_that_makes_sense_is_taken(channel, name, arguments):
    assert channel.queue(name, arguments=arguments) == name
    assert channel.queue(name, arguments=arguments) == name
