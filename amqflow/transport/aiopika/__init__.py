"""The seam on aio-pika."""

from amqflow.transport.aiopika.transport import AioPikaTransport

__all__ = ["AioPikaTransport"]
