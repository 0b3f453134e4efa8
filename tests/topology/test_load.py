"""What a topology file says, and every way it can be wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from amqflow.abc import DeadReason
from amqflow.errors import ConfigurationError, TopologyError
from amqflow.topology import (
    Binding,
    DeadLetter,
    Delays,
    DestinationKind,
    Exchange,
    Policy,
    Queue,
    QueueType,
    Retention,
    Route,
    TopologyFileError,
)
from amqflow.topology.document import MAX_BYTES
from amqflow.topology.file import TopologyFile
from amqflow.topology.load import load, load_text

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "topology").glob("*.yaml"))

DESIGN = """\
version: 1
owns: ["shop.*"]                   # what plan may delete, and only with --prune
exchanges:
  tasks: {type: topic}
queues:
  default:
    bindings: [{exchange: tasks, routing_key: "default.#"}]
  email:
    type: classic
    max_priority: 10
    prefetch: 20
    bindings: [{exchange: tasks, routing_key: "email.*"}]
    message_ttl: 1h
    dead_letter: {exchange: dead, routing_key: email, max_age: 2w, max_length: 5, alarm: 3}
    park: [failed, poison, undecodable, unknown-task, invalid-arguments]
    arguments: {x-queue-version: 2}
delays: {resolution: 100ms, levels: 28}
routes:
  - {task: "shop.email.*", exchange: tasks, routing_key: email.send, priority: 5}
  - {task: "*", queue: default}
policies:
  copies: {pattern: "^shop", apply_to: quorum_queues, priority: 2, definition: {target-group-size: 3}}
"""


def problems(text):
    with pytest.raises(TopologyFileError) as caught:
        load_text(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_the_designs_example_is_read_as_it_says():
    found = load_text(DESIGN, "topology/shop.yaml")
    assert found.owns == ("shop.*",)
    assert found.exchanges == (Exchange("tasks", "topic"),)
    assert found.queues == (
        Queue("default"),
        Queue(
            "email",
            QueueType.CLASSIC,
            max_priority=10,
            prefetch=20,
            message_ttl=3600,
            dead_letter=DeadLetter("dead", "email"),
            park=frozenset(
                {
                    DeadReason.FAILED,
                    DeadReason.POISON,
                    DeadReason.UNDECODABLE,
                    DeadReason.UNKNOWN_TASK,
                    DeadReason.INVALID_ARGUMENTS,
                }
            ),
            arguments={"x-queue-version": 2},
        ),
    )
    assert found.bindings == (
        Binding("tasks", "default", routing_key="default.#"),
        Binding("tasks", "email", routing_key="email.*"),
    )
    assert found.routes == (
        Route("shop.email.*", exchange="tasks", routing_key="email.send", priority=5),
        Route("*", queue="default"),
    )
    assert found.consumed == ("default", "email")
    assert found.delays == Delays(0.1, 28)
    assert found.retention == {"email": Retention(14 * 86_400, 5, 3)}
    assert found.policies == (
        Policy("copies", "^shop", {"target-group-size": 3}, "quorum_queues", 2),
    )


def test_every_part_says_where_it_stands():
    found = load_text(DESIGN, "topology/shop.yaml")
    assert found.place_of(found.exchanges[0]) == "topology/shop.yaml:4:3"
    assert found.place_of(found.queues[1]) == "topology/shop.yaml:8:3"
    assert found.place_of(found.bindings[1]) == "topology/shop.yaml:12:16"
    assert found.place_of(Queue("email.dead")) is None
    assert found.positions.show(("routes", 1)) == "topology/shop.yaml:20:5"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_are_read(path):
    assert load(path).queues
    assert load(str(path)) == load(path)


def test_a_text_with_a_line_break_is_a_topology_and_no_path():
    assert load("version: 1\nqueues: {a: }\n").queues == (Queue("a"),)


def test_empty_sections_and_parts_are_defaults():
    found = load_text("version: 1\nexchanges:\nqueues:\n  a:\ndelays:\npolicies:\n")
    assert found.queues == (Queue("a"),)
    assert found.delays == Delays()


def test_names_may_hold_slashes_spaces_and_any_script():
    text = """
version: 1
exchanges: {"a/b c": {type: topic}, "Ünï 中文 😀": {}}
queues:
  "my queue/1": {bindings: [{exchange: a/b c, routing_key: "x y.#"}]}
  заказы: {bindings: [{exchange: "Ünï 中文 😀", routing_key: "k/1"}]}
routes: [{task: "é.*", queue: заказы}, {exchange: a/b c, routing_key: x y.z}]
"""
    found = load_text(text)
    assert [queue.name for queue in found.queues] == ["my queue/1", "заказы"]


def test_keys_for_anchors_are_not_read():
    text = """
version: 1
x-anything: &base {type: classic, max_priority: 5}
queues:
  a: *base
  b: {<<: *base, max_priority: 7}
"""
    found = load_text(text)
    assert [(queue.type, queue.max_priority) for queue in found.queues] == [
        ("classic", 5),
        ("classic", 7),
    ]


# -- dead letters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "letter", "overflow"),
    [
        ("dead_letter: {exchange: d}", DeadLetter("d", "q", at_least_once=True), "reject-publish"),
        (
            "dead_letter: {exchange: d, routing_key: k}",
            DeadLetter("d", "k", at_least_once=True),
            "reject-publish",
        ),
        (
            "dead_letter: {exchange: d, routing_key: null}",
            DeadLetter("d", None, at_least_once=True),
            "reject-publish",
        ),
        ("dead_letter: {exchange: d}, overflow: drop-head", DeadLetter("d", "q"), "drop-head"),
        ("dead_letter: {exchange: d, at_least_once: false}", DeadLetter("d", "q"), None),
        ("type: classic, dead_letter: {exchange: d}", DeadLetter("d", "q"), None),
        (
            'dead_letter: {exchange: ""}',
            DeadLetter("", "q.dead", at_least_once=True),
            "reject-publish",
        ),
        ("dead_letter: {max_age: 1d}", None, None),
        ("dead_letter: {}", None, None),
    ],
)
def test_dead_letters_get_the_queues_name_and_are_certain_where_they_can_be(
    fields, letter, overflow
):
    (queue,) = load_text(f"version: 1\nqueues: {{q: {{{fields}}}}}\n").queues
    assert (queue.dead_letter, queue.overflow) == (letter, overflow)


def test_homes_suspects_streams_and_what_says_so_are_not_consumed():
    text = """
version: 1
queues:
  email: {}
  email.dead: {message_ttl: 1d}
  email.suspect: {}
  log: {type: stream}
  parking: {consumed: false}
  other.dead: {}
"""
    assert load_text(text).consumed == ("email", "other.dead")


# -- bad input: every field wrong in turn ------------------------------------------------------

#: The section, the place of its field, and a value that is wrong there; what is said of it.
WRONG = [
    # the top
    ("version: 2", "f.yaml:1:1: version: 2; takes 1"),
    ("version: '1'", "version: 1; takes 1"),
    ("version: true", "version: true; takes 1"),
    ("version: 1.0", "version: 1.0; takes 1"),
    ("version:", "version: "),
    ("owns: shop", "owns: shop is a text; expected a list"),
    ("owns: [5]", 'owns[0]: YAML reads 5 as a whole number, a text is meant: write "5"'),
    ("owns: ['']", "owns[0]: is empty"),
    ("exchanges: [a]", "exchanges: is a list; expected a mapping"),
    ("queues: 5", "queues: 5 is a whole number; expected a mapping"),
    ("delays: 5s", "delays: 5s is a text; expected a mapping"),
    ("routes: {a: b}", "routes: is a mapping; expected a list"),
    ("routes:", "routes: has no value; expected a list"),
    ("policies: []", "policies: is a list; expected a mapping"),
    ("quues: {}", "unknown field `quues`; did you mean `queues`?"),
    ("vhost: x", "unknown field `vhost`; it takes version, owns, exchanges, queues, delays"),
    # exchanges
    ("exchanges: {e: {type: topik}}", "exchanges.e.type: topik; takes direct, topic, fanout"),
    ("exchanges: {e: {type: 5}}", "exchanges.e.type: YAML reads 5 as a whole number"),
    ("exchanges: {e: {durable: 1}}", "exchanges.e.durable: 1 is a whole number; expected true or"),
    ("exchanges: {e: {durable: 'true'}}", "exchanges.e.durable: true is a text; expected true or"),
    ("exchanges: {e: {auto_delete: ~}}", "exchanges.e.auto_delete: has no value"),
    ("exchanges: {e: {internal: [true]}}", "exchanges.e.internal: is a list"),
    ("exchanges: {e: {bindings: x}}", "exchanges.e.bindings: x is a text; expected a list"),
    ("exchanges: {e: {arguments: [x]}}", "exchanges.e.arguments: is a list; expected a mapping"),
    ("exchanges: {e: {typ: topic}}", "unknown field `typ`; did you mean `type`?"),
    ("exchanges: {e: topic}", "exchanges.e: topic is a text; expected a mapping"),
    ("exchanges: {'': {}}", "without a name"),
    ("exchanges: {amq.mine: {}}", "belong to the broker"),
    ("exchanges: {amqflow.mine: {}}", "belong to amqflow"),
    ("exchanges: {5: {}}", 'YAML reads the key 5 as int: write "5"'),
    ("exchanges: {e: {arguments: {x: }}}", "exchanges.e.arguments.x: has no value"),
    (
        "exchanges: {e: {arguments: {alternate-exchange: f}}}",
        "exchanges.e.arguments.alternate-exchange: no exchange 'f' here",
    ),
    # bindings
    ("queues: {q: {bindings: [5]}}", "queues.q.bindings[0]: 5 is a whole number"),
    ("queues: {q: {bindings: [{}]}}", "queues.q.bindings[0]: `exchange` is missing"),
    ("queues: {q: {bindings: [{exchange: ''}]}}", "bindings[0].exchange: is empty; name it"),
    ("queues: {q: {bindings: [{exchange: nope}]}}", "no exchange 'nope' here"),
    ("queues: {q: {bindings: [{exchange: 7}]}}", "YAML reads 7 as a whole number"),
    (
        "queues: {q: {bindings: [{exchange: amq.topic, routing_key: 5}]}}",
        "bindings[0].routing_key: YAML reads 5 as a whole number",
    ),
    (
        "queues: {q: {bindings: [{exchange: amq.topic}]}}",
        "exchange 'amq.topic' is topic: say which routing_key leads here",
    ),
    (
        "queues: {q: {bindings: [{exchange: amq.headers}]}}",
        "exchange 'amq.headers' is headers: say in arguments",
    ),
    (
        "queues: {q: {bindings: [{exchange: amq.topic, key: a}]}}",
        "unknown field `key`; it takes exchange, routing_key, arguments",
    ),
    (
        f"queues: {{q: {{bindings: [{{exchange: amq.topic, routing_key: {'k' * 256}}}]}}}}",
        "has 256 bytes; AMQP allows 255",
    ),
    (
        "queues: {q: {bindings: [{exchange: amq.fanout}, {exchange: amq.fanout}]}}",
        "queues.q.bindings[1]: is here twice, first at 2:25; keep one",
    ),
    # queues
    ("queues: {q: {type: clasic}}", "queues.q.type: clasic; takes quorum, classic or stream; did"),
    ("queues: {q: {type: 5}}", "queues.q.type: 5; takes quorum, classic or stream"),
    ("queues: {q: {consumed: maybe}}", "queues.q.consumed: maybe is a text; expected true or"),
    ("queues: {q: {type: stream, consumed: true}}", "workers take no tasks from a stream"),
    ("queues: {q: , q.dead: {consumed: true}}", "workers take no tasks from a home"),
    ("queues: {q: {durable: 0}}", "queues.q.durable: 0 is a whole number"),
    ("queues: {q: {durable: false}}", "queues.q.durable: a quorum queue is always durable"),
    ("queues: {q: {exclusive: true}}", "queues.q.exclusive: a quorum queue has no exclusive"),
    ("queues: {q: {auto_delete: true}}", "queues.q.auto_delete: a quorum queue has no auto_delete"),
    ("queues: {q: {max_priority: 300}}", "queues.q.max_priority: 300; RabbitMQ takes 1 to 255"),
    ("queues: {q: {max_priority: 0}}", "queues.q.max_priority: 0; RabbitMQ takes 1 to 255"),
    ("queues: {q: {max_priority: high}}", "max_priority: high is a text; expected a whole number"),
    ("queues: {q: {max_priority: 1.5}}", "max_priority: 1.5 is a number; expected a whole number"),
    ("queues: {q: {message_ttl: 10}}", "queues.q.message_ttl: 10 needs a unit: write 10s, or"),
    ("queues: {q: {message_ttl: soon}}", "queues.q.message_ttl: soon is no duration"),
    ("queues: {q: {message_ttl: -5s}}", "queues.q.message_ttl: -5s is no duration"),
    ('queues: {q: {max_length: ""}}', "q.max_length: is an empty text; expected a whole number"),
    ("queues: {q: {message_ttl: {s: 5}}}", "queues.q.message_ttl: is no duration"),
    ("queues: {q: {message_ttl: 522w}}", "q.message_ttl: 522w is longer than the 3650 days that"),
    ("queues: {q: {message_ttl: 1:30}}", "YAML reads 1:30 as the number 90"),
    ("queues: {q: {expires: 0}}", "queues.q.expires: expires is 0.0 s; the broker takes 1 ms"),
    ("queues: {q: {expires: 5 days}}", "queues.q.expires: 5 days is no duration"),
    ("queues: {q: {max_length: -1}}", "queues.q.max_length: -1; takes 0 or more"),
    ("queues: {q: {max_length: many}}", "queues.q.max_length: many is a text; expected a whole"),
    ("queues: {q: {max_length: 010}}", "YAML reads 010 as octal, the number 8"),
    ("queues: {q: {max_length_bytes: 5 apples}}", "max_length_bytes: 5 apples is no size"),
    ("queues: {q: {max_length_bytes: -1}}", "max_length_bytes: -1 is out of range"),
    ("queues: {q: {max_age: 1d}}", "queues.q.max_age: a quorum queue has no max_age"),
    ("queues: {q: {type: stream, max_age: x}}", "queues.q.max_age: x is no duration"),
    ("queues: {q: {overflow: reject}}", "queues.q.overflow: reject; takes drop-head, reject-publi"),
    ("queues: {q: {overflow: no}}", "queues.q.overflow: YAML reads no as false"),
    ("queues: {q: {dead_letter: dead}}", "queues.q.dead_letter: dead is a text; expected a mapp"),
    ("queues: {q: {dead_letter: {exchnge: d}}}", "unknown field `exchnge`; did you mean `exchange"),
    ("queues: {q: {dead_letter: {exchange: 5}}}", "dead_letter.exchange: YAML reads 5"),
    ("queues: {q: {dead_letter: {routing_key: k}}}", "routing_key needs an exchange beside it"),
    ("queues: {q: {dead_letter: {at_least_once: true}}}", "at_least_once needs an exchange"),
    (
        "queues: {q: {type: classic, dead_letter: {exchange: d, at_least_once: true}}}",
        "queues.q.dead_letter: at-least-once dead-lettering needs a quorum queue",
    ),
    (
        "queues: {q: {overflow: drop-head, dead_letter: {exchange: d, at_least_once: true}}}",
        "at-least-once dead-lettering needs overflow 'reject-publish'",
    ),
    (
        f"queues: {{q: {{dead_letter: {{exchange: d, routing_key: {'k' * 256}}}}}}}",
        "queues.q.dead_letter: the dead-letter routing key",
    ),
    ("queues: {q: {dead_letter: {max_age: 5}}}", "dead_letter.max_age: 5 needs a unit"),
    ("queues: {q: {dead_letter: {max_length: x}}}", "dead_letter.max_length: x is a text"),
    ("queues: {q: {dead_letter: {alarm: -1}}}", "dead_letter.alarm: -1; takes 0 or more"),
    (
        "queues: {q: {consumed: false, dead_letter: {alarm: 1}}}",
        "queues.q.dead_letter.alarm: only a consumed queue has a home",
    ),
    (
        "queues: {q: {dead_letter: {max_age: 1d}}, q.dead: {}}",
        "this file declares q.dead itself; set message_ttl there instead",
    ),
    ("queues: {q: {delivery_limit: -2}}", "queues.q.delivery_limit: -2; takes -1 or more"),
    ("queues: {q: {type: classic, delivery_limit: 5}}", "a classic queue has no delivery_limit"),
    ("queues: {q: {single_active_consumer: 1}}", "single_active_consumer: 1 is a whole number"),
    ("queues: {q: {prefetch: 0}}", "queues.q.prefetch: 0; RabbitMQ takes 1 to 65535"),
    ("queues: {q: {prefetch: 70000}}", "queues.q.prefetch: 70000; RabbitMQ takes 1 to 65535"),
    ("queues: {q: {park: failed}}", "queues.q.park: failed is a text; expected a list"),
    ("queues: {q: {park: [faled]}}", "queues.q.park[0]: faled; takes failed, expired, revoked"),
    ("queues: {q: {park: [5]}}", "queues.q.park[0]: 5; takes failed"),
    ("queues: {q: {arguments: 5}}", "queues.q.arguments: 5 is a whole number; expected a mapping"),
    ("queues: {q: {arguments: {x-a: }}}", "queues.q.arguments.x-a: has no value"),
    ("queues: {q: {arguments: {x-message-ttl: 5}}}", "write message_ttl instead"),
    (
        f"queues: {{q: {{arguments: {{x-a: {1 << 64}}}}}}}",
        "does not fit into AMQP's 64 bits",
    ),
    ("queues: {q: {que: 5}}", "unknown field `que`; it takes type, consumed, bindings"),
    ("queues: {q: {prefech: 5}}", "unknown field `prefech`; did you mean `prefetch`?"),
    ("queues: {q: [a]}", "queues.q: is a list; expected a mapping"),
    ("queues: {'': {}}", 'queues."": queue without a name'),
    ("queues: {amq.mine: {}}", "names starting with 'amq.' belong to the broker"),
    ("queues: {amqflow.mine: {}}", "names starting with 'amqflow.' belong to amqflow"),
    ('queues: {"a\\nb": {}}', "line break or NUL"),
    (f"queues: {{{'q' * 256}: {{}}}}", "has a name of 256 bytes; AMQP allows 255"),
    (f"queues: {{{'q' * 200}: {{}}}}", "takes 200 bytes in the routing key of a delay"),
    ("queues: {q: {type: stream, message_ttl: 1s}}", "a stream queue has no message_ttl"),
    # delays
    ("delays: {resolution: 100}", "delays.resolution: 100 needs a unit"),
    ("delays: {resolution: 0s}", "delays: resolution is 0.0 s; it takes whole"),
    ("delays: {levels: 0}", "delays.levels: 0; takes 1 to 100"),
    ("delays: {levels: 101}", "delays.levels: 101; takes 1 to 100"),
    (
        "delays: {resolution: 1s, levels: 60}",
        "delays: the highest of 60 levels would hold messages",
    ),
    ("delays: {levels: all}", "delays.levels: all is a text"),
    ("delays: {level: 5}", "unknown field `level`; did you mean `levels`?"),
    # routes
    ("routes: [5]", "routes[0]: 5 is a whole number; expected a mapping"),
    ("routes: [{}]", "routes[0]: says nothing; name a queue, an exchange or a priority"),
    ("routes: [{task: 5, queue: a}]", "routes[0].task: YAML reads 5"),
    ("routes: [{task: '', priority: 1}]", "routes[0].task: is empty"),
    ("routes: [{queue: nope}]", "routes[0].queue: no queue 'nope' here; declare it under queues"),
    ("routes: [{exchange: nope}]", "routes[0].exchange: no exchange 'nope' here; declare it"),
    ("routes: [{routing_key: a}]", "routes[0].routing_key: routing_key needs an exchange"),
    ("routes: [{priority: 256}]", "routes[0].priority: 256; RabbitMQ takes 0 to 255"),
    ("routes: [{priority: high}]", "routes[0].priority: high is a text"),
    ("routes: [{priority: 1, broadcast: 5}]", "routes[0].broadcast: 5 is a whole number"),
    ("routes: [{priorty: 1}]", "unknown field `priorty`; did you mean `priority`?"),
    ("routes: [{exchange: amq.topic, routing_key: a}]", "reaches no consumed queue; bind one"),
    # policies
    ("policies: {p: }", "policies.p: has no value; expected a mapping"),
    ("policies: {p: {definition: {a: 1}}}", "policies.p: `pattern` is missing; a regular expres"),
    ("policies: {p: {pattern: '('}}", "policies.p.pattern: ( is no regular expression"),
    ("policies: {p: {pattern: a}}", "policies.p: `definition` is missing"),
    ("policies: {p: {pattern: a, definition: {}}}", "policies.p.definition: is empty"),
    ("policies: {p: {pattern: a, definition: 5}}", "policies.p.definition: 5 is a whole number"),
    (
        "policies: {p: {pattern: a, definition: {a: 1}, apply_to: quorum}}",
        "policies.p.apply_to: quorum; takes queues, classic_queues, quorum_queues",
    ),
    (
        "policies: {p: {pattern: a, definition: {a: 1}, priority: x}}",
        "policies.p.priority: x is a text; expected a whole number",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "says"), WRONG, ids=[f"{at}-{wrong[:60]}" for at, (wrong, _) in enumerate(WRONG)]
)
def test_every_field_wrong_in_turn_says_where_and_what_to_write(wrong, says):
    text = wrong if wrong.startswith("version") else f"version: 1\n{wrong}"
    found = problems(text + "\n")
    assert any(says in problem for problem in found), found
    assert all(problem.startswith("f.yaml:") for problem in found)


def test_the_table_has_every_field():
    tried = " ".join(wrong for wrong, _ in WRONG)
    fields = set(TopologyFile.model_fields)
    schema = TopologyFile.model_json_schema()
    for part in schema["$defs"].values():
        fields |= set(part["properties"])
    assert {name for name in fields if f"{name}:" not in tried} == set()


def test_all_errors_of_a_file_come_at_once_in_the_files_order():
    found = problems("""\
version: 2
owns: no
queues:
  email: {max_priority: 300, message_ttl: 10, prefetch: 1:30}
  email: {}
quues: {}
""")
    assert [problem.split(" ")[0] for problem in found] == [
        "f.yaml:1:1:",
        "f.yaml:2:7:",
        "f.yaml:4:11:",
        "f.yaml:4:30:",
        "f.yaml:4:57:",
        "f.yaml:5:3:",
        "f.yaml:6:1:",
    ]


def test_all_broken_references_come_at_once():
    found = problems("""\
version: 1
exchanges: {tasks: {type: topic}, hidden: {type: fanout, internal: true}}
queues:
  a: {bindings: [{exchange: tasks, routing_key: "#"}]}
  b: {bindings: [{exchange: taks, routing_key: "#"}, {exchange: tasks, routing_key: "x.*"}]}
  idle: {consumed: false}
routes:
  - {queue: c}
  - {exchange: tasks, routing_key: x.y}
  - {exchange: tasks, routing_key: x.y, broadcast: true}
  - {queue: a, exchange: tasks}
  - {queue: a, routing_key: k}
  - {queue: idle}
  - {exchange: hidden}
  - {exchange: tasks}
""")
    assert [problem.split(": ", 1)[1] for problem in found] == [
        "queues.b.bindings[0].exchange: no exchange 'taks' here; did you mean `tasks`?",
        "routes[0].queue: no queue 'c' here; declare it under queues",
        (
            "routes[1]: 'tasks' with key 'x.y' reaches 2 consumed queues ('a', 'b'), and the task "
            "would run in each; narrow a binding, or write broadcast: true"
        ),
        "routes[3]: names a queue and an exchange; keep one",
        "routes[4].routing_key: a queue is reached by its name; leave routing_key out",
        "routes[5].queue: no worker takes tasks from 'idle' (consumed: false)",
        "routes[6].exchange: exchange 'hidden' is internal; nobody may publish to it",
    ]


# -- bad files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; a topology starts with `version: 1`"),
        (b"# only words\n", "is empty"),
        (b"- version: 1\n", "1:1: holds a list; a topology is a mapping"),
        (b"version\n", "1:1: holds a single value; a topology is a mapping"),
        (b"\x00\x01\x02", "is a binary file; expected YAML"),
        (b"version: 1\n\tqueues: {}\n", "2:1: a tab; YAML indents with spaces"),
        (b"#" * (MAX_BYTES + 1), "is larger than 4 MiB"),
    ],
    ids=["empty", "comment", "list", "scalar", "binary", "tab", "huge"],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, says):
    path = tmp_path / "topology.yaml"
    path.write_bytes(content)
    with pytest.raises(TopologyFileError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "topology.yaml"
    path.write_bytes("version: 1\nqueues: {a: }\n".encode("utf-8-sig"))
    assert load(path).consumed == ("a",)


def test_a_folder_and_a_missing_file_say_so(tmp_path):
    with pytest.raises(TopologyFileError, match="is a folder; name the file in it"):
        load(tmp_path)
    with pytest.raises(TopologyFileError, match="no such file"):
        load(tmp_path / "nope.yaml")
    with pytest.raises(TopologyFileError, match="cannot be read"):
        load("a\0b")


def test_the_error_is_a_configuration_error_and_bounded():
    text = "version: 1\nqueues:\n" + "".join(f"  q{n}: {{x: 1}}\n" for n in range(1000))
    with pytest.raises(TopologyFileError) as caught:
        load_text(text)
    assert isinstance(caught.value, TopologyError | ConfigurationError)
    assert len(caught.value.problems) == 1000
    assert len(str(caught.value).splitlines()) == 26


def test_a_declaration_is_a_value():
    one, other = load_text(DESIGN), load_text(DESIGN)
    assert one == other
    assert hash(one) == hash(other)
    assert replace(one, owns=()) != other
    assert one.bindings[0].destination_kind is DestinationKind.QUEUE
