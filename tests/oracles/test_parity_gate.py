"""The sanity check: an oracle passes that answers what it is asked, and none that mixes, shares, drifts or adds."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from completions_server import Asked, CompletionsServer, Reply, answered, opinion
from tiny_models import MIXED, SPEC

from distributed_tuner import oracles
from distributed_tuner.config.oracle import (
    AnalyticOracleConfig,
    OpenAIOracleConfig,
    Tile,
    TransformersOracleConfig,
    VllmOracleConfig,
)
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle, evaluation
from distributed_tuner.oracles.checks.parity import EXAMPLES, STEADY, Canaries, Parity, Plain, canaries, check
from distributed_tuner.oracles.checks.reference_forward import plain_config, plain_logits
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Array, Evaluation, OracleInfo, PromptSpec, Request, Text

Bend = Callable[[Request, Array], Array]
HINT = "usual causes: a token twice"


class Bent(WrappedOracle):
    """An oracle whose logits (C, E, W) are bent. ``requests``: what it was asked."""

    def __init__(self, bend: Bend = lambda request, logits: logits, tokens: int = 0) -> None:
        super().__init__(oracles.build(AnalyticOracleConfig(kind="analytic")))
        self.requests: list[Request] = []
        self._bend = bend
        self._tokens = tokens

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        self.requests.append(request)
        answer = super().evaluate(request, timeout)
        more = replace(answer.cost, tokens=answer.cost.tokens + self._tokens * answer.cost.forwards)
        return evaluation(self._bend(request, answer.logits.copy()), request.batch, more, counts={"absent_labels": 1})


def no_plain(_: Request) -> None:
    return None


def asked_of(oracle: LossOracle, spec: PromptSpec) -> Canaries:
    return canaries("Classify", spec, oracle.info.width, oracle.info.embedding_std)


def gate(oracle: LossOracle, plain: Plain = no_plain) -> Parity:
    return check(oracle, asked_of(oracle, SPEC), MIXED, SPEC, plain, HINT)


def soft(request: Request) -> list[int]:
    return [i for i, candidate in enumerate(request.candidates) if not isinstance(candidate, Text)]


# ------------------------------------------------------------------------------------------------------- passes
def test_an_oracle_that_answers_what_it_is_asked_passes_and_what_it_cost_is_told() -> None:
    oracle = Bent()
    found = gate(oracle)
    assert (found.repeated, found.plain, found.beyond, found.noisy) == (0.0, None, 0.0, False)
    assert found.together < 1e-5
    rows = len(MIXED.examples[:EXAMPLES])
    assert (found.cost.queries, found.cost.forwards) == (3 * 5, 3 * 5 * rows)
    assert found.counts == {"absent_labels": 7}
    assert all(request.fresh for request in oracle.requests)
    assert {len(request.batch.examples) for request in oracle.requests} == {rows}


def test_tiles_pass_as_well() -> None:
    oracle = oracles.build(AnalyticOracleConfig(kind="analytic"))
    assert not gate(TiledOracle(oracle, Tile(candidates=2, examples=3))).noisy


def test_a_model_of_transformers_would_pass(tiny_oracle: Callable[..., LossOracle]) -> None:
    for layout in ("prefix", "suffix"):
        oracle, spec = tiny_oracle("llama"), replace(SPEC, layout=layout)
        found = check(
            oracle,
            asked_of(oracle, spec),
            MIXED,
            spec,
            no_plain,
            HINT,
        )
        assert found.together < STEADY


def test_a_noisy_endpoint_passes_and_is_known_to_be_noisy() -> None:
    noise = np.random.default_rng(0)
    found = gate(Bent(lambda _, logits: logits + noise.normal(0, 0.05, logits.shape).astype(np.float32)))
    assert STEADY < found.repeated < 0.5
    assert found.noisy


def test_failed_examples_are_left_out_of_the_comparison() -> None:
    def fail(request: Request, logits: Array) -> Array:
        logits[:, 1:3] = np.nan
        return logits

    assert not gate(Bent(fail)).noisy


# ------------------------------------------------------------------------------------------------------- is refused
def swapped(request: Request, logits: Array) -> Array:
    return logits[::-1] if len(logits) > 1 else logits


def test_swapped_candidates_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"alone and among others.*it has the answer of .*mixes up requests"):
        gate(Bent(swapped))


def test_one_candidates_rows_for_all_soft_ones_are_refused() -> None:
    first: list[Array] = []

    def shared(request: Request, logits: Array) -> Array:
        for i in soft(request):
            first.append(logits[i])
            logits[i] = first[0]
        return logits

    with pytest.raises(ModelError, match=r"losses of their own, but .* are 0 apart.*keys and values"):
        gate(Bent(shared))


def test_rows_that_hardly_count_are_refused_where_the_plain_path_tells_them_apart() -> None:
    def flattened(request: Request, logits: Array) -> Array:
        chosen = soft(request)
        logits[chosen] = 0.01 * logits[chosen]
        return logits

    plain = oracles.build(AnalyticOracleConfig(kind="analytic"))
    with pytest.raises(ModelError, match=r"losses of their own, but .* apart instead of"):
        gate(Bent(flattened), lambda request: plain.evaluate(request).logits)


def test_an_answer_that_depends_on_the_question_before_is_refused() -> None:
    before: list[Array] = []

    def drifting(request: Request, logits: Array) -> Array:
        bent = logits + (before[-1] if before else 0)
        before.append(logits.mean(axis=0) + np.float32([2.0, 0.0]))
        return np.asarray(bent, dtype=np.float32)

    with pytest.raises(ModelError, match="asked again"):
        gate(Bent(drifting))


def test_wild_noise_is_refused() -> None:
    noise = np.random.default_rng(0)
    with pytest.raises(ModelError, match=r"the same question must have about the same answer.*another endpoint"):
        gate(Bent(lambda _, logits: logits + noise.normal(0, 3, logits.shape).astype(np.float32)))


@pytest.mark.parametrize("off", [0.003, 0.3])
def test_the_plain_path_must_agree(off: float) -> None:
    plain = oracles.build(AnalyticOracleConfig(kind="analytic"))

    def other(request: Request) -> Array:
        assert len(request.batch.examples) <= EXAMPLES
        logits = plain.evaluate(request).logits
        labels = [example.label for example in request.batch.examples]
        logits[:, np.arange(len(labels)), labels] += np.float32(off)
        return logits

    if off < 0.01:
        found = gate(Bent(), other)
        assert found.plain is not None
        assert 0 < found.plain < 0.01
    else:
        with pytest.raises(ModelError, match=f"as transformers does, but beside it it is off by .*{HINT}"):
            gate(Bent(), other)


def test_answers_without_any_label_word_are_refused() -> None:
    with pytest.raises(ModelError, match=r"none of \d+ answers had any of \[' terrible', ' great'\].*top_logprobs"):
        gate(Bent(lambda _, logits: np.full_like(logits, np.nan)))


def test_tokens_beyond_those_counted_are_measured() -> None:
    assert gate(Bent(tokens=1)).beyond == 1.0
    assert gate(Bent(tokens=25)).beyond == 25.0


# ------------------------------------------------------------------------------------------------------- servers
def served(oracle: LossOracle) -> Parity:
    return check(
        oracle,
        asked_of(oracle, NO_ROWS),
        MIXED,
        NO_ROWS,
        no_plain,
        HINT,
    )


def test_a_server_passes_with_prompts_in_words(make: Callable[..., LossOracle], server: CompletionsServer) -> None:
    found = served(make())
    assert (found.repeated, found.together, found.noisy) == (0.0, 0.0, False)
    assert found.cost.forwards == len(server.asked) == 3 * 2 * len(MIXED.examples[:EXAMPLES])


def test_a_server_that_answers_with_what_another_was_asked_is_refused(
    make: Callable[..., LossOracle], server: CompletionsServer
) -> None:
    def stale(asked: Asked) -> Reply:
        alone = len(server.asked) > 2 * 2 * len(MIXED.examples[:EXAMPLES])
        shown = asked if alone else Asked(asked.path, {**asked.body, "prompt": "good " * 200 * len(asked.prompt)}, None)
        return opinion(shown)

    server.answer = stale
    with pytest.raises(ModelError, match="alone and among others"):
        served(make())


def test_a_server_that_never_names_a_label_is_refused(
    make: Callable[..., LossOracle], server: CompletionsServer
) -> None:
    server.answer = lambda asked: answered(asked, {" the": -0.1, " a": -3.0})
    with pytest.raises(ModelError, match="set words that it would write"):
        served(make())


# ------------------------------------------------------------------------------------------------------- plain path
def test_which_models_have_a_plain_path_here() -> None:
    info = OracleInfo("m", 1, 1, 1, 1.0, "bfloat16", "cpu")
    served = {"kind": "openai", "model": "m", "api": "completions", "embeddings": "e"}
    found = plain_config(VllmOracleConfig(kind="vllm", model="v", revision="r"), info)
    assert found is not None
    assert (found.model, found.revision, found.dtype, found.device) == ("v", "r", "bfloat16", "cpu")
    found = plain_config(OpenAIOracleConfig(**served), replace(info, dtype="served"))
    assert found is not None
    assert (found.model, found.dtype) == ("e", "float32")
    for update in ({"api": "chat"}, {"scores": "generated"}, {"embeddings": None}):
        assert plain_config(OpenAIOracleConfig(**(served | update)), info) is None
    assert plain_config(AnalyticOracleConfig(kind="analytic"), info) is None


@pytest.mark.slow
def test_the_plain_pass_is_the_plain_model_in_a_process_of_its_own(
    tiny_config: Callable[..., TransformersOracleConfig], tiny_oracle: Callable[..., LossOracle]
) -> None:
    oracle = tiny_oracle("llama")
    asked = Request(tuple(asked_of(oracle, SPEC).values()), MIXED, SPEC)
    np.testing.assert_allclose(
        plain_logits(tiny_config("llama"), asked), oracle.evaluate(asked).logits, atol=1e-4, rtol=1e-4
    )


def test_a_plain_model_that_is_not_here_is_told_of(tmp_path: Path) -> None:
    config = TransformersOracleConfig(kind="transformers", model=str(tmp_path / "none"))
    with pytest.raises(ModelError, match="a local model must be a directory"):
        plain_logits(config, Request((Text(""),), MIXED, SPEC))
