"""Each finding's page has an example that is found and one that is not: both are run here."""

import re
from pathlib import Path

import pytest

from amqflow.topology import BrokerFacts
from amqflow.topology.lint import ANALYZERS, Level, lint
from amqflow.topology.lint.overlapping_bindings import patterns_meet
from amqflow.topology.lint.run import COMMENT
from amqflow.topology.lint.shadowed_route import covers
from amqflow.topology.load import load, load_text

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "lint.md").read_text()
SECTIONS = {
    section[:5]: section for section in PAGE.split("\n## ")[1:] if re.match(r"AT\d+", section)
}
EXAMPLE = re.compile(
    r"^```yaml\n# (found|not found)(?: with --broker-version ([\d.]+))?\n(.*?)^```",
    re.DOTALL | re.MULTILINE,
)
EXAMPLES = [
    pytest.param(code, found == "found", version, text, id=f"{code}-{found.replace(' ', '-')}")
    for code, section in SECTIONS.items()
    for found, version, text in EXAMPLE.findall(section)
]


def codes(text, version=None):
    facts = BrokerFacts.parse(version) if version else None
    return [found.code for found in lint(load_text(text), facts) if found.ignored is None]


@pytest.mark.parametrize(("code", "found", "version", "text"), EXAMPLES)
def test_the_pages_examples_are_found_and_not_found(code, found, version, text):
    assert (code in codes(text, version)) is found


def test_every_analyzer_has_its_section_with_both_examples():
    assert list(SECTIONS) == [COMMENT, *(analyzer.code for analyzer in ANALYZERS)]
    for code, section in SECTIONS.items():
        assert sorted(found for found, _, _ in EXAMPLE.findall(section)) == ["found", "not found"]
        title = next((one.title for one in ANALYZERS if one.code == code), None)
        assert title is None or section.startswith(f"{code} {title}\n")


@pytest.mark.parametrize("analyzer", ANALYZERS, ids=lambda one: one.code)
def test_the_page_tells_each_analyzers_level(analyzer):
    said = SECTIONS[analyzer.code].split("\n\n")[1]
    assert said.lower().startswith(analyzer.level.value)


@pytest.mark.parametrize("name", ["minimal", "shop", "cluster"])
@pytest.mark.parametrize("version", [None, "3.10.8", "4.0.5", "4.3.0"])
def test_the_shipped_files_are_clean(name, version):
    facts = BrokerFacts.parse(version) if version else None
    assert lint(load(ROOT / "topology" / f"{name}.yaml"), facts) == ()


def test_a_finding_says_where_and_what_to_do():
    (found,) = lint(load_text("version: 1\nqueues:\n  default:\n    delivery_limit: 3\n"), None)[1:]
    assert (found.code, found.level, found.source) == ("AT106", Level.WARNING, "<text>")
    assert (found.place.line, found.place.column) == (4, 5)
    assert found.path == ("queues", "default", "delivery_limit")
    assert "write 20 or more" in found.text


QUEUE = "version: 1\nqueues:\n  default: {dead_letter: {alarm: 1}, "


@pytest.mark.parametrize(
    "text",
    [
        QUEUE + "expires: 1d}   # amqflow: ignore AT118 gone by tomorrow\n",
        QUEUE + "\n    expires: 1d}   # amqflow: ignore AT118: gone by tomorrow\n",
        (
            "version: 1\nqueues:\n  # amqflow: ignore AT118 - gone\n  # and more words\n"
            "  default: {dead_letter: {alarm: 1}, expires: 1d}\n"
        ),
        (
            "version: 1\nqueues:\n  default:   # amqflow: ignore AT118, AT106 both meant\n"
            "    dead_letter: {alarm: 1}\n    expires: 1d\n    delivery_limit: 2\n"
        ),
    ],
)
def test_a_comment_with_a_reason_silences_at_the_line_or_the_part(text):
    found = lint(load_text(text))
    assert found
    assert all(one.ignored for one in found)


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# amqflow: ignore AT118", ["AT100", "AT118"]),
        ("# amqflow: ignore", ["AT100", "AT118"]),
        ("# amqflow: ignore because I say so", ["AT100", "AT118"]),
        ("# amqflow: ignore AT103 not the code that is here", ["AT100", "AT118"]),
        ("# amqflow: ignore AT118 AT103 one of them is not here", ["AT100"]),
    ],
)
def test_a_comment_that_silences_wrongly_is_found(comment, expected):
    assert sorted(codes(QUEUE + "expires: 1d}   " + comment + "\n")) == expected


def test_a_file_with_windows_line_ends_is_silenced_too():
    text = QUEUE + "expires: 1d}   # amqflow: ignore AT118\n"
    assert sorted(codes(text.replace("\n", "\r\n"))) == ["AT100", "AT118"]
    text = QUEUE + "expires: 1d}   # amqflow: ignore AT118 meant\n"
    assert codes(text.replace("\n", "\r\n")) == []


def test_an_ignore_of_another_part_silences_nothing():
    text = """
version: 1
queues:
  a: {dead_letter: {alarm: 1}, expires: 1d}   # amqflow: ignore AT118 meant
  b: {dead_letter: {alarm: 1}, expires: 1d}
routes: [{task: a, queue: a}, {queue: b}]
"""
    assert codes(text) == ["AT118"]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "*.b", True),
        ("a.*", "a.b.c", False),
        ("#", "a.b.c", True),
        ("#", "#", True),
        ("a.#", "a", True),
        ("a.#.z", "a.*.*.z", True),
        ("a.#.z", "*.y", False),
        ("a.#", "#.z", True),
        ("*", "#.x.#.y.#", False),
        ("*.*", "#.x.#.y.#", True),
        ("", "#", True),
        ("", "*", True),
    ],
)
def test_two_patterns_meet_where_one_key_fits_both(one, other, meet):
    assert patterns_meet(one, other) is meet
    assert patterns_meet(other, one) is meet


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("*", "shop.email.*", True),
        ("shop.*", "shop.email.send", True),
        ("shop.*", "shop.email.*", True),
        ("shop.email.*", "shop.*", False),
        ("shop.?", "shop.*", False),
        ("shop.send", "shop.send", True),
        ("shop.sen", "shop.send", False),
    ],
)
def test_a_wider_glob_covers_a_narrower_one(wide, narrow, expected):
    assert covers(wide, narrow) is expected


def test_a_cycle_of_three_is_told_once():
    text = "version: 1\nqueues:\n"
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        text += f"  {one}: {{dead_letter: {{exchange: '', routing_key: {other}}}}}\n"
    text += "routes: [{task: a, queue: a}]\n"
    cycles = [found for found in lint(load_text(text)) if found.code == "AT101"]
    assert len(cycles) == 1
    assert "'a' → 'b' → 'c' → 'a'" in cycles[0].text


def test_broadcast_means_the_overlap():
    text = """
version: 1
exchanges: {news: {type: fanout}}
queues:
  a: {dead_letter: {alarm: 1}, bindings: [{exchange: news}]}
  b: {dead_letter: {alarm: 1}, bindings: [{exchange: news}]}
"""
    assert codes(text) == ["AT105"]
    assert codes(text + "routes: [{task: n, exchange: news, broadcast: true}]\n") == []


def test_a_fanout_of_dead_letters_reaches_every_home():
    text = """
version: 1
exchanges: {dead: {type: fanout}}
queues:
  a: {dead_letter: {exchange: dead, alarm: 1}}
  b: {dead_letter: {exchange: dead, alarm: 1}}
routes: [{task: a, queue: a}, {queue: b}]
"""
    assert codes(text) == ["AT119", "AT119"]


def test_priorities_of_quorum_queues_depend_on_the_version():
    text = """
version: 1
queues:
  a: {dead_letter: {alarm: 1}}
routes: [{task: a, queue: a, priority: 5}]
"""
    assert codes(text) == []
    assert codes(text, "4.3.0") == []
    assert codes(text, "4.0.5") == ["AT111"]


def test_the_own_exchange_of_a_plugin_is_not_guessed_at():
    text = """
version: 1
exchanges: {hash: {type: x-consistent-hash}}
queues:
  a: {consumed: false, message_ttl: 1s, dead_letter: {exchange: hash, routing_key: a}, bindings: [
    {exchange: hash, routing_key: "1"}]}
"""
    assert codes(text) == []


HEADERS = """
version: 1
exchanges: {h: {type: headers}}
queues:
  a: {dead_letter: {alarm: 1}, bindings: [{exchange: h, arguments: {to: ONE}}]}
  b: {dead_letter: {alarm: 1}, bindings: [{exchange: h, arguments: {to: OTHER}}]}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(HEADERS.replace("OTHER", "ONE"), ["AT105"], id="equal headers"),
        pytest.param(HEADERS, [], id="other headers"),
        pytest.param(
            """
version: 1
queues:
  a: {type: classic, max_priority: 5, dead_letter: {alarm: 1}}
routes: [{queue: a, priority: 9}]
""",
            ["AT111"],
            id="a priority above the queue's",
        ),
        pytest.param(
            """
version: 1
queues:
  a: {dead_letter: {exchange: d, at_least_once: false, alarm: 1}}
routes: [{queue: a}]
""",
            ["AT120"],
            id="at most once by its own word",
        ),
        pytest.param(
            """
version: 1
queues:
  a: {}
  a.dead: {max_length: 1000}
routes: [{queue: a}]
""",
            [],
            id="a home of the file's own with a bound",
        ),
        pytest.param(
            """
version: 1
queues:
  a: {}
  a.dead: {message_ttl: 1d, dead_letter: {exchange: gone, routing_key: x}}
routes: [{queue: a}]
""",
            ["AT107"],
            id="a home that leads to an exchange nobody has",
        ),
        pytest.param(
            """
version: 1
exchanges: {gone: }
queues:
  a: {}
  a.dead: {message_ttl: 1d, dead_letter: {exchange: gone, routing_key: x}}
routes: [{queue: a}]
""",
            ["AT121", "AT108"],
            id="a home that leads to an exchange that leads nowhere",
        ),
        pytest.param(
            """
version: 1
exchanges: {round: {type: direct}}
queues:
  wait: {consumed: false, message_ttl: 1s, bindings: [{exchange: round, routing_key: wait}],
    dead_letter: {exchange: round, routing_key: null}}
""",
            ["AT101"],
            id="a cycle by each message's own key",
        ),
        pytest.param(
            """
version: 1
exchanges: {e: {type: fanout}}
queues:
  a: {dead_letter: {alarm: 1}, bindings: [{exchange: e}]}
policies: {p: {pattern: ".*", apply_to: exchanges, definition: {alternate-exchange: e}}}
""",
            [],
            id="a policy for exchanges",
        ),
    ],
)
def test_edges_of_the_analyzers(text, expected):
    assert [code for code in codes(text) if code not in {"AT112", "AT114"}] == expected
