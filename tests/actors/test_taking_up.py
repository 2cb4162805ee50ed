"""A trial that begins anew in a resumed run finds its newest whole checkpoint by itself. No Ray is started."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs
import pytest
from tuner_runs import CMA, ZOT, space, write_space

from actors.trials.checkpoints import STATE_FILE
from actors.trials.trainable import TuneTrial
from distributed_tuner import oracles
from distributed_tuner.ledger.rows import ROW, StepRow
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.prepared import Prepared

NAME = "checkpoint_{:06d}"


@pytest.fixture(scope="module")
def prepared(reviews: Path) -> Prepared:
    tree = space({"kind": "analytic"}, [ZOT, CMA], budget={"queries": 400}, eval_every=100)
    return prepare(write_space(tree, reviews, "taken_up.yaml"), [])


class OneStep(TuneTrial):
    """Reports every advance, however short."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        """Begin the first trial as Tune has it begin, with its folder and no word of what is in it."""
        config = prepared.experiment.oracle
        oracle = TiledOracle(oracles.build(config), config.tile)
        self._oracle = SimpleNamespace(for_client=lambda name, priority: oracle)
        self._plans, self._tasks, self._proposers = prepared.plans, prepared.tasks, {}
        self._storage = SimpleNamespace(
            storage_filesystem=pyarrow.fs.LocalFileSystem(),
            experiment_fs_path=str(folder.parent),
            trial_fs_path=str(folder),
            current_checkpoint_index=-1,
        )
        self._begin({"trial": 0})

    def steps(self) -> list[tuple[int, float]]:
        """Run until the next report; return the steps in it and their losses."""
        rows = [ROW.validate_python(row) for row in self.step()["rows"]]
        return [(row.step, row.loss) for row in rows if isinstance(row, StepRow)]

    def save_as(self, number: int) -> None:
        """Save as Tune does."""
        folder = Path(self._storage.trial_fs_path, NAME.format(number))
        folder.mkdir(parents=True)
        self.save_checkpoint(str(folder))


@pytest.fixture(autouse=True)
def short_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.trials.trainable.REPORT_SECONDS", 0.0)


def test_it_goes_on_after_its_last_step_and_only_that_checkpoint_stays(prepared: Prepared, tmp_path: Path) -> None:
    first = OneStep(prepared, tmp_path / "trial")
    made = []
    for number in range(3):
        made += first.steps() or first.steps()
        first.save_as(number)
    expected = first.steps() or first.steps()
    torn = tmp_path / "trial" / NAME.format(3)
    first.save_as(3)
    (torn / STATE_FILE).write_bytes((torn / STATE_FILE).read_bytes()[:100])

    second = OneStep(prepared, tmp_path / "trial")
    went_on = second.steps() or second.steps()
    assert went_on == expected
    assert went_on[0][0] > made[-1][0]
    assert second._storage.current_checkpoint_index == 2, "Tune's next one is the fourth"
    assert [path.name for path in (tmp_path / "trial").iterdir()] == [NAME.format(2)]


def test_without_a_whole_checkpoint_it_begins_at_its_first_step(prepared: Prepared, tmp_path: Path) -> None:
    first = OneStep(prepared, tmp_path / "none")
    begun = first.steps() or first.steps()
    (tmp_path / "trial" / NAME.format(0)).mkdir(parents=True)
    again = OneStep(prepared, tmp_path / "trial")
    assert (again.steps() or again.steps()) == begun
    assert begun[0][0] <= 1


def test_the_first_step_is_reported_at_once_and_later_ones_together(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.trials.trainable.REPORT_SECONDS", 3600.0)
    trial = OneStep(prepared, tmp_path / "trial")
    before_first = trial.steps() or trial.steps()
    assert len(before_first) == 1
    assert len(trial.steps()) > 1, "all that is left, in one report"
    assert trial._trial.done
