"""Fixtures: each optimizer in turn."""

from typing import Any

import pytest
from local_trials import OPTIMIZERS


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each optimizer's settings in turn."""
    return OPTIMIZERS[request.param]
