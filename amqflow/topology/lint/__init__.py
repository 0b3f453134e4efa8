"""Dangers a broker would take without a word, each found by a small analyzer with a stable code."""

from amqflow.topology.lint.analyzers import ANALYZERS
from amqflow.topology.lint.finding import Analyzer, Finding, Hit, Level, Subject
from amqflow.topology.lint.run import lint

__all__ = ["ANALYZERS", "Analyzer", "Finding", "Hit", "Level", "Subject", "lint"]
