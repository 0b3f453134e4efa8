"""What an application tells its workers: Celery's ``app.control``."""

from amqflow.control.control import Control

__all__ = ["Control"]
