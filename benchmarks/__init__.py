"""Measures amqflow beside its peers on one broker; `python -m benchmarks` runs it."""
