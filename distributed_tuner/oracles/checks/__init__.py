"""Sanity checks of an oracle: parity, precision, packed rows against whole ones."""
