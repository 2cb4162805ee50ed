"""Conformance of heads: every member passes the shipped suites. A new member is one line in CONFIGS."""

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
from distributed_tuner.errors import ConfigError, HeadError
from distributed_tuner.testing import FittedHeadSuite, HeadSuite
from distributed_tuner.testing.heads import CLASSES, rows

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
OTHERS = [config for config in CONFIGS if config not in LABELLED]


class TestEveryFittedHead(FittedHeadSuite):
    @pytest.fixture(params=LABELLED, ids=lambda config: config.kind)
    def config(self, request: pytest.FixtureRequest) -> HeadConfig:
        config: HeadConfig = request.param
        return config


class TestEveryOtherHead(HeadSuite):
    @pytest.fixture(params=OTHERS, ids=lambda config: config.kind)
    def config(self, request: pytest.FixtureRequest) -> HeadConfig:
        config: HeadConfig = request.param
        return config

    def fits_nothing(self, config: HeadConfig) -> bool:
        return config.kind == "label_words"


@pytest.mark.parametrize("config", [c for c in LABELLED if c.kind in ("vocabulary", "knn", "centroid")])
def test_a_class_with_one_row_is_refused(config: HeadConfig) -> None:
    x, y = rows(9)
    y = y.copy()
    y[y == 2] = 0
    y[0] = 2
    with pytest.raises(HeadError, match=r"2 answered rows of every label, but label 2 has 1"):
        heads.build(config, CLASSES).fit(x, y)


def test_heads_by_texts_without_content_need_them() -> None:
    x, y = rows()
    with pytest.raises(HeadError, match="without content"):
        heads.build(ContextualHeadConfig(kind="contextual"), CLASSES).fit(x, y)


def test_auto_is_no_head_yet() -> None:
    with pytest.raises(ConfigError, match="resolved"):
        heads.build(AutoHeadConfig(), CLASSES)
