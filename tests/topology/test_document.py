"""Reading YAML: places, bounds, and what YAML 1.1 makes of innocent words."""

import time

import pytest

from amqflow.topology.document import MAX_BYTES, MAX_DEPTH, read, read_text
from amqflow.topology.positions import Place, TopologyFileError


def refusal(raw):
    """Return the one sentence a text or bytes are refused with."""
    with pytest.raises(TopologyFileError) as caught:
        read(raw if isinstance(raw, bytes) else raw.encode(), "f.yaml")
    return str(caught.value)


def said(text):
    """Return the problems a text is read with all the same."""
    return [str(problem) for problem in read_text(text, "f.yaml").problems]


def test_every_value_knows_its_place_and_its_words():
    document = read_text("a:\n  b: [1, {c: 2h}]\n'd e': &x {f: yes-man}\ng: *x\n", "f.yaml")
    assert document.data == {
        "a": {"b": [1, {"c": "2h"}]},
        "d e": {"f": "yes-man"},
        "g": {"f": "yes-man"},
    }
    positions = document.positions
    assert positions.of(("a", "b")) == Place(2, 3)
    assert positions.of(("a", "b", 0)) == Place(2, 7)
    assert positions.of(("a", "b", 1, "c")) == Place(2, 11)
    assert positions.of(("g",)) == Place(4, 1)
    assert positions.of(("g", "f")) == Place(3, 12), "an alias' content stands at its anchor"
    assert positions.texts["a", "b", 1, "c"] == "2h"
    assert positions.show(("a", "nothing", 5)) == "f.yaml:1:1"


def test_anchors_aliases_and_merges_are_read():
    text = """
base: &base {type: classic, n: 1}
other: &other {n: 2, m: 3}
one: {<<: *base, n: 5}
both: {<<: [*base, *other]}
same: *base
"""
    data = read_text(text, "f").data
    assert data["one"] == {"type": "classic", "n": 5}
    assert data["both"] == {"type": "classic", "n": 1, "m": 3}
    assert data["same"] == data["base"]


def test_a_bomb_is_refused_before_it_goes_off():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    started = time.monotonic()
    assert refusal("\n".join(lines)).startswith("f.yaml:6:5: its aliases expand to more than")
    assert time.monotonic() - started < 20


def test_a_bomb_of_merges_is_refused_too():
    lines = ["a0: &a0 {k0: 1}"]
    lines += [
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}" for n in range(1, 30)
    ]
    assert "its aliases expand to more than" in refusal("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]\n", "f.yaml:1:8: *a contains itself"),
        ("a: &a {b: *a}\n", "f.yaml:1:11: *a contains itself"),
        ("a: *b\n", "f.yaml:1:4: no anchor &b before *b"),
        ("a: " + "[" * 60 + "]" * 60, f"nests deeper than {MAX_DEPTH} levels"),
        ("a: " + "[" * 200_000, f"nests deeper than {MAX_DEPTH} levels"),
        ("\n".join(" " * n + "a:" for n in range(60)), f"nests deeper than {MAX_DEPTH} levels"),
        ("[" + "0," * 500_000 + "]", "more than 400000 values"),
        ("a: [b\n", "f.yaml:2:1: is no YAML"),
        ("a: 'b\n", "is no YAML"),
        ("a: b: c\n", "f.yaml:1:5: is no YAML: mapping values are not allowed"),
        ("a:\n\tb: 1\n", "f.yaml:2:1: a tab; YAML indents with spaces"),
        ("a:\n  b: 1\n\tc: 2\n", "f.yaml:3:1: a tab"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document starts here"),
        ("? [a]\n: 1\n", "f.yaml:1:3: a list or mapping cannot be a key"),
        ("? {a: 1}\n: 1\n", "a list or mapping cannot be a key"),
        ("a: \x07\n", "f.yaml:1:4: character U+0007 has no place in YAML"),
        (b"a: \xff\n", "f.yaml:1:4: byte 0xff is no UTF-8"),
        ("ключ: é\n".encode() + b"x: \xe9\n", "f.yaml:2:4: byte 0xe9"),
        (b"\xff\xfea\0:\0", "f.yaml: is UTF-16"),
        (b"\x7fELF\x02\x01\0\0", "f.yaml: is a binary file"),
        (b"a" * (MAX_BYTES + 1), "f.yaml: is larger than 4 MiB"),
        ("%YAML 9.0\n---\na: 1\n", "is no YAML"),
        ("@a: 1\n", "f.yaml:1:1: is no YAML"),
    ],
)
def test_what_is_no_yaml_or_too_much_is_refused_with_its_place(text, says):
    assert says in refusal(text)


def test_depth_by_aliases_counts_too():
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))
    assert "nests deeper" in refusal(text)


def test_a_byte_order_mark_is_no_content():
    document = read("version: 1\n".encode("utf-8-sig"), "f")
    assert document.data == {"version": 1}
    assert document.positions.of(("version",)) == Place(1, 1)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~\n"])
def test_nothing_is_none(text):
    assert read_text(text, "f").data is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: no\n", 'f.yaml:1:4: a: YAML reads no as false: write false, or "no" for text'),
        ("a: On\n", 'YAML reads On as true: write true, or "On" for text'),
        ("a: [off]\n", 'f.yaml:1:5: a[0]: YAML reads off as false: write false, or "off"'),
        ("no: 1\n", 'f.yaml:1:1: YAML reads no as false: write false, or "no" for text'),
        ("a: 1:30\n", 'a: YAML reads 1:30 as the number 90: write "1:30" for text'),
        ("a: 1:30.5\n", "YAML reads 1:30.5 as the number 90.5"),
        ("a: 010\n", 'YAML reads 010 as octal, the number 8: write 8 or 10, or "010" for text'),
        ("a: {5: 1}\n", 'f.yaml:1:5: a: YAML reads the key 5 as int: write "5"'),
        ("true: 1\n", 'YAML reads the key true as bool: write "true"'),
        ("~: 1\n", "YAML reads the key ~ as null"),
        ("a: 1\na: 2\n", "f.yaml:2:1: a: is here twice, first at 1:1; keep one"),
        ("a: {b: 1, c: 2, 'b': 3}\n", "f.yaml:1:17: a.b: is here twice, first at 1:5; keep one"),
        ("a: !!python/object/apply:os.system [x]\n", "tag !!python/object/apply:os.system is not"),
        ("a: !mine x\n", "tag !mine is not allowed"),
        ("a: !!binary aGk=\n", "tag !!binary is not allowed"),
        ("a: !!set {b}\n", "tag !!set is not allowed"),
        ("a: {<<: 5}\n", "f.yaml:1:9: a: << takes a mapping"),
        ("a: {<<: [1]}\n", "<< takes a mapping"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_looks_is_told(text, says):
    (found,) = said(text)
    assert says in found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ('"no"', "no"),
        ("'1:30'", "1:30"),
        ("0", 0),
        ("-5", -5),
        ("0x1F", 31),
        ("1_000", 1000),
        ("2.5", 2.5),
        ("1e3", "1e3"),
        ("09", "09"),
        ("2026-11-24", "2026-11-24"),
        ("=", "="),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        ("y", "y"),
        ("n", "n"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_plain_values_are_what_they_look_like(text, value):
    document = read_text(f"a: {text}\n", "f")
    assert document.data == {"a": value}
    assert not document.problems


def test_a_number_that_is_none_is_told():
    (found,) = said("a: !!int five\n")
    assert "'five' is no number" in found


def test_many_problems_are_all_kept_and_few_of_them_shown():
    text = "".join(f"k{n}: no\n" for n in range(100))
    problems = read_text(text, "f").problems
    assert len(problems) == 100
    shown = str(TopologyFileError(problems)).splitlines()
    assert shown[-1] == "… and 75 more problems"
    assert len(shown) == 26
