"""Ids: random ones that are real UUIDs, and derived ones that a rerun makes again."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from amqflow.protocol import derived_id, new_id

KINDS = st.sampled_from(["link", "errback", "chain", "body"])


def test_a_new_id_is_a_random_uuid_in_its_usual_text():
    for _ in range(500):
        text = new_id()
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_new_ids_differ():
    assert len({new_id() for _ in range(10_000)}) == 10_000


@given(st.text(), KINDS, st.integers(0, 99))
def test_a_derived_id_is_the_same_each_time(parent, kind, ordinal):
    derived = derived_id(parent, kind, ordinal)
    assert derived == derived_id(parent, kind, ordinal)
    assert uuid.UUID(derived).version == 5


@given(
    st.tuples(st.text(), KINDS, st.integers(0, 99)),
    st.tuples(st.text(), KINDS, st.integers(0, 99)),
)
def test_different_calls_derive_different_ids(one, other):
    assert (derived_id(*one) == derived_id(*other)) == (one == other)


def test_derived_ids_never_change_between_releases():
    assert derived_id("an-id", "link", 2) == "771f3952-bb2e-5dad-87d2-d55fdc72ab15"
