"""GEPA. ``python -m benchmarks.peers.gepa_peer JOB SHIPPED``.

Unmodified: its default adapter and its own client. It reflects on rows of train and keeps what is better on dev.
"""

import time

import gepa
from gepa.adapters.default_adapter.default_adapter import DefaultAdapter
from gepa.lm import LM
from gepa.utils.stop_condition import MaxCandidateProposalsStopper, TimeoutStopCondition

from benchmarks.peers.job import ALL, TEMPERATURE, Job, Row, Shipped, main

WORKERS = 32  # requests at once
MINIBATCH = 3  # GEPA's own; rows that an instruction and the one after it are compared on


def examples(rows: tuple[Row, ...]) -> list[dict[str, object]]:
    """Return rows as GEPA's default adapter takes them."""
    return [{"input": row.text + row.cue, "additional_context": {}, "answer": row.answer} for row in rows]


def search(job: Job) -> Shipped:
    """Evolve the manual prompt until the forwards or the seconds are spent, and ship the best on dev."""
    asked = {"extra_body": job.asked_for_label(ALL), "max_tokens": 1, "api_base": job.url, "api_key": "none"}
    adapter = DefaultAdapter(f"openai/{job.model}", None, WORKERS, asked)
    reflection = LM(
        f"openai/{job.model}",
        TEMPERATURE,
        job.write_tokens,
        num_retries=0,
        api_base=job.url,
        api_key="none",
    )
    most = job.forwards - 2 * MINIBATCH - len(job.dev)  # a last iteration goes beyond it by so many
    began = time.monotonic()
    found = gepa.optimize(
        seed_candidate={"instruction": job.instruction},
        trainset=examples(job.train),
        valset=examples(job.dev),
        adapter=adapter,
        reflection_lm=reflection,
        reflection_minibatch_size=MINIBATCH,
        max_metric_calls=most,
        stop_callbacks=[MaxCandidateProposalsStopper(job.proposals), TimeoutStopCondition(job.seconds)],
        raise_on_exception=False,
        seed=job.seed,
    )
    calls = found.total_metric_calls or 0
    told = {
        "metric calls": calls,
        "input tokens, proposer": reflection.total_tokens_in,
        "output tokens, proposer": reflection.total_tokens_out,
        "candidates": [candidate["instruction"] for candidate in found.candidates],
        "dev": list(found.val_aggregate_scores),
    }
    late = time.monotonic() - began > job.seconds
    ended = "forwards" if calls >= most else "seconds" if late else "proposals"
    return Shipped(found.best_candidate["instruction"], ended=ended, told=told)


if __name__ == "__main__":
    main(search)
