"""Makes a broker hold what a topology says."""

from amqflow.provision.apply import Action, Change, apply
from amqflow.provision.check import Differences, check, differences

__all__ = ["Action", "Change", "Differences", "apply", "check", "differences"]
