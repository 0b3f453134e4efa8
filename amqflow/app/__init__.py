"""The application: wires settings, tasks, stores and transports; imports no runner."""

from amqflow.app.application import DEFAULT_BROKER, App, Hosted

__all__ = ["DEFAULT_BROKER", "App", "Hosted"]
