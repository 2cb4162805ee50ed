"""A page that follows runs while they work, and may stop them: ``python tune.py watch``. Reads only what runs write."""
