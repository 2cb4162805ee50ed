"""The sanity check before the first trial: its requests, rows, notes and refusals. Without a cluster."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tuner_runs import CMA, ZOT, Grid, space, write_space

from distributed_tuner import oracles
from distributed_tuner.config.oracle import OpenAIOracleConfig, OracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle, evaluation
from distributed_tuner.oracles.checks.parity import Parity
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.report.text import projection_lines
from distributed_tuner.runs import sanity_check
from distributed_tuner.runs.startup import start_pool, start_pool_again
from distributed_tuner.values import Cost, Evaluation, Request

CHAT = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


class LocalPool(SimpleNamespace):
    """A pool without actors. ``left``: its cache was left aside; ``stopped``: how often it was stopped."""

    def __init__(self, config: OracleConfig, oracle: LossOracle) -> None:
        super().__init__(config=config, oracle=oracle, left=False, stopped=0)

    def leave_cache(self) -> None:
        self.left = True

    def stop(self) -> None:
        self.stopped += 1


class Noisy(WrappedOracle):
    """Adds noise of a size to every logit."""

    def __init__(self, config: OracleConfig, size: float) -> None:
        super().__init__(oracles.build(config))
        self._noise = np.random.default_rng(0)
        self._size = size

    def evaluate(self, request: Request, timeout: float = float("inf")) -> Evaluation:
        answer = super().evaluate(request, timeout)
        logits = answer.logits + self._noise.normal(0, self._size, answer.logits.shape).astype(np.float32)
        return evaluation(logits, request.batch, answer.cost)


def prepared(reviews: Path, name: str, **oracle: Any) -> Prepared:
    return prepare(write_space(space({"kind": "analytic", **oracle}, [ZOT, CMA]), reviews, name), [])


def starting(pools: list[LocalPool], size: float = 0.0) -> Callable[[OracleConfig], Any]:
    def start(config: OracleConfig) -> LocalPool:
        pools.append(LocalPool(config, Noisy(config, size)))
        return pools[-1]

    return start


@pytest.mark.parametrize("enter", [start_pool, start_pool_again])
def test_an_analytic_oracle_passes_without_a_word(reviews: Path, enter: Any) -> None:
    said: list[str] = []
    started = enter(prepared(reviews, "passes.yaml"), starting([]), said.append)
    (row,) = started.parities
    assert (row.layout, row.repeated, row.plain, row.noisy, row.note) == ("prefix", 0.0, None, False, "")
    assert row.cost.queries == 3 * 5
    assert [line for line in said if "parity" in line] == []


def test_each_layout_is_asked_for_once(reviews: Path) -> None:
    tree = space({"kind": "analytic"}, [ZOT, CMA])
    tree["prompt"]["layout"] = Grid(["prefix", "suffix"])
    ready = prepare(write_space(tree, reviews, "layouts.yaml"), [])
    rows = start_pool(ready, starting([]), print).parities
    assert [row.layout for row in rows] == ["prefix", "suffix"]
    for name in ("queries", "forwards", "tokens"):  # as `check` says beforehand
        assert sum(getattr(row.cost, name) for row in rows) == getattr(ready.parity, name) > 0
    assert any(line.split()[:4] == ["sanity", "check", "-", "30"] for line in projection_lines(ready))


@pytest.mark.parametrize("enter", [start_pool, start_pool_again])
def test_of_a_noisy_endpoint_nothing_is_kept_and_everyone_is_told(reviews: Path, tmp_path: Path, enter: Any) -> None:
    said: list[str] = []
    pools: list[LocalPool] = []
    ready = prepared(reviews, "noisy.yaml", cache=str(tmp_path / "kept"))
    started = enter(ready, starting(pools, 0.05), said.append)
    assert (started.oracle.cache, pools[0].left, pools[0].stopped) == (None, True, 0)
    (row,) = started.parities
    assert row.noisy
    assert "asked again, losses differ by up to" in row.note
    assert "no answers are kept (oracle.cache)" in row.note
    assert row.note in said[-1]


@pytest.mark.parametrize("enter", [start_pool, start_pool_again])
def test_an_oracle_that_is_refused_is_stopped(reviews: Path, enter: Any) -> None:
    pools: list[LocalPool] = []
    with pytest.raises(ModelError, match="the same question"):
        enter(prepared(reviews, "refused-sanity_check.yaml"), starting(pools, 5.0), print)
    assert pools[0].stopped == 1


@pytest.mark.parametrize("enter", [start_pool, start_pool_again])
def test_a_relative_cache_is_where_the_driver_is(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enter: Any
) -> None:
    ready = prepared(reviews, "relative.yaml", cache="kept")
    monkeypatch.chdir(tmp_path)
    pools: list[LocalPool] = []
    started = enter(ready, starting(pools), print)
    assert pools[0].config.cache == started.oracle.cache == str(tmp_path / "kept")


def parity(beyond: float = 0.0, repeated: float = 0.0, **counts: int) -> Parity:
    return Parity(repeated, 0.0, None, beyond, counts, Cost())


def notes(found: Parity, **config: Any) -> list[str]:
    return sanity_check._notes(OpenAIOracleConfig(**{**CHAT, **config}), found)


def test_a_server_that_reads_more_than_it_was_sent(llama: dict[str, Any]) -> None:
    completions = {"api": "completions", "tokenizer": llama["model"]}
    assert notes(parity(), **completions) == []
    (one,) = notes(parity(beyond=1.0), **completions)
    assert "1.0 tokens more a prompt than the tokenizer counts: perhaps a begin-of-text token" in one
    with pytest.raises(ModelError, match=r"read 31.0 tokens more a prompt.*chat template around it.*oracle.api: chat"):
        notes(parity(beyond=31.0), **completions)
    assert notes(parity(beyond=31.0), api="completions") == [], "without a tokenizer nothing was counted"


def test_a_base_model_that_is_asked_as_a_chat_is_told_of(llama: dict[str, Any]) -> None:
    (one,) = notes(parity(), api="chat", tokenizer=llama["model"])
    assert "has no chat template: a base model is asked with oracle.api: completions" in one


def test_what_answers_told_is_noted() -> None:
    found = notes(parity(absent_examples=2, absent_labels=3, unmatched_answers=1))
    assert [line.split()[0] for line in found] == ["2", "3", "1"]


def test_a_model_of_transformers_is_asked_nothing(reviews: Path, llama: dict[str, Any]) -> None:
    ready = prepare(write_space(space(llama, [ZOT]), reviews, "trunk.yaml"), [])
    pool = LocalPool(ready.experiment.oracle, oracles.build(prepared(reviews, "any.yaml").experiment.oracle))
    assert sanity_check.pass_sanity_check(ready, pool, print) == ([], {})  # type: ignore[arg-type]


class Listing(WrappedOracle):
    """Tells of tokens beside the label words, as a server's fresh answers do. ``labels``: it tells of these as well."""

    def __init__(self, config: OracleConfig, tops: dict[str, float], labels: bool = True) -> None:
        super().__init__(oracles.build(config))
        self._tops = tops
        self._labels = labels

    def evaluate(self, request: Request, timeout: float = float("inf")) -> Evaluation:
        answer = super().evaluate(request, timeout)
        if not self._labels:
            lost = np.full_like(answer.logits, np.nan)
            answer = replace(evaluation(lost, request.batch, answer.cost), remarks=(("other_answer", "began 'Sure'"),))
        return replace(answer, tops=self._tops)


def listed(reviews: Path, tops: dict[str, float], labels: bool = True) -> Any:
    def start(config: OracleConfig) -> LocalPool:
        return LocalPool(config, Listing(config, tops, labels))

    return start_pool(prepared(reviews, "listed.yaml"), start, print)  # type: ignore[arg-type]


def served(reviews: Path, **more: Any) -> Prepared:
    words = {"prompt": {"kind": "text"}, **more}
    return prepare(write_space(space(dict(CHAT), [{"kind": "token_edit"}], **words), reviews, "served.yaml"), [])


def test_a_head_reads_what_answers_at_the_gate_are_likeliest_to_begin_with(reviews: Path) -> None:
    started = listed(reviews, {"x": 0.1, "c": 0.7, "b": 0.7, "a": 0.2})
    head = served(reviews).with_answer_words(started.answer_words).experiment.head
    assert (head.kind, head.answer_words) == ("vocabulary", ("b", "c", "a", "x"))  # type: ignore[union-attr]
    few = {"kind": "centroid", "words": 10}
    head = served(reviews, head=few).with_answer_words(
        listed(reviews, {f"{i:02}": 1.0 for i in range(30)}).answer_words
    )
    assert len(head.experiment.head.answer_words) == 8  # type: ignore[union-attr]  # with two label words 10


def test_a_head_that_was_left_open_reads_label_words_where_there_are_no_others(reviews: Path) -> None:
    started = listed(reviews, {})
    ready = served(reviews).with_answer_words(started.answer_words)
    assert ready.experiment.head.kind == "bias"
    assert all(task.answer_words == () for task in ready.tasks)
    with pytest.raises(
        ModelError, match="head: knn reads words other than the label words, but the oracle returns none"
    ):
        served(reviews, head="knn").with_answer_words(started.answer_words)


def test_where_no_answer_names_a_label_one_is_shown(reviews: Path) -> None:
    with pytest.raises(ModelError, match=r"none of .* answers had any of .*\(began 'Sure'\); set words that"):
        listed(reviews, {}, labels=False)


def test_what_answers_lack_is_noted_with_what_helps() -> None:
    found = Parity(0.0, 0.0, None, 0.0, {"absent_labels": 3, "short_answers": 3, "refused_examples": 2}, Cost())
    found = replace(found, remarks=(("refused_example", "example pool-3 is refused"), ("other_answer", "began 'Sure'")))
    absent, short, refused = notes(found)
    assert "bounds" in absent and "oracle.scores: generated" in short and refused == "example pool-3 is refused"


def test_a_plain_pass_that_cannot_be_taken_is_noted(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise ModelError("it has about 70.0 billion parameters")

    ready = prepared(reviews, "large.yaml")
    monkeypatch.setattr(sanity_check, "plain_config", lambda config, info: config)
    monkeypatch.setattr(sanity_check, "plain_logits", gone)
    said: list[str] = []
    (row,) = start_pool(ready, starting([]), said.append).parities
    assert row.note == "not compared with a plain pass: it has about 70.0 billion parameters"
    assert row.note in said[-1]
