"""Models in this process: loading, packing, attention and the fast path."""
