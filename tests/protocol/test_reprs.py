"""Texts of arguments stay short and never fail, whatever the arguments are."""

from __future__ import annotations

import pytest

from amqflow.protocol import short_repr


class Rude:
    def __repr__(self):
        raise RuntimeError("no")


def test_short_values_are_shown_as_they_are():
    assert short_repr(("a@b.c", 5, {"n": [1.5, None]})) == "('a@b.c', 5, {'n': [1.5, None]})"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        ["é" * 500] * 500,
        list(range(10**6)),
        {n: [n] * 99 for n in range(999)},
        [10**5000],
    ],
)
def test_long_values_are_cut(value):
    assert len(short_repr(value, 100).encode()) <= 100


@pytest.mark.parametrize("value", [Rude(), [Rude()], {"a": Rude()}])
def test_an_object_that_cannot_show_itself_is_named(value):
    assert "<" in short_repr(value)
