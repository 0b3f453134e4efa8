"""Acks batched by run, against a model of the broker that refuses what RabbitMQ refuses."""

from hypothesis import given
from hypothesis import strategies as st

from amqflow.transport import AckBatch


class BrokerModel:
    """RabbitMQ's rule: an ack must name an outstanding tag; 406 otherwise."""

    def __init__(self):
        self.outstanding = set()

    def ack(self, tag, multiple):
        assert tag in self.outstanding, f"406 unknown delivery tag {tag}"
        settled = {known for known in self.outstanding if known <= tag} if multiple else {tag}
        self.outstanding -= settled
        return settled


@given(st.lists(st.sampled_from(["deliver", "ack", "nack", "flush"]), max_size=200), st.data())
def test_every_ack_settles_just_what_was_acked(steps, data):
    batch, broker = AckBatch(), BrokerModel()
    open_tags, wanted, settled, last = [], set(), set(), 0
    for step in [*steps, "flush"]:
        if step == "deliver":
            last += 1
            broker.outstanding.add(last)
            batch.delivered(last)
            open_tags.append(last)
        elif step == "ack" and open_tags:
            tag = open_tags.pop(data.draw(st.integers(0, len(open_tags) - 1)))
            assert batch.ack(tag)
            assert not batch.ack(tag)
            wanted.add(tag)
        elif step == "nack" and open_tags:
            tag = open_tags.pop(data.draw(st.integers(0, len(open_tags) - 1)))
            assert batch.drop(tag)
            broker.outstanding.discard(tag)
        elif step == "flush":
            for tag, multiple in batch.take():
                settled |= broker.ack(tag, multiple)
            assert settled == wanted
    assert len(batch) == len(open_tags)


def test_a_run_from_the_lowest_is_one_frame_and_a_gap_is_respected():
    batch = AckBatch()
    for tag in range(1, 8):
        batch.delivered(tag)
    for tag in (1, 2, 3, 5, 7):
        batch.ack(tag)
    assert batch.take() == [(3, True), (5, False), (7, False)]
    batch.ack(4)
    batch.ack(6)
    assert batch.take() == [(6, True)]
