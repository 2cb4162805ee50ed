"""Imports nevergrad and repairs what breaks it here (seen in 1.0.12). Using it is left to ``nevergrad.py``."""

from importlib import import_module
from typing import Any

import numpy as np


def import_nevergrad() -> Any:
    """Return the module ``nevergrad``; the repairs are the same however often they are made."""
    nevergrad: Any = import_module("nevergrad")
    # A background thread (members that wrap scipy) whose last question stays unanswered would keep a finished process
    # from exiting.
    recaster: Any = import_module("nevergrad.optimization.recaster")
    recaster._MessagingThread.daemon = True
    # The surrogate that NGOpt fits in small dimensions calls float() on arrays of one element, which numpy 2.4 refuses.
    metamodel: Any = import_module("nevergrad.optimization.metamodel")
    metamodel.float = _as_float
    return nevergrad


def _as_float(value: Any) -> float:
    """Return the number that ``value`` is or holds as its only element."""
    return float(np.asarray(value).item())
