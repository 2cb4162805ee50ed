"""The benchmark of label phrases, on a tiny model: its numbers mean nothing there, its arithmetic does."""

from pathlib import Path

import pytest

from benchmarks.families import FAMILIES, make
from benchmarks.phrases import Case, Measured, Wording, lines, measure
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.local.model_facts import CountedModel
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.oracles.tokens.encoding import Encoder

CASE = Case("SST-2", "prefix", 4, 2)


@pytest.mark.model
def test_every_wording_is_measured_beside_single_words(tmp_path: Path) -> None:
    config = TransformersOracleConfig(model=str(make(FAMILIES["LLaMA"], tmp_path)), dtype="float32", threads=1)
    facts = CountedModel(config)
    encoder = Encoder(facts.tokenizer, facts.facts.context)
    wordings: list[Wording] = [("two", (" not good", " really bad"), "sum"), ("one", (" good", " bad"), "mean")]
    found = measure(TransformersOracle(config), encoder, CASE, 2, (" good", " bad"), wordings)
    assert [one.wording for one in found] == ["two", "one"]
    assert [len(one.seconds) for one in found] == [2, 2]
    assert found[0].tokens > found[1].tokens == 1


def test_the_verdict_goes_by_the_median() -> None:
    shown = lines([Measured(CASE, "a", (1.1, 1.2, 3.0), 1.05), Measured(CASE, "b", (1.2, 1.4, 1.5), 1.05)])
    assert "| 1.20 | 1.10 to 3.00 | 1.05 | met |" in shown[2]
    assert "| 1.40 | 1.20 to 1.50 | 1.05 | missed |" in shown[3]
