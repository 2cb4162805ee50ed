"""Ray's private names that have no public counterpart, one function each, with the reason."""


def draining_nodes() -> set[str]:
    """Return the ids of the nodes that are being drained. No public function does."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def bootstrap_address(text: str) -> str:
    """Return HOST:PORT of the cluster that ``auto`` means here, "" where there is none.

    ``ray.init`` would join it: a run checks first whether it can be joined at all.
    """
    from ray._private import services

    return services.canonicalize_bootstrap_address(text) or ""


def enable_clusters(variable: str) -> None:
    """Have Ray read anew whether it listens beyond the loopback. It reads the variable once, when it is imported."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(variable, True)
