"""Settings of the budget of one trial."""

from pydantic import Field

from distributed_tuner.config.base import Config


class BudgetConfig(Config):
    """Hard limits of one trial. Reserved before they are spent, never exceeded; what is left out is not limited.

    Everything that steers or selects counts: train and dev. Scoring the selected prompt on test, and the manual prompt,
    is measurement: not bought from a budget, and reported beside it.
    """

    queries: int | None = Field(2000, ge=1)
    """Queries: one candidate scored on one batch of examples."""
    forwards: int | None = Field(None, ge=1)
    """Forwards: one candidate on one example."""
    tokens: int | None = Field(None, ge=1)
    """Prompt and text tokens of all forwards."""
    seconds: float | None = Field(None, gt=0)
    """Wall-clock seconds from the trial's first query on; a request still running at the limit is given up."""
    usd: float | None = Field(None, gt=0)
    """US dollars at oracle.price."""
