"""``python -m amqflow``: the command line without its script."""

from __future__ import annotations

from amqflow.cli import main

main()
