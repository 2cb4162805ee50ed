"""promptolution's CAPO and EvoPrompt. ``python -m benchmarks.peers.promptolution_peer JOB SHIPPED capo|evoprompt``.

Unmodified: its own API client, predictor and optimizers. Few-shot rows come from train, scores from dev. A prompt with
few-shot rows has promptolution's own cue ("Output:", a line for itself); one without has the task's.
"""

import random
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from promptolution.llms import APILLM
from promptolution.optimizers import CAPO, EvoPromptGA
from promptolution.predictors import FirstOccurrencePredictor
from promptolution.tasks import ClassificationTask
from promptolution.utils.callbacks import BaseCallback

from benchmarks.peers.job import TEMPERATURE, Job, Row, Shipped, cued_template, main

OUTPUT = "\nOutput:\n"
BLOCK = 16  # dev rows of a block, after each of which CAPO races
POPULATION = 5
MOST_STEPS = 1000


class Stopping(BaseCallback):  # type: ignore[misc]  # not typed where promptolution is not installed
    """Ends a search after its seconds. What else it may spend, the server refuses."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.steps = 0
        self.until = time.monotonic() + seconds

    def on_step_end(self, optimizer: Any) -> bool:
        """Count a step, and say whether there may be another."""
        self.steps += 1
        return time.monotonic() < self.until


def frame(rows: tuple[Row, ...]) -> pd.DataFrame:
    """Return rows as promptolution takes them."""
    return pd.DataFrame({"x": [row.text for row in rows], "y": [row.answer for row in rows]})


def search(job: Job) -> Shipped:
    """Run CAPO or EvoPrompt until the server refuses, and ship the best prompt."""
    random.seed(job.seed)
    np.random.seed(job.seed)
    asked = {"extra_body": job.asked_for_label(cued_template(job.train[0].cue, OUTPUT)), "temperature": 0}
    patient: dict[str, Any] = {"max_retries": 0, "call_timeout_s": job.seconds, "gather_timeout_s": job.seconds}
    llm = APILLM(job.url, job.model, "none", call_kwargs=asked, max_tokens=1, **patient)
    writing = {"temperature": TEMPERATURE}
    meta = APILLM(job.url, job.model, "none", call_kwargs=writing, max_tokens=job.write_tokens, **patient)
    names = [word.strip() for word in job.label_words]
    predictor = FirstOccurrencePredictor(llm, classes=names)
    task = ClassificationTask(frame(job.dev), job.description, n_subsamples=BLOCK, seed=job.seed)
    stopping = Stopping(job.seconds)
    given: dict[str, Any] = {
        "predictor": predictor,
        "task": task,
        "meta_llm": meta,
        "initial_prompts": list(job.instructions[:POPULATION]),
        "callbacks": [stopping],
    }
    optimizer = EvoPromptGA(**given) if "evoprompt" in sys.argv else CAPO(**given, df_few_shots=frame(job.train))
    best = optimizer.optimize(MOST_STEPS)[0].construct_prompt()
    shots = OUTPUT in best
    told = {
        "steps": stopping.steps,
        "words of input, label model": llm.input_token_count,
        "words of input, proposer": meta.input_token_count,
        "prompts": [str(prompt) for prompt in optimizer.prompts],
    }
    ended = "seconds" if time.monotonic() >= stopping.until else ""
    words = tuple(names) if shots else None
    return Shipped(best, cue=OUTPUT if shots else None, label_words=words, ended=ended, told=told)


if __name__ == "__main__":
    main(search)
