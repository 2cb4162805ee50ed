"""Pure functions of numpy arrays, named as in the papers. State, randomness and models belong to the callers."""
