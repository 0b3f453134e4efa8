"""One module per contestant: its task, its publisher, its worker. Each runs in its own process."""
