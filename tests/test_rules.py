"""Rules that no single setting can know: each broken once, with an error that says what to change."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.preflight.compatibility import require_sound, wants_gradients
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.tasks.demo import build_demo

ZOT = {"kind": "search", "optimizer": {"kind": "zot"}}
CMA = {"kind": "search", "optimizer": {"kind": "cma", "intrinsic_dim": 4}}
ADAMW = {"kind": "gradient", "optimizer": {"kind": "adamw"}}
RESTART = {"kind": "restart", "proposer": {"kind": "random"}}


def experiment(*stages: dict[str, Any], feedback: int = 2, **more: Any) -> Experiment:
    return experiment_of(
        {
            "name": "some",
            "task": {"kind": "demo", "feedback": feedback},
            "oracle": {"kind": "analytic"},
            "stages": list(stages),
            "rounds": 2,
            "budget": {"queries": 100},
        }
        | more
    )


def check(made: Experiment, root: Path = Path()) -> None:
    assert isinstance(made.task, DemoTaskConfig)
    require_sound(made, build_demo(made.task), root)


def test_sound_experiments_pass() -> None:
    check(experiment(ZOT, RESTART))
    check(experiment(CMA, RESTART | {"state": "inject"}))
    check(experiment(ZOT, RESTART | {"reproduce_paper": True}, feedback=0))
    check(experiment(ZOT, feedback=0, rounds=1, budget={"seconds": 5}))
    explore = {"stages.0.optimizer.learning_rate": {"low": 0.1, "high": 1.0}}
    check(experiment(ZOT, RESTART, schedule={"kind": "population", "explore": explore}))
    assert not wants_gradients(experiment(ZOT, RESTART))
    assert wants_gradients(experiment(ADAMW, RESTART))


SERVER = {"kind": "openai", "model": "some"}
WORDS = {"prompt": {"kind": "text"}, "stages": [{"kind": "search", "optimizer": {"kind": "token_edit"}}]}
SMOLLM2 = {"kind": "transformers"}
NAMED = {"billing": " bill", "shipping": " ship", "technical": " tech", "account": " user"}
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"stages": [ZOT], "head": "vocabulary"}, "an oracle of kind analytic tells those of label words alone"),
    (
        WORDS | {"oracle": SERVER | {"scores": "generated"}, "head": "bias"},
        "oracle.scores: generated tells the written label alone; set head: label_words",
    ),
    (
        {"stages": [ZOT], "oracle": SMOLLM2, "head": "vocabulary", "task": {"kind": "demo", "shots": 1}},
        "two train rows of every label, but task.shots leaves 1",
    ),
    (
        {"stages": [ZOT], "head": "contextual", "screen": {}},
        "it does not ask about; set head: bias or vocabulary",
    ),
    (
        {"stages": [ZOT], "oracle": SMOLLM2, "head": "vocabulary", "screen": {"verbalizers": [NAMED]}},
        "head: vocabulary reads many words and hardly sees which of them are the label words; set head: bias",
    ),
    (
        {"stages": [ZOT], "head": "bias", "screen": {"verbalizers": [NAMED]}},
        "an oracle of kind analytic tells those of the label words alone",
    ),
    (
        {
            "stages": [ZOT, RESTART],
            "schedule": {"kind": "population"},
            "screen": {"templates": ["{text}:{label_word}"]},
        },
        "leave the screen's templates and verbalizers out, or set schedule.kind: none",
    ),
    (
        {"stages": [ZOT], "screen": {"proposer": {"kind": "openai", "model": "m", "usd": 1.0}}},
        "the screen's proposer.usd limits dollars, but the proposer's tokens have no price",
    ),
    (
        {"stages": [ZOT], "screen": {"proposer": {"kind": "replay", "ledger": "none.jsonl"}}},
        "the screen's proposer.ledger must be a file with recorded answers",
    ),
    ({"stages": [ZOT], "objective": {"head": "vocabulary"}}, "searches by the words that the head reads, but head is"),
    (
        {"stages": [ADAMW], "oracle": SMOLLM2, "objective": {"head": "bias", "score": "leave_one_out"}},
        "set objective: {head: bias, score: train}",
    ),
    (
        {
            "stages": [{"kind": "search", "optimizer": {"kind": "cma", "race_block": 4}}],
            "objective": {"head": "bias", "score": "leave_one_out"},
        },
        "leave out race_block, or set objective",
    ),
    ({"stages": [ZOT, RESTART], "task": {"kind": "demo"}}, "task.feedback is 0; set it"),
    ({"stages": [ZOT, RESTART | {"state": "inject"}]}, "stages.1.state: inject hands a prompt to a cma search"),
    ({"stages": [CMA, RESTART | {"state": "inject"}], "rounds": 1}, "there is none; use reset or keep"),
    (
        {"stages": [ZOT, RESTART], "budget": {"queries": None, "seconds": 9}},
        "set budget.queries, or steps for every stage",
    ),
    (
        {"stages": [ZOT, RESTART | {"proposer": {"kind": "replay", "ledger": "none.jsonl"}}]},
        "stages.1.proposer.ledger must be a file with recorded answers",
    ),
    (
        {"stages": [{"kind": "gradient", "optimizer": {"kind": "adamw"}}], "oracle": {"kind": "vllm"}},
        "an oracle of kind vllm gives none; set oracle.kind: transformers",
    ),
    (
        {"stages": [ZOT, RESTART | {"proposer": {"kind": "vllm"}}]},
        "stages.1.proposer.kind vllm is the engine that answers the run's loss queries, but oracle.kind is analytic",
    ),
    (
        {"stages": [ZOT, RESTART | {"proposer": {"kind": "random", "instruction": "none.txt"}}]},
        "none.txt",
    ),
    ({"stages": [ZOT], "schedule": {"kind": "population"}}, "set rounds to 2 or more"),
    (
        {
            "stages": [ZOT, RESTART],
            "schedule": {"kind": "population", "explore": {"stages.0.optimizer.kind": {"low": 1, "high": 2}}},
        },
        "a path must lead to a number of the experiment, but 'stages.0.optimizer.kind' does not",
    ),
    (
        {
            "stages": [ZOT, RESTART],
            "schedule": {"kind": "population", "explore": {"stages.0.optimizer.rho": {"low": 3, "high": 2}}},
        },
        "low must not exceed high",
    ),
    *(
        (
            {
                "stages": [CMA, RESTART],
                "schedule": {"kind": "population", "explore": {path: {"low": 1, "high": 2}}},
            },
            "schedule.explore changes numbers of optimizers other than intrinsic_dim, popsize, num_workers, words, such"
            f" as stages.0.optimizer.learning_rate, but got '{path}'",
        )
        for path in ("stages.1.proposer.temperature", "budget.queries", "stages.0.optimizer.intrinsic_dim")
    ),
    (
        {"stages": [ZOT, RESTART | {"proposer": {"kind": "openai", "model": "m", "usd": 1.0}}]},
        "stages.1.proposer.usd limits dollars, but the proposer's tokens have no price",
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[message[:40] for _, message in BROKEN])
def test_each_broken_rule_says_what_to_change(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace(".", r"\.")):
        check(experiment(*change.pop("stages"), **change), tmp_path)


def test_changed_settings_keep_their_types() -> None:
    made = experiment(CMA, RESTART).changed({"stages.0.optimizer.popsize": 7.6, "stages.0.optimizer.sigma": 2})
    optimizer: Any = made.stages[0]
    assert (optimizer.optimizer.popsize, optimizer.optimizer.sigma) == (8, 2.0)
    with pytest.raises(ConfigError, match=r"'stages\.7\.optimizer\.rho' does not"):
        made.changed({"stages.7.optimizer.rho": 1.0})


@pytest.mark.parametrize(
    "free", ["prompt.length=!grid [3, 4]", "task.split_seed=!grid [0, 1]", "prompt.scale=!grid [embedding, paper]"]
)
def test_a_population_shares_what_makes_prompts_and_losses_comparable(free: str, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        """
        name: some
        task: {kind: demo, feedback: 2}
        oracle: {kind: analytic}
        stages:
          - {kind: search, optimizer: {kind: zot}}
          - {kind: restart, proposer: {kind: random}}
        rounds: 2
        budget: {queries: 100}
        schedule: {kind: population}
        """
    )
    with pytest.raises(ConfigError, match=f"{free.partition('.')[0]} must be the same for all trials of a population"):
        prepare(space, [free])
    prepare(space, [free, "schedule={kind: none}"])


def test_servers_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "purgatory" else object())
    oracle = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    made = experiment({"kind": "search", "optimizer": {"kind": "token_edit"}}, oracle=oracle, prompt={"kind": "text"})
    with pytest.raises(ConfigError, match=r"purgatory.*pip install 'distributed-prompt-tuner\[openai\]'"):
        check(made)
