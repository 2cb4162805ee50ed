"""Everything that touches Ray. Plain classes live in ``distributed_tuner`` and are wrapped here."""
