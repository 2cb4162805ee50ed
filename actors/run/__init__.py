"""A whole run: start-up, sanity check, final scores."""
