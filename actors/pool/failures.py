"""Unwrapping of this package's errors from Ray's exceptions."""

from distributed_tuner import errors
from distributed_tuner.errors import OracleError, TunerError

PREFIX = f"{errors.__name__}."


def cause_of(error: Exception) -> TunerError:
    """Return our own error behind one of Ray's, or an OracleError that tells what Ray said."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TunerError):
        return cause
    lines = str(error).strip().splitlines() or [type(error).__name__]
    for line in reversed(lines):
        if line.startswith(PREFIX):
            kind, _, message = line.removeprefix(PREFIX).partition(": ")
            known = getattr(errors, kind, OracleError)
            return known(message) if isinstance(known, type) and issubclass(known, TunerError) else OracleError(message)
    return OracleError(f"an oracle failed: {lines[-1]}; see the oracle's log in Ray")
