"""A trial whose process dies while Tune makes it ready for that trial."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import CMA, RANDOM, ZOT, numbers, run_alone, run_space, space, write_space

from actors.trials.trainable import TuneTrial

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.extended]
"""A trial that is killed at work stands for this."""


def dying_once(marker: Path) -> type[TuneTrial]:
    """Return trials of which the first process that is to run another dies of it. Made here, so that it travels."""

    class Dying(TuneTrial):
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().reset_config(new_config)

    return Dying


def test_the_trial_is_run_by_another(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = space({"kind": "analytic"}, [ZOT, RANDOM, CMA], max_concurrent_trials=1)
    path = write_space(config, reviews, "resets.yaml")
    marker = tmp_path / "died"
    monkeypatch.setattr("actors.trials.tuner.TuneTrial", dying_once(marker))
    done = run_space(path, tmp_path / "run")
    assert marker.exists()
    assert done.status == "done"
    assert {row.status for row in done.ledger.trial_ends} == {"done"}
    assert numbers(done.ledger) == numbers(run_alone(path))
