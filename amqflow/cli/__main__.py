"""``python -m amqflow.cli``: the command line without its script."""

from amqflow.cli import main

main()
