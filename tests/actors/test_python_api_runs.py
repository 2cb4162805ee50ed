"""tune() on a Ray pool: the same numbers as in the calling process, callbacks in the driver, a result that predicts."""

import numpy as np
import pytest

from distributed_tuner import Analytic, Callback, EvaluationEvent, tune

TEXTS = [f"a {word} {noun}" for word in ("good", "bad") for noun in ("film", "plot", "cast", "story")]
LABELS = ["good"] * 4 + ["bad"] * 4


class Heard(Callback):
    def __init__(self) -> None:
        self.losses: list[float | None] = []

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.losses.append(event.dev_loss)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_pool_gives_the_bits_of_the_calling_process() -> None:
    heard = Heard()
    given = {"budget": 60, "progress": False, "settings": {"significance": None}}
    pooled = tune(Analytic(), (TEXTS, LABELS), pool=2, callbacks=[heard], **given)
    here = tune(Analytic(), (TEXTS, LABELS), **given)
    assert pooled.status == "done"
    np.testing.assert_array_equal(pooled.prompt.rows, here.prompt.rows)
    assert heard.losses == here.history["dev_loss"].tolist()
    np.testing.assert_array_equal(pooled.predict_proba(TEXTS), here.predict_proba(TEXTS))
