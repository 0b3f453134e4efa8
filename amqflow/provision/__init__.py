"""Makes a broker hold what a topology says."""

from amqflow.provision.apply import Action, Change, apply

__all__ = ["Action", "Change", "apply"]
