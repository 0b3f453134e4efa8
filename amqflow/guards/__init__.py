"""What keeps a system within its bounds; large bodies and results are the first of it."""
