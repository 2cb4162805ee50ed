"""What every head promises, asked of each of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from distributed_tuner import heads
from distributed_tuner.config.head import (
    AffineHeadConfig,
    AutoHeadConfig,
    BatchHeadConfig,
    BiasHeadConfig,
    CentroidHeadConfig,
    ContextualHeadConfig,
    DomainHeadConfig,
    HeadConfig,
    LabelWordsHeadConfig,
    NeighboursHeadConfig,
    VocabularyHeadConfig,
)
from distributed_tuner.errors import ConfigError, HeadError, TunerError

CLASSES, WORDS = 3, 50
CONFIGS: list[HeadConfig] = [
    LabelWordsHeadConfig(kind="label_words"),
    BiasHeadConfig(kind="bias"),
    BiasHeadConfig(kind="bias", strength=0.1),
    AffineHeadConfig(kind="affine"),
    VocabularyHeadConfig(kind="vocabulary"),
    VocabularyHeadConfig(kind="vocabulary", strength=1.0),
    NeighboursHeadConfig(kind="knn"),
    NeighboursHeadConfig(kind="knn", neighbours=3),
    CentroidHeadConfig(kind="centroid"),
    BatchHeadConfig(kind="batch"),
    ContextualHeadConfig(kind="contextual"),
    DomainHeadConfig(kind="domain"),
]
LABELLED = [config for config in CONFIGS if config.kind in ("bias", "affine", "vocabulary", "knn", "centroid")]
every = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
fitted = pytest.mark.parametrize("config", LABELLED, ids=lambda config: config.kind)

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


@every
def test_probabilities_sum_to_one_and_are_positive(config: HeadConfig) -> None:
    x, y = rows()
    head = heads.build(config, CLASSES).fit(x, y, REFERENCES)
    for chances in (head.predict(rows(20, seed=1)[0]), heads.build(config, CLASSES).leave_one_out(x, y, REFERENCES)):
        assert chances.shape[1] == CLASSES
        assert np.allclose(chances.sum(axis=1), 1.0)
        assert (chances > 0).all()


@every
def test_a_constant_of_a_row_changes_nothing(config: HeadConfig) -> None:
    x, y = rows()
    shift = np.linspace(-5, 5, len(x))[:, None]
    head = heads.build(config, CLASSES).fit(x, y, REFERENCES)
    moved = heads.build(config, CLASSES).fit(x + shift, y, REFERENCES + 3.0)
    assert np.allclose(head.predict(x), moved.predict(x - shift), atol=1e-5)


@every
def test_what_is_saved_predicts_the_same_bits(config: HeadConfig) -> None:
    x, y = rows()
    head = heads.build(config, CLASSES).fit(x, y, REFERENCES)
    state = head.state_dict()
    again = heads.restore(config, CLASSES, state)
    assert np.array_equal(head.predict(x), again.predict(x))
    for value in state.values():
        value[...] = 0
    assert np.array_equal(head.predict(x), again.predict(x)), "a state is a copy"


@every
@pytest.mark.parametrize("damage", ["missing", "scalar", "longer", "not finite", "one number"])
def test_a_state_of_another_head_is_refused(config: HeadConfig, damage: str) -> None:
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


@every
def test_a_row_without_an_answer_is_nan_and_changes_no_fit(config: HeadConfig) -> None:
    x, y = rows()
    broken, labels = np.vstack([x, x[:1]]), np.append(y, 2)
    broken[-1, 3 % CLASSES] = np.nan
    whole = heads.build(config, CLASSES).fit(x, y, REFERENCES)
    head = heads.build(config, CLASSES).fit(broken, labels, REFERENCES)
    assert np.array_equal(head.predict(x), whole.predict(x))
    assert np.isnan(head.predict(broken)[-1]).all()
    out = heads.build(config, CLASSES).leave_one_out(broken, labels, REFERENCES)
    assert np.isnan(out[-1]).all() and np.isfinite(out[:-1]).all()


@fitted
def test_a_fit_beats_the_label_words_where_they_lean(config: HeadConfig) -> None:
    x, y = rows()
    new, truth = rows(300, seed=5)
    head = heads.build(config, CLASSES).fit(x, y)
    plain = heads.build(LabelWordsHeadConfig(kind="label_words"), CLASSES).fit(x, y)
    assert loss(head.predict(new), truth) < loss(plain.predict(new), truth)


@fitted
def test_leave_one_out_is_about_what_new_rows_show(config: HeadConfig) -> None:
    x, y = rows(60)
    new, truth = rows(600, seed=5)
    out = loss(heads.build(config, CLASSES).leave_one_out(x, y), y)
    assert out == pytest.approx(loss(heads.build(config, CLASSES).fit(x, y).predict(new), truth), abs=0.25)


@fitted
def test_leave_one_out_does_not_see_the_row_itself(config: HeadConfig) -> None:
    x, y = rows(30, signal=0.0)
    out = heads.build(config, CLASSES).leave_one_out(x, y)
    assert loss(out, y) > 0.9 * np.log(CLASSES), "noise is not learnt"


@fitted
def test_constant_features_leave_chance(config: HeadConfig) -> None:
    x, y = np.zeros((12, WORDS), np.float32), np.arange(12) % CLASSES
    assert np.allclose(heads.build(config, CLASSES).fit(x, y).predict(x), 1 / CLASSES, atol=0.35)


@fitted
def test_an_unbalanced_task_is_fitted_too(config: HeadConfig) -> None:
    x, y = rows(60)
    kept = np.flatnonzero((y != 0) | (np.arange(60) < 9))
    chances = heads.build(config, CLASSES).fit(x[kept], y[kept]).predict(x)
    plain = heads.build(LabelWordsHeadConfig(kind="label_words"), CLASSES).predict(x)
    assert np.isfinite(chances).all()
    assert loss(chances[kept], y[kept]) < loss(plain[kept], y[kept])


@pytest.mark.parametrize("config", [c for c in LABELLED if c.kind in ("vocabulary", "knn", "centroid")])
def test_a_class_with_one_row_is_refused(config: HeadConfig) -> None:
    x, y = rows(9)
    y = y.copy()
    y[y == 2] = 0
    y[0] = 2
    with pytest.raises(HeadError, match=r"2 answered rows of every label, but label 2 has 1"):
        heads.build(config, CLASSES).fit(x, y)


@fitted
def test_a_missing_class_is_refused(config: HeadConfig) -> None:
    x, y = rows(12)
    with pytest.raises(HeadError, match="label 2 has 0"):
        heads.build(config, CLASSES).fit(x, np.minimum(y, 1))


@every
def test_more_words_than_rows_and_few_rows(config: HeadConfig) -> None:
    x, y = rows(2 * CLASSES)
    assert np.isfinite(heads.build(config, CLASSES).fit(x, y, REFERENCES).predict(x)).all()


@every
def test_shapes_that_do_not_go_together_are_refused(config: HeadConfig) -> None:
    x, y = rows(6)
    for bad, labels in ((x[:5], y), (x[:, :2], y), (x[0], y), (x, y + 1)):
        with pytest.raises(TunerError):
            heads.build(config, CLASSES).fit(bad, labels, REFERENCES)


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.kind != "label_words"], ids=lambda config: config.kind)
def test_a_head_that_is_not_fitted_says_so(config: HeadConfig) -> None:
    with pytest.raises(HeadError, match="call fit"):
        heads.build(config, CLASSES).predict(rows()[0])


def test_heads_by_texts_without_content_need_them() -> None:
    x, y = rows()
    with pytest.raises(HeadError, match="without content"):
        heads.build(ContextualHeadConfig(kind="contextual"), CLASSES).fit(x, y)


def test_auto_is_no_head_yet() -> None:
    with pytest.raises(ConfigError, match="settled"):
        heads.build(AutoHeadConfig(), CLASSES)
