"""Conformance of optimizers: every member passes the shipped suite. A new member is one line in MEMBERS."""

import pytest

from distributed_tuner.config.estimator import TrainableDiagonalConfig, TrainableFullConfig, TrainableRankOneConfig
from distributed_tuner.config.first_order import AdamWConfig, FirstOrderConfig, SgdConfig, TrainableConfig
from distributed_tuner.config.optimizer import (
    CmaConfig,
    NevergradConfig,
    OptimizerConfig,
    RandomSearchConfig,
    SurrogateConfig,
    TokenEditConfig,
    ZotConfig,
)
from distributed_tuner.errors import ConfigError
from distributed_tuner.testing import OptimizerSuite
from distributed_tuner.testing.optimizers import ELSEWHERE

MEMBERS: dict[str, OptimizerConfig | FirstOrderConfig] = {
    "random_search": RandomSearchConfig(sigma=0.2),
    "zot": ZotConfig(rho=0.01, learning_rate=0.02, momentum=0.9, clip=5.0),
    "zot_n3": ZotConfig(points=3, rho=0.01, learning_rate=0.02, bias_correction=False, momentum=0.5),
    "zo_sgd": ZotConfig(rho=0.01, learning_rate=0.005, clip=0, momentum=0, schedule="constant"),
    "zot_diagonal": ZotConfig(rho=0.01, learning_rate=0.02, clip=5.0, estimator=TrainableDiagonalConfig(beta=0.3)),
    "zot_rank_one": ZotConfig(rho=0.01, learning_rate=0.02, clip=5.0, estimator=TrainableRankOneConfig(beta=0.3)),
    "zot_full": ZotConfig(
        points=2, rho=0.01, learning_rate=0.02, estimator=TrainableFullConfig(alpha=0.3, beta=0.3, decay_steps=50.0)
    ),
    "surrogate": SurrogateConfig(popsize=8, rho=0.1),
    "surrogate_of_answers": SurrogateConfig(popsize=8, rho=0.1, of="answers"),
    "cma": CmaConfig(intrinsic_dim=8, popsize=6),
    "cma_mean": CmaConfig(intrinsic_dim=8, popsize=0, bound=2.0, recommend="mean", projection="uniform"),
    "cma_tpa": CmaConfig(intrinsic_dim=8, popsize=6, step_size="tpa"),
    "adamw": AdamWConfig(learning_rate=0.02, weight_decay=0.01),
    "sgd": SgdConfig(learning_rate=0.02, clip=0.5, schedule="cosine", floor=0.1),
    "trainable": TrainableConfig(learning_rate=0.05),
    "trainable_rank_one": TrainableConfig(learning_rate=0.05, estimator=TrainableRankOneConfig(decay_steps=30.0)),
    "trainable_full": TrainableConfig(learning_rate=0.05, clip=0, estimator=TrainableFullConfig(beta=0.4)),
    "ng_NGOpt": NevergradConfig(intrinsic_dim=4, num_workers=4),
    "ng_CMA": NevergradConfig(optimizer="CMA", intrinsic_dim=8, num_workers=4),
    "ng_DE": NevergradConfig(optimizer="DE", intrinsic_dim=8, num_workers=5),
    "ng_PSO": NevergradConfig(optimizer="PSO", intrinsic_dim=8, num_workers=4),
    "ng_OnePlusOne": NevergradConfig(optimizer="OnePlusOne", space="full", sigma=0.3, num_workers=2),
    "ng_TBPSA": NevergradConfig(optimizer="TBPSA", intrinsic_dim=8, num_workers=4),
    "ng_DiscreteOnePlusOne": NevergradConfig(optimizer="DiscreteOnePlusOne", intrinsic_dim=8, num_workers=3),
    "ng_Cobyla": NevergradConfig(optimizer="Cobyla", intrinsic_dim=8, num_workers=1),
    "token_edit": TokenEditConfig(popsize=6, edits=2.5),
    "token_edit_alone": TokenEditConfig(popsize=1, parents=1, edits=1),
    "ng_words_DiscreteOnePlusOne": NevergradConfig(optimizer="DiscreteOnePlusOne", space="words", num_workers=4),
    "ng_words_FastGA": NevergradConfig(optimizer="DoubleFastGADiscreteOnePlusOne", space="words", words=15),
    "ng_words_CMA": NevergradConfig(optimizer="CMA", space="words", num_workers=5),
    "ng_words_Cobyla": NevergradConfig(optimizer="Cobyla", space="words", num_workers=1),
}


class TestEveryOptimizer(OptimizerSuite):
    @pytest.fixture(params=sorted(MEMBERS))
    def config(self, request: pytest.FixtureRequest) -> OptimizerConfig | FirstOrderConfig:
        return MEMBERS[request.param]

    def draws_nothing(self, config):
        if isinstance(config, TrainableConfig):
            return config.estimator.kind != "trainable_rank_one"
        return isinstance(config, AdamWConfig | SgdConfig) or getattr(config, "optimizer", "") == "Cobyla"

    def clones_go_on_alike(self, config):
        draws_once = isinstance(config, TrainableConfig)  # where a rank-one slope starts, which is part of the state
        return draws_once or self.draws_nothing(config)

    def learns_from_failures(self, config):
        return isinstance(config, NevergradConfig)  # nevergrad is told, and may move its mean

    def test_its_kind_is_its_configs(self, config):
        assert config.label == config.kind == self.make(config).kind

    def test_nobody_is_raced_unasked(self, config):
        assert self.make(config).race is None

    def test_only_cma_takes_candidates_from_outside(self, config):
        if config.kind != "cma":
            with pytest.raises(ConfigError, match="use cma"):
                self.make(config).inject(ELSEWHERE, 1.0, 1.0)
            return
        optimizer = self.make(config)
        optimizer.inject(ELSEWHERE, 1.0, 1.0)
        assert len(optimizer.ask()) == optimizer.queries_per_step
