"""The loss oracle as the benchmarks ask it: explicit rows, so that the plain way gets the very same prompt."""

from typing import Any

from benchmarks.plain import candidate_rows
from distributed_tuner.values import Batch, Layout, Point, PromptSpec, Request


def request(layout: Layout, candidates: int, length: int, width: int, batch: Batch) -> Request:
    """Return the request of so many candidates; with base rows of zero and unit 1, coordinates are the rows."""
    points = tuple(Point(candidate_rows(i, length, width).reshape(-1)) for i in range(candidates))
    return Request(points, batch, PromptSpec(length, "zeros", "", layout, "paper"))


def plain_model(name: str, dtype: str) -> tuple[Any, Any]:
    """Load model and tokenizer with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from distributed_tuner.oracles.local.loading import locate

    logging.disable_progress_bar()
    where = locate(name)
    model = AutoModelForCausalLM.from_pretrained(where, dtype=getattr(torch, dtype))
    return model.eval(), AutoTokenizer.from_pretrained(where)
