"""Conformance suite of heads."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from distributed_tuner import heads
from distributed_tuner.config.head import CustomHeadConfig, HeadConfig, LabelWordsHeadConfig
from distributed_tuner.custom import path_of
from distributed_tuner.errors import HeadError, TunerError

CLASSES, WORDS = 3, 50

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def rows(count: int = 36, seed: int = 0, signal: float = 2.0) -> Rows:
    """Answers whose words lean towards the label, with the first label word said too often."""
    stream = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    lean = np.random.default_rng(99).standard_normal((CLASSES, WORDS))
    features = stream.standard_normal((count, WORDS)) + signal * lean[labels]
    features[:, 0] += 4.0
    return features.astype(np.float32), labels


REFERENCES = rows(5, seed=7, signal=0.0)[0]


def loss(chances: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    return float(-np.log(chances[np.arange(len(labels)), labels]).mean())


class HeadSuite:
    """Tests of one head, on made-up answers of 50 words in 3 classes.

    part: its class. settings: what it is made with beside what a run gives.
    """

    part: ClassVar[type[heads.Head]]
    settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def config(self) -> HeadConfig:
        """Return the settings that the tests are of: those of ``part``."""
        words = WORDS if self.part.words_needed else 0
        return CustomHeadConfig(import_path=path_of(self.part), settings=dict(self.settings), words=words)

    def fits_nothing(self, config: HeadConfig) -> bool:
        """Tell whether it reads answers without being fitted."""
        return False

    def test_probabilities_sum_to_one_and_are_positive(self, config: HeadConfig) -> None:
        x, y = rows()
        head = heads.build(config, CLASSES).fit(x, y, REFERENCES)
        for chances in (
            head.predict(rows(20, seed=1)[0]),
            heads.build(config, CLASSES).leave_one_out(x, y, REFERENCES),
        ):
            assert chances.shape[1] == CLASSES
            assert np.allclose(chances.sum(axis=1), 1.0)
            assert (chances > 0).all()

    def test_a_constant_of_a_row_changes_nothing(self, config: HeadConfig) -> None:
        x, y = rows()
        shift = np.linspace(-5, 5, len(x))[:, None]
        head = heads.build(config, CLASSES).fit(x, y, REFERENCES)
        moved = heads.build(config, CLASSES).fit(x + shift, y, REFERENCES + 3.0)
        assert np.allclose(head.predict(x), moved.predict(x - shift), atol=1e-5)

    def test_what_is_saved_predicts_the_same_bits(self, config: HeadConfig) -> None:
        x, y = rows()
        head = heads.build(config, CLASSES).fit(x, y, REFERENCES)
        state = head.state_dict()
        again = heads.restore(config, CLASSES, state)
        assert np.array_equal(head.predict(x), again.predict(x))
        for value in state.values():
            value[...] = 0
        assert np.array_equal(head.predict(x), again.predict(x)), "a state is a copy"

    @pytest.mark.parametrize("damage", ["missing", "scalar", "longer", "not finite", "one number"])
    def test_a_state_of_another_head_is_refused(self, config: HeadConfig, damage: str) -> None:
        x, y = rows()
        state = heads.build(config, CLASSES).fit(x, y, REFERENCES).state_dict()
        needed = heads.build(config, CLASSES).shapes
        assert set(needed) <= set(state)
        for name in needed:
            array = state[name]
            others = {
                "scalar": np.zeros(()),
                "longer": np.concatenate([array, array[:1]]),
                "not finite": np.full_like(array, np.nan),
                "one number": np.zeros((1,) * array.ndim),
            }
            rest = {one: value for one, value in state.items() if one != name}
            damaged = rest if damage == "missing" else {**rest, name: others[damage]}
            if damaged.get(name) is not None and damaged[name].shape == array.shape and damage == "one number":
                continue  # a scale is one number
            with pytest.raises(HeadError, match="take the files of one run"):
                heads.restore(config, CLASSES, damaged, x.shape[1])

    def test_a_row_without_an_answer_is_nan_and_changes_no_fit(self, config: HeadConfig) -> None:
        x, y = rows()
        broken, labels = np.vstack([x, x[:1]]), np.append(y, 2)
        broken[-1, 3 % CLASSES] = np.nan
        whole = heads.build(config, CLASSES).fit(x, y, REFERENCES)
        head = heads.build(config, CLASSES).fit(broken, labels, REFERENCES)
        assert np.array_equal(head.predict(x), whole.predict(x))
        assert np.isnan(head.predict(broken)[-1]).all()
        out = heads.build(config, CLASSES).leave_one_out(broken, labels, REFERENCES)
        assert np.isnan(out[-1]).all() and np.isfinite(out[:-1]).all()

    def test_more_words_than_rows_and_few_rows(self, config: HeadConfig) -> None:
        x, y = rows(2 * CLASSES)
        assert np.isfinite(heads.build(config, CLASSES).fit(x, y, REFERENCES).predict(x)).all()

    def test_shapes_that_do_not_go_together_are_refused(self, config: HeadConfig) -> None:
        x, y = rows(6)
        for bad, labels in ((x[:5], y), (x[:, :2], y), (x[0], y), (x, y + 1)):
            with pytest.raises(TunerError):
                heads.build(config, CLASSES).fit(bad, labels, REFERENCES)

    def test_a_head_that_is_not_fitted_says_so(self, config: HeadConfig) -> None:
        if self.fits_nothing(config):
            pytest.skip("nothing is fitted")
        with pytest.raises(HeadError, match="call fit"):
            heads.build(config, CLASSES).predict(rows()[0])


class FittedHeadSuite(HeadSuite):
    """Tests of one head that learns from labels, in addition."""

    def test_a_fit_beats_the_label_words_where_they_lean(self, config: HeadConfig) -> None:
        x, y = rows()
        new, truth = rows(300, seed=5)
        head = heads.build(config, CLASSES).fit(x, y)
        plain = heads.build(LabelWordsHeadConfig(kind="label_words"), CLASSES).fit(x, y)
        assert loss(head.predict(new), truth) < loss(plain.predict(new), truth)

    def test_leave_one_out_is_about_what_new_rows_show(self, config: HeadConfig) -> None:
        x, y = rows(60)
        new, truth = rows(600, seed=5)
        out = loss(heads.build(config, CLASSES).leave_one_out(x, y), y)
        assert out == pytest.approx(loss(heads.build(config, CLASSES).fit(x, y).predict(new), truth), abs=0.25)

    def test_leave_one_out_does_not_see_the_row_itself(self, config: HeadConfig) -> None:
        x, y = rows(30, signal=0.0)
        out = heads.build(config, CLASSES).leave_one_out(x, y)
        assert loss(out, y) > 0.9 * np.log(CLASSES), "noise is not learnt"

    def test_constant_features_leave_chance(self, config: HeadConfig) -> None:
        x, y = np.zeros((12, WORDS), np.float32), np.arange(12) % CLASSES
        assert np.allclose(heads.build(config, CLASSES).fit(x, y).predict(x), 1 / CLASSES, atol=0.35)

    def test_an_unbalanced_task_is_fitted_too(self, config: HeadConfig) -> None:
        x, y = rows(60)
        kept = np.flatnonzero((y != 0) | (np.arange(60) < 9))
        chances = heads.build(config, CLASSES).fit(x[kept], y[kept]).predict(x)
        plain = heads.build(LabelWordsHeadConfig(kind="label_words"), CLASSES).predict(x)
        assert np.isfinite(chances).all()
        assert loss(chances[kept], y[kept]) < loss(plain[kept], y[kept])

    def test_a_missing_class_is_refused(self, config: HeadConfig) -> None:
        x, y = rows(12)
        with pytest.raises(HeadError, match="label 2 has 0"):
            heads.build(config, CLASSES).fit(x, np.minimum(y, 1))
