"""Heads fitted to other prompts' answers: which rows each fit is given, and that all are scored on the same ones."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.pooled_head import FITS, OTHERS, accuracies, task_of
from distributed_tuner.oracles.base import labels_of
from distributed_tuner.values import Cost, Evaluation, Request


class Shifting:
    """An oracle whose first candidate answers with the label, and all others with its opposite."""

    info = SimpleNamespace(width=3)

    def evaluate(self, request: Request) -> Evaluation:
        labels = labels_of(request.batch)
        stream = np.random.default_rng(len(labels))
        features = stream.normal(0, 0.1, (len(request.candidates), len(labels), 6))
        for place, candidate in enumerate(features):
            said = labels if place == 0 else 1 - labels
            candidate[np.arange(len(labels)), 2 + said] += 3
        empty: Any = np.zeros((len(request.candidates), len(labels), 2), np.float32)
        return Evaluation(empty[:, 0, 0], empty[..., 0], empty, Cost(), features=features.astype(np.float16))


def test_each_fit_has_its_own_rows(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    rows = [{"text": f"{label} {i}", "label": label} for label in ("negative", "positive") for i in range(40)]
    for split in ("train", "test"):
        (tmp_path / "sst2" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (" a", " b", " c", " d")
    task, wide = (replace(task_of("sst2", tmp_path, 0, shots, 60), answer_words=words) for shots in (2, 8))
    assert (len(task.train), len(wide.train)) == (4, 16)
    oracle: Any = Shifting()
    found = dict(zip(FITS, accuracies(task, wide, oracle), strict=True))
    assert found["its own answers"] == found["its own, to four times the rows"] == 1.0
    assert found["the others' alone"] == 0.0
    assert found["its own and the others'"] < 0.5, f"{OTHERS} say otherwise"
