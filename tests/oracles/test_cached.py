"""Cached answers: equal to computed ones, free from the second time on, and never given for another request."""

import logging
import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import pytest
from completions_server import CompletionsServer
from tiny_models import MIXED, SPEC, batch_of

from distributed_tuner import oracles
from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.oracle import (
    AnalyticOracleConfig,
    OpenAIOracleConfig,
    Price,
    Tile,
    TransformersOracleConfig,
    VllmOracleConfig,
)
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle, counted, evaluation
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.oracles.wrappers.cached import OUTSIDE, CachedOracle, _BytesDisk, identity
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Array, Batch, Cost, Evaluation, OracleInfo, Point, Request, Text

CONFIG = AnalyticOracleConfig(kind="analytic", price=Price(usd_per_million_input_tokens=10.0, usd_per_device_hour=3.6))
TEXTS = ("Classify", "Is it good?", "")
POINT = Point(np.full(SPEC.length * 8, 0.3, dtype=np.float32))


class Reader(WrappedOracle):
    """Scores that follow from the words of prompt and example, as a real model's do. ``asked``: texts, in order."""

    def __init__(self, config: AnalyticOracleConfig = CONFIG, fails: str | None = None) -> None:
        super().__init__(oracles.build(config.model_copy(update={"cache": None})))
        self.asked: list[str] = []
        self._fails = fails

    def evaluate(self, request: Request, timeout: float = float("inf")) -> Evaluation:
        answer = super().evaluate(request, timeout)
        logits = answer.logits.copy()
        for i, candidate in enumerate(request.candidates):
            if isinstance(candidate, Text):
                self.asked.append(candidate.text)
                logits[i] = self._scores(candidate.text, request.batch)
        return evaluation(logits, request.batch, replace(answer.cost, seconds=0.5), counts={"absent_labels": 1})

    def _scores(self, text: str, batch: Batch) -> Array:
        if text == self._fails:
            return np.full((len(batch.examples), len(batch.label_words)), np.nan, dtype=np.float32)
        scores = [[hash((text, e.text, word)) % 997 / 100 for word in batch.label_words] for e in batch.examples]
        return np.array(scores, dtype=np.float32)


def texts_on(batch: Batch = MIXED, *texts: str) -> Request:
    return Request(tuple(Text(text) for text in texts or TEXTS), batch, SPEC)


def cached(directory: Path, config: AnalyticOracleConfig = CONFIG, **more: Any) -> tuple[CachedOracle, Reader]:
    inner = Reader(config, **more)
    return CachedOracle(inner, str(directory), config), inner


def same_bits(a: Evaluation, b: Evaluation) -> bool:
    return all(
        getattr(a, part).tobytes() == getattr(b, part).tobytes() for part in ("losses", "example_losses", "logits")
    )


def test_the_second_time_is_the_same_and_free_also_for_a_later_run(tmp_path: Path) -> None:
    oracle, inner = cached(tmp_path)
    first = oracle.evaluate(texts_on())
    assert same_bits(first, Reader().evaluate(texts_on()))
    assert (first.kept, first.counts) == (None, {"absent_labels": 1})
    assert first.cost.queries == 3
    for again in (oracle.evaluate(texts_on()), cached(tmp_path)[0].evaluate(texts_on())):
        assert same_bits(again, first)
        assert again.cost == Cost()
        assert again.kept is not None and again.kept.all()
        assert again.counts == {"cached_forwards": 3 * len(MIXED.examples)}
    assert inner.asked == list(TEXTS)


def test_what_is_new_is_paid_for_and_soft_candidates_pass_through(tmp_path: Path) -> None:
    oracle, inner = cached(tmp_path)
    oracle.evaluate(texts_on(MIXED, "Classify"))
    mixed = replace(texts_on(), candidates=(POINT, Text("Classify"), Text("new"), POINT))
    answer = oracle.evaluate(mixed)
    assert same_bits(answer, Reader().evaluate(mixed))
    assert answer.kept is not None
    assert answer.kept.tolist() == [False, True, False, False]
    paid = replace(mixed, candidates=(POINT, Text("new"), POINT))
    assert replace(answer.cost, usd=0.0) == replace(Reader().evaluate(paid).cost, usd=0.0)
    assert inner.asked == ["Classify", "new"]
    assert oracle.evaluate(replace(mixed, candidates=(POINT,))).kept is None


@pytest.mark.parametrize(
    "other",
    [
        replace(MIXED, label_words=(" bad", " good")),
        replace(MIXED, label_words=MIXED.label_words[::-1]),
        replace(MIXED, label_rule="first"),
        replace(MIXED, split="dev"),
        replace(MIXED, examples=MIXED.examples[:-1]),
        replace(MIXED, examples=MIXED.examples[::-1]),
        replace(MIXED, examples=(replace(MIXED.examples[0], cue=" Verdict:"), *MIXED.examples[1:])),
        replace(MIXED, examples=(replace(MIXED.examples[0], text="other"), *MIXED.examples[1:])),
    ],
)
def test_another_question_is_never_answered_from_the_cache(tmp_path: Path, other: Batch) -> None:
    oracle, inner = cached(tmp_path)
    oracle.evaluate(texts_on())
    answer = oracle.evaluate(texts_on(other))
    assert (answer.kept, answer.cost.queries) == (None, 3)
    assert len(inner.asked) == 6
    assert same_bits(answer, Reader().evaluate(texts_on(other)))


def test_the_loss_is_no_part_of_the_question(tmp_path: Path) -> None:
    oracle, _ = cached(tmp_path)
    oracle.evaluate(texts_on())
    other = texts_on(replace(MIXED, loss="hinge"))
    answer = oracle.evaluate(other)
    assert answer.cost == Cost()
    assert same_bits(answer, Reader().evaluate(other))


def test_another_model_or_another_of_its_settings_answers_for_itself_but_not_another_price_or_size(
    tmp_path: Path,
) -> None:
    cached(tmp_path)[0].evaluate(texts_on())
    for update in ({"seed": 1}, {"features": 128}, {"threads": 4}, {"width": 4}):
        answer = cached(tmp_path, CONFIG.model_copy(update=update))[0].evaluate(texts_on())
        assert answer.kept is None, update
    same = {"price": Price(), "actors": 3, "gpus": 0.5, "tile": Tile(candidates=8), "cache": "elsewhere"}
    assert cached(tmp_path, CONFIG.model_copy(update=same))[0].evaluate(texts_on()).cost == Cost()


def test_a_server_is_known_by_what_it_serves_and_not_by_how_fast_it_is_asked() -> None:
    config = OpenAIOracleConfig(kind="openai", model="m", base_url="http://127.0.0.1:1/v1")
    info = OracleInfo("m", 0, 0, 100, 0.0, "served", "server", {"base_url": "http://127.0.0.1:1/v1"}, soft=False)
    known = identity(config, info)
    pace = {"concurrency": 1, "timeout": 1.0, "attempts": 1, "requests_per_minute": 3.0, "threads": 2}
    assert identity(config.model_copy(update=pace), info) == known
    for update in ({"model": "n"}, {"api": "completions"}, {"scores": "generated"}, {"top_logprobs": 5}):
        assert identity(config.model_copy(update=update), info) != known
    elsewhere = replace(info, extra={"base_url": "http://127.0.0.1:2/v1"})
    assert identity(config.model_copy(update={"base_url": None}), info) != identity(
        config.model_copy(update={"base_url": None}), elsewhere
    )


def test_what_is_left_out_of_the_question_are_settings_that_exist() -> None:
    kinds = (AnalyticOracleConfig, OpenAIOracleConfig, TransformersOracleConfig, VllmOracleConfig)
    assert set().union(*(kind.model_fields for kind in kinds)) >= OUTSIDE


def test_a_server_is_asked_once_for_what_is_kept(
    make: Callable[..., OpenAIOracle], server: CompletionsServer, tmp_path: Path
) -> None:
    def oracle(**settings: Any) -> CachedOracle:
        inner = make(**settings)
        return CachedOracle(inner, str(tmp_path), inner._config)

    asked = Request((Text("Classify"), Text("")), MIXED, NO_ROWS)
    first = oracle(concurrency=4).evaluate(asked)
    sent = len(server.asked)
    again = oracle(concurrency=2).evaluate(asked)
    assert same_bits(first, again)
    assert (len(server.asked), sent) == (sent, 2 * len(MIXED.examples))
    assert first.cost.queries == 2
    assert again.cost == Cost()
    assert oracle(top_logprobs=5).evaluate(asked).kept is None


def test_a_model_directory_that_has_changed_is_another_model(tmp_path: Path) -> None:
    config = TransformersOracleConfig(kind="transformers", model=str(tmp_path))
    info = OracleInfo("m", 1, 1, 1, 1.0, "float32", "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    known = identity(config, info)
    assert identity(config, info) == known
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert identity(config, info) != known


def test_failed_answers_are_not_kept(tmp_path: Path) -> None:
    failing, _ = cached(tmp_path, fails="Classify")
    assert np.isnan(failing.evaluate(texts_on()).losses).tolist() == [True, False, False]
    oracle, inner = cached(tmp_path)
    assert np.isfinite(oracle.evaluate(texts_on()).losses).all()
    assert inner.asked == ["Classify"]


def test_a_fresh_question_is_neither_answered_from_the_cache_nor_kept(tmp_path: Path) -> None:
    oracle, inner = cached(tmp_path)
    fresh = replace(texts_on(), fresh=True)
    for _ in range(2):
        assert oracle.evaluate(fresh).cost.queries == 3
    assert oracle.evaluate(texts_on()).cost.queries == 3
    assert oracle.evaluate(fresh).cost.queries == 3
    assert len(inner.asked) == 12


def test_gradients_are_asked_for_as_ever(tmp_path: Path) -> None:
    oracle = CachedOracle(oracles.build(CONFIG), str(tmp_path), CONFIG)
    with pytest.raises(ModelError, match="a gradient is by the prompt's coordinates"):
        oracle.evaluate(replace(texts_on(), gradient=True))
    assert oracle.evaluate(Request((POINT,), MIXED, SPEC, gradient=True)).gradients is not None


def test_build_wraps_what_has_a_directory(tmp_path: Path) -> None:
    assert isinstance(oracles.build(CONFIG.model_copy(update={"cache": str(tmp_path)})), CachedOracle)
    assert not isinstance(oracles.build(CONFIG), CachedOracle)


# ------------------------------------------------------------------------------------------------------- costs
def test_a_query_is_free_when_all_of_its_tiles_were_kept(tmp_path: Path) -> None:
    tile = Tile(candidates=2, examples=2)
    oracle, _ = cached(tmp_path)
    tiled = TiledOracle(oracle, tile)
    whole = texts_on(batch_of(["a", "bad film", "slow", "the plot", "dull"]), "p", "q", "r")
    half = replace(whole, batch=replace(whole.batch, examples=whole.batch.examples[:4]))
    first = tiled.evaluate(half)
    assert (first.cost.queries, first.cost.forwards, first.kept) == (3, 12, None)
    rest = tiled.evaluate(whole)
    assert (rest.cost.queries, rest.cost.forwards, rest.kept) == (3, 3, None)
    assert rest.counts["cached_forwards"] == 12
    assert rest.cost.tokens < first.cost.tokens
    again = tiled.evaluate(replace(whole, candidates=(Text("p"), Text("new"), Text("q"))))
    assert (again.cost.queries, again.cost.forwards) == (1, 5)
    assert again.kept is not None
    assert again.kept.tolist() == [True, False, True]
    assert same_bits(tiled.evaluate(whole), TiledOracle(Reader(), tile).evaluate(whole))
    assert tiled.evaluate(whole).cost == Cost()


@pytest.mark.parametrize("counts_as", [None, 2])
def test_a_budget_pays_for_what_was_computed_alone(tmp_path: Path, counts_as: int | None) -> None:
    oracle, _ = cached(tmp_path)
    tracker = BudgetTracker(BudgetConfig(queries=9))
    budgeted = BudgetedOracle(TiledOracle(oracle, CONFIG.tile), tracker, CONFIG, lambda: 0.0)
    budgeted.evaluate(texts_on(), queries=counts_as)
    spent = tracker.spent
    assert (spent.queries, spent.forwards) == (counts_as or 3, counted(texts_on(), 0).forwards)
    assert spent.usd > 0
    assert budgeted.evaluate(texts_on(), queries=counts_as).cost == Cost()
    assert tracker.spent == spent


# ------------------------------------------------------------------------------------------------------- faults
def _fill(directory: str, number: int) -> None:
    oracle = CachedOracle(oracles.build(CONFIG), directory, CONFIG)
    for i in range(20):
        oracle.evaluate(texts_on(MIXED, f"shared {i}", f"of {number}: {i}"))
    assert oracle.evaluate(texts_on(MIXED, "shared 0")).kept is not None, "the directory has failed"


def test_processes_that_write_at_once_share_a_directory(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(str(tmp_path), number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    oracle = CachedOracle(oracles.build(CONFIG), str(tmp_path), CONFIG)
    names = [f"shared {i}" for i in range(20)] + [f"of {n}: {i}" for n in range(2) for i in range(20)]
    answer = oracle.evaluate(texts_on(MIXED, *names))
    assert answer.cost == Cost()


def spoil_page(database: Path) -> None:
    database.write_bytes(b"SQLite format 3\0" + os.urandom(20_000))


def spoil_everything(database: Path) -> None:
    database.write_bytes(b"this is no database")


def a_file_in_its_place(database: Path) -> None:
    directory = database.parent
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.write_text("not a directory")


@pytest.mark.parametrize("spoil", [spoil_page, spoil_everything, a_file_in_its_place])
def test_a_directory_that_cannot_be_read_is_told_once_and_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    cached(tmp_path / "kept")[0].evaluate(texts_on())
    spoil(tmp_path / "kept" / "cache.db")
    for extra in ("cache.db-wal", "cache.db-shm"):
        if (tmp_path / "kept").is_dir():
            (tmp_path / "kept" / extra).unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        oracle, inner = cached(tmp_path / "kept")
        answers = [oracle.evaluate(texts_on()) for _ in range(3)]
    assert all(same_bits(answer, Reader().evaluate(texts_on())) for answer in answers)
    assert len(inner.asked) == 9
    assert [answer.counts.get("cache_failures", 0) for answer in answers] == [1, 0, 0]
    (record,) = caplog.records
    assert "continues without it" in record.getMessage()


def test_a_directory_that_breaks_in_mid_run_costs_nothing_but_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle, _ = cached(tmp_path)
    oracle.evaluate(texts_on())

    def broken(*arguments: Any, **more: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(oracle._answers, "get", broken)
    answer = oracle.evaluate(texts_on())
    assert same_bits(answer, Reader().evaluate(texts_on()))
    assert answer.counts["cache_failures"] == 1
    assert answer.cost.queries == 3


def test_values_that_are_no_logits_are_asked_for_again_and_nothing_is_unpickled(tmp_path: Path) -> None:
    oracle, inner = cached(tmp_path)
    oracle.evaluate(texts_on(MIXED, "a", "b", "c"))
    with sqlite3.connect(tmp_path / "cache.db") as database:
        rows = [row for (row,) in database.execute("SELECT rowid FROM Cache ORDER BY rowid")]
        database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (b"short", rows[0]))
        nan = np.full((len(MIXED.examples), 2), np.nan, dtype="<f4").tobytes()
        database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (nan, rows[1]))
        call = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
        database.execute("UPDATE Cache SET value = ?, mode = 4 WHERE rowid = ?", (call, rows[2]))
    answer = oracle.evaluate(texts_on(MIXED, "a", "b", "c"))
    assert same_bits(answer, Reader().evaluate(texts_on(MIXED, "a", "b", "c")))
    assert inner.asked == ["a", "b", "c"] * 2
    assert not (tmp_path / "ran").exists()


def test_nothing_of_prompts_and_examples_stands_on_the_disk(tmp_path: Path) -> None:
    oracle: LossOracle = cached(tmp_path)[0]
    oracle.evaluate(texts_on(MIXED, "a very secret prompt"))
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"secret" not in stored
    assert all(example.text.encode() not in stored for example in MIXED.examples if len(example.text) > 8)


# --------------------------------------------------------------------------------------------- a stranger's directory
@pytest.mark.parametrize("name", ["../victim", "{outside}/victim", "link/victim", "victim.link"])
def test_files_outside_of_the_directory_are_neither_read_nor_removed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    directory = tmp_path / "kept"
    with diskcache.Cache(str(directory), disk=_BytesDisk) as cache:
        cache.set("old", b"x", expire=0.001)
        cache.set("asked", b"x")
        cache._sql(
            "UPDATE Cache SET filename = ?, mode = ?", (name.format(outside=tmp_path), diskcache.core.MODE_BINARY)
        )
    (directory / "link").symlink_to(tmp_path)
    (directory / "victim.link").symlink_to(victim)
    with diskcache.Cache(str(directory), disk=_BytesDisk) as cache:
        assert cache.get("asked") is None
        cache.set("asked", b"new")
        cache.expire()
        cache.delete("old")
        assert cache.get("asked") == b"new"
        cache.clear()
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("name", [b"../victim", 7, "a\0b"])
def test_what_is_no_name_of_a_file_is_no_answer(tmp_path: Path, name: Any) -> None:
    with diskcache.Cache(str(tmp_path / "kept"), disk=_BytesDisk) as cache:
        cache.set("asked", b"x")
        cache._sql("UPDATE Cache SET filename = ?, mode = ?", (name, diskcache.core.MODE_BINARY))
        assert cache.get("asked") is None


def test_large_answers_stand_in_the_table_and_those_in_files_of_before_are_read(tmp_path: Path) -> None:
    large = bytes(200_000)
    with diskcache.Cache(str(tmp_path / "kept")) as cache:
        cache.set("before", large)
    files = {path.suffix for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert ".val" in files
    with diskcache.Cache(str(tmp_path / "kept"), disk=_BytesDisk) as cache:
        assert cache.get("before") == large
        cache.set("after", large + b"x")
        cache.delete("before")
        assert cache.get("after") == large + b"x"
    assert not list((tmp_path / "kept").rglob("*.val"))
