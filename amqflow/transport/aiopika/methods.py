"""AMQP methods with names as RabbitMQ takes them: any UTF-8 of at most 255 bytes.

pamqp holds names to the grammar of the specification (1.2: letters, digits and some signs),
when a method is made and again when it is written. RabbitMQ does not; queues named ``größe`` or
``user*`` exist. Methods that arrive are not checked by pamqp.
"""

from __future__ import annotations

from pamqp import commands


class _AnyName:
    """Leaves the names to ``check_name``, which says in a sentence what is wrong."""

    def validate(self) -> None:
        """Accept what pamqp can write (it counts the bytes then)."""


class ExchangeDeclare(_AnyName, commands.Exchange.Declare):
    """``exchange.declare``."""


class ExchangeDelete(_AnyName, commands.Exchange.Delete):
    """``exchange.delete``."""


class ExchangeBind(_AnyName, commands.Exchange.Bind):
    """``exchange.bind``."""


class ExchangeUnbind(_AnyName, commands.Exchange.Unbind):
    """``exchange.unbind``."""


class QueueDeclare(_AnyName, commands.Queue.Declare):
    """``queue.declare``."""


class QueueBind(_AnyName, commands.Queue.Bind):
    """``queue.bind``."""


class QueueUnbind(_AnyName, commands.Queue.Unbind):
    """``queue.unbind``."""


class QueuePurge(_AnyName, commands.Queue.Purge):
    """``queue.purge``."""


class QueueDelete(_AnyName, commands.Queue.Delete):
    """``queue.delete``."""


class BasicConsume(_AnyName, commands.Basic.Consume):
    """``basic.consume``."""


class BasicPublish(_AnyName, commands.Basic.Publish):
    """``basic.publish``."""
