"""Settings: what may be set, by Celery's lower-case names, and which source wins.

Pure: knows no application. ``model`` says what a setting is, ``celery`` what became of the names
that Celery has and we do not, ``sources`` reads files and the environment, ``configuration`` lays
the sources over each other.
"""

from __future__ import annotations

from amqflow.logs import redact
from amqflow.settings.configuration import PRECEDENCE, Configuration, Source
from amqflow.settings.model import Settings

__all__ = ["PRECEDENCE", "Configuration", "Settings", "Source", "redact"]
