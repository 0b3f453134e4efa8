from __future__ import annotations

import pytest

from amqflow.errors import TopologyError
from amqflow.topology import BrokerFacts, QueueNeeds, derive

OLD = BrokerFacts((3, 10, 8))
NEW = BrokerFacts((4, 0, 5))
STRICT = BrokerFacts((4, 3, 0))


def shop(facts=OLD, **options):
    queues = {"default": QueueNeeds(), "email": QueueNeeds(uses_priority=True, prefetch=20)}
    return derive("shop", queues, facts, **options)


def test_a_plain_queue_is_quorum_and_dead_letters_at_least_once():
    assert shop().queue("default").declare_arguments() == {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "amqflow.shop.dead",
        "x-dead-letter-routing-key": "default",
        "x-dead-letter-strategy": "at-least-once",
    }


def test_a_queue_with_priorities_is_classic_where_quorum_queues_have_none():
    expected = {
        "x-queue-type": "classic",
        "x-max-priority": 10,
        "x-dead-letter-exchange": "amqflow.shop.dead",
        "x-dead-letter-routing-key": "email",
    }
    assert shop().queue("email").declare_arguments() == expected
    assert shop(NEW).queue("email").declare_arguments() == expected
    assert shop(STRICT).queue("email").declare_arguments()["x-queue-type"] == "quorum"
    assert shop().queue("email").prefetch == 20


def test_dead_letters_are_kept_without_limit_unless_asked():
    assert shop().queue("email.dead").declare_arguments() == {"x-queue-type": "quorum"}
    bounded = shop(dead_max_age=3600, dead_max_length=9).queue("email.dead")
    assert bounded.declare_arguments() == {
        "x-queue-type": "quorum",
        "x-message-ttl": 3_600_000,
        "x-max-length": 9,
    }


def test_from_4_0_on_no_limit_has_to_be_said():
    topology = shop(NEW)
    limits = {queue.name: queue.delivery_limit for queue in topology.queues}
    assert limits.pop("email") is None, "a classic queue takes no limit"
    assert limits.pop("default.suspect") == 23
    assert limits.pop("email.suspect") == 23
    assert set(limits.values()) == {-1}
    for queue in shop(OLD).queues:
        assert queue.delivery_limit in {None, 23}, "-1 on 3.10 drops on the first return"


def test_suspects_dead_letter_to_the_home_of_their_queue():
    topology = shop(poison_limit=5)
    arguments = topology.queue("email.suspect").declare_arguments()
    assert arguments["x-delivery-limit"] == 25
    assert arguments["x-dead-letter-routing-key"] == "email"
    assert topology.queue("email.suspect").prefetch == 1
    (binding,) = (b for b in topology.bindings if b.destination == "email.dead")
    assert (binding.source, binding.routing_key) == ("amqflow.shop.dead", "email")


def test_the_application_gets_a_copy_of_what_the_broker_drops():
    copies = [b for b in shop().bindings if b.destination == "amqflow.shop.dropped"]
    keys = {b.routing_key for b in copies if b.source == "amqflow.shop.dead"}
    assert keys == {"default", "email"}


#: The queues an application has besides its tasks'.
OWN = ("completions", "dropped", "forward")


def test_every_delayed_destination_has_its_way_out_of_the_ladder():
    out = {b.destination for b in shop().bindings_by_source["amqflow.delay.exit"]}
    assert out == {"default", "email", *(f"amqflow.shop.{own}" for own in OWN)}


@pytest.mark.parametrize("facts", [OLD, NEW, STRICT])
def test_every_end_of_a_binding_and_every_dead_letter_exchange_exists(facts):
    topology = shop(facts)
    for binding in topology.bindings:
        topology.exchange(binding.source)
        if binding.destination_kind == "queue":
            topology.queue(binding.destination)
        else:
            topology.exchange(binding.destination)
    for queue in topology.queues:
        if queue.dead_letter:
            topology.exchange(queue.dead_letter.exchange)
    for exchange in topology.exchanges:
        if "alternate-exchange" in exchange.arguments:
            topology.exchange(exchange.arguments["alternate-exchange"])


def test_every_part_says_what_it_is_for():
    topology = shop()
    assert all(part.why for part in (*topology.exchanges, *topology.queues, *topology.bindings))


def test_two_applications_share_what_belongs_to_the_vhost():
    other = derive("mail", {"letters": QueueNeeds()}, OLD)
    both = shop().merge(other)
    assert len(both.queues) == len(shop().queues) + 3 + len(OWN)
    with pytest.raises(TopologyError, match=r"amqflow\.delay\.0.*message_ttl: 0\.1 and 0\.5"):
        shop().merge(derive("mail", {}, OLD, resolution=0.5))


def test_a_queue_whose_name_leaves_no_room_is_refused():
    derive("shop", {"q" * 199: QueueNeeds()}, OLD)
    with pytest.raises(TopologyError, match=r"takes 200 bytes .* 199 are left"):
        derive("shop", {"q" * 200: QueueNeeds()}, OLD)
