"""Settings that no trial reads: refused, with the setting that would make them effective."""

from typing import Any

import pytest

from distributed_tuner.config.base import Config
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.load import apply_override, parse
from distributed_tuner.config.optimizer import NevergradConfig, ZotConfig
from distributed_tuner.config.space import TrialPlan, draw_trials, validate
from distributed_tuner.config.unread import WHOLES
from distributed_tuner.errors import ConfigError

SPACE = """
name: some
task: {kind: demo}
oracle: {kind: analytic}
stages:
  - {kind: search, optimizer: {kind: zot}}
  - {kind: restart, proposer: {kind: local}}
rounds: 2
budget: {queries: 100}
"""
OPTIMIZER, RESTART = "stages.0.optimizer", "stages.1"
NEVERGRAD = f"{OPTIMIZER}={{kind: nevergrad}}"
SERVED = "oracle={kind: openai, model: some}"
VLLM = "oracle={kind: vllm}"
WORDS = "prompt={kind: text}"
MODEL = "oracle={kind: transformers}"


def space(*settings: str) -> Any:
    tree = parse(SPACE)
    for setting in settings:
        tree = apply_override(tree, setting)
    return tree


# path of what is not read; it with a value that says so; what stands beside it; what has it read
CASES: list[tuple[str, str, list[str], list[str]]] = [
    (f"{OPTIMIZER}.floor", "0.2", [f"{OPTIMIZER}.schedule=constant"], [f"{OPTIMIZER}.schedule=cosine"]),
    *(
        (f"{OPTIMIZER}.{name}", value, [f"{OPTIMIZER}.estimator={{kind: trainable_diagonal}}"], [])
        for name, value in (("momentum", "0.5"), ("bias_correction", "false"))
    ),
    (f"{OPTIMIZER}.alpha", "0.3", [f"{OPTIMIZER}={{kind: cma, projection: uniform}}"], [f"{OPTIMIZER}={{kind: cma}}"]),
    *(
        (
            f"{OPTIMIZER}.{name}",
            value,
            [f"{OPTIMIZER}={{kind: nevergrad, space: {of}}}"],
            [f"{OPTIMIZER}={{kind: {to}}}"],
        )
        for name, value, of, to in (
            ("words", "50", "latent", "nevergrad, space: words"),
            ("words", "50", "full", "nevergrad, space: words"),
            ("intrinsic_dim", "8", "full", "nevergrad"),
            ("projection", "uniform", "full", "nevergrad"),
            ("alpha", "0.3", "words", "nevergrad"),
            ("sigma", "0.3", "words", "nevergrad, space: full"),
        )
    ),
    ("stages.0.optimizer.floor", "0.2", ["stages.0={kind: gradient, optimizer: {kind: sgd, schedule: constant}}"], []),
    ("prompt.text", "Judge.", ["prompt.init=zeros"], ["prompt.init=text"]),
    ("prompt.seed", "3", ["prompt.init=zeros"], ["prompt.init=vocab"]),
    ("prompt.instruction", "Judge.", ["prompt.layout=suffix"], ["prompt.layout=instruction_suffix"]),
    *(
        (
            "head.words",
            "100",
            [MODEL, f"head={{kind: {kind}, answer_words: [a, b]}}"],
            [MODEL, f"head={{kind: {kind}}}"],
        )
        for kind in ("vocabulary", "knn", "centroid")
    ),
    ("objective.score", "leave_one_out", [], ["objective.head=bias"]),
    ("objective.strength", "0.1", ["objective.head=label_words"], ["objective.head=bias"]),
    ("objective.strength", "0.1", ["objective.head=vocabulary"], []),
    *(
        (f"{RESTART}.{name}", value, [f"{RESTART}.reproduce_paper=true"], [])
        for name, value in (("trajectory", "3"), ("shown", "3"), ("adopt", "always"), ("state", "keep"))
    ),
    (f"{RESTART}.tokens", "{distance: l2}", [f"{RESTART}.reproduce_paper=true"], []),
    (f"{RESTART}.proposer.instruction", "Write.", [f"{RESTART}.proposer={{kind: random}}"], []),
    ("stages.0.orders", "5", ["stages.0={kind: screen, demonstrations: []}"], []),
    ("stages.0.proposals", "5", ["stages.0={kind: screen}"], []),
    ("schedule.patience", "9", ["schedule={kind: population}"], ["schedule={kind: population, mode: sync}"]),
    ("schedule", "{kind: asha}", [], ["budget.queries=201"]),
    ("schedule", "{kind: asha, grace_queries: 100}", [], ["budget.queries=101"]),
    ("stages.1.tokens", "{distance: l2}", [WORDS], []),
    (
        "prompt.vocabulary",
        "task",
        ["prompt={kind: text}"],
        ["prompt={kind: text}", f"{OPTIMIZER}={{kind: token_edit}}"],
    ),
    (f"{RESTART}.proposer.gpus", "1", [], [f"{RESTART}.proposer.device=cuda"]),
    ("oracle.gpus", "1", [MODEL, "oracle.device=cpu"], [MODEL]),
    ("significance", "0.2", ["stages.0.select=metric"], ["stages.0.select=cross_validation"]),
    ("budget.usd", "3", [], ["oracle.price.usd_per_device_hour=1"]),
    ("oracle.features", "64", ["oracle.function=quadratic"], ["oracle.function=logistic"]),
    ("oracle.condition", "5", [], ["oracle.function=quadratic"]),
    ("oracle.seed", "5", ["oracle.function=flat"], []),
    ("oracle.linear", "packed", [MODEL, "oracle.device=cuda"], [MODEL]),
    ("oracle.linear", "packed", [MODEL, "oracle.compile=true"], [MODEL]),
    ("oracle.revision", "main", [MODEL], [MODEL, "oracle.model=gpt2"]),
    ("oracle.revision", "main", [MODEL, "oracle.model=/"], []),
    ("oracle.text_cache_gib", "1", [MODEL, "prompt.layout=prefix"], [MODEL, "prompt.layout=suffix"]),
    ("oracle.text_cache_gib", "1", [MODEL, "prompt={kind: text}"], [MODEL]),
    ("oracle.gpu_memory_utilization", "0.5", [VLLM], [VLLM, "oracle.gpus=1"]),
    ("oracle.kv_cache_gib", "2", [VLLM, "oracle.gpus=1"], [VLLM]),
    ("oracle.top_logprobs", "5", [SERVED, "oracle.scores=generated"], [SERVED]),
    *((f"oracle.price.usd_per_million_{name}_tokens", "1", [MODEL], [SERVED]) for name in ("output", "cached_input")),
]


@pytest.mark.parametrize(("path", "value", "beside", "read"), CASES, ids=[f"{c[0]} {c[2]}"[:60] for c in CASES])
def test_what_is_set_and_never_read_is_refused(path: str, value: str, beside: list[str], read: list[str]) -> None:
    written = f"{path}={value}"
    with pytest.raises(ConfigError, match=f"what is set must be read by some trial, but {path} ") as caught:
        validate(space(*beside, written))
    assert "\n" not in str(caught.value)
    if read:
        validate(space(*read, written))


def test_everything_that_is_not_read_is_named_with_what_would_have_it_read() -> None:
    tree = space("stages.0.optimizer={kind: zot, schedule: constant, floor: 0.2}", "prompt={init: zeros, text: Judge.}")
    with pytest.raises(ConfigError) as caught:
        validate(tree)
    assert (
        "stages.0.optimizer.floor is read only with schedule: cosine, and not with schedule: constant: leave floor out,"
        " or set schedule: cosine"
    ) in str(caught.value)
    assert "prompt.text is read only with init: text, and not with init: zeros: leave text out" in str(caught.value)


def test_what_one_trial_reads_may_be_there_for_all() -> None:
    validate(space("stages.0.optimizer={kind: zot, schedule: !grid [constant, cosine], floor: 0.2}"))
    validate(space("stages.0.optimizer={kind: zot, schedule: !choice [constant, cosine], floor: 0.2}"))
    validate(space("prompt={init: !choice [zeros, text], text: Judge.}"))


def test_null_or_the_default_take_a_setting_back() -> None:
    validate(space("prompt={init: zeros, text: Judge.}", "prompt.text=null"))
    validate(space("stages.0.optimizer={kind: nevergrad, words: 500}"))


@pytest.mark.parametrize("path", ["prompt.init=zeros", "head=bias", "oracle.seconds=0.1", "significance=0.05"])
def test_what_is_read_passes(path: str) -> None:
    validate(space(path))


def test_a_recorded_trial_names_every_setting_and_is_read_again() -> None:
    """In config.json stands what nobody wrote, the mean of an estimator that takes its place among it."""
    (plan,) = draw_trials(space("stages.0.optimizer={kind: zot, estimator: {kind: trainable_diagonal}}"))
    assert TrialPlan.from_json(plan.to_json()).experiment == plan.experiment


def parts_of(config: type[Config]) -> set[type[Config]]:
    return {config}.union(*map(parts_of, config.__subclasses__()))


def test_rules_name_settings_that_there_are() -> None:
    for part in parts_of(Config):
        for rule in part.reads:
            assert {*rule.names, rule.setting.partition(".")[0]} <= part.model_fields.keys(), part
            assert rule.where or rule.unless
    assert {whole.path.partition(".")[0] for whole in WHOLES} <= Experiment.model_fields.keys()
    assert len(NevergradConfig.reads) == 4
    assert ZotConfig(momentum=0.5, schedule="constant").reads == ZotConfig.reads
