"""How long a test waits for another process before it calls it hung: no limit on a slow machine's speed."""

PATIENCE = 900.0  # seconds
