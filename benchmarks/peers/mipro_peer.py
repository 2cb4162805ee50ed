"""DSPy's MIPROv2. ``python -m benchmarks.peers.mipro_peer JOB SHIPPED``.

Unmodified: its LM client and optimizer. The classifier is a dspy.Predict with an adapter of ours, by which the model
reads instruction, demonstrations and text in the task's own template: DSPy's chat format is several times as long, and
too much for a small model. Proposals are asked for in DSPy's own format and read leniently. Demonstrations come from
train, scores from dev.
"""

from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from benchmarks.peers.job import LAST, Job, Row, Shipped, demonstrated, main, trials_of

CANDIDATES = 4  # instructions, and sets of demonstrations
THREADS = 32
PATIENCE = 10**9  # failed rows, which the caps cause


class WordedAdapter(dspy.Adapter):  # type: ignore[misc]  # not typed where DSPy is not installed
    """Reads a classifier's prompt as one text, and its answer as the label."""

    def __init__(self, words: dict[str, str]) -> None:
        super().__init__()
        self._words = words

    def format(self, signature: Any, demos: list[Any], inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the one message."""
        front = demonstrated(signature.instructions, demos, self._words)
        return [{"role": "user", "content": f"{front}\n{inputs['text']}"}]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Return the label."""
        return {"label": completion.strip()}


class LenientAdapter(dspy.ChatAdapter):  # type: ignore[misc]  # likewise
    """Asks as DSPy does; an answer without DSPy's marks counts as a whole, which ends MIPROv2 otherwise."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Return the output fields."""
        try:
            found: dict[str, Any] = super().parse(signature, completion)
        except AdapterParseError:
            *others, last = signature.output_fields
            return dict.fromkeys(others, "") | {last: completion.strip()}
        return found


class Classifier(dspy.Module):  # type: ignore[misc]  # likewise
    """Classifies a text."""

    def __init__(self, instruction: str, adapter: WordedAdapter) -> None:
        super().__init__()
        self.predict = dspy.Predict(dspy.Signature("text -> label", instruction))
        self._adapter = adapter

    def forward(self, text: str) -> Any:
        """Return a prediction with a label."""
        with dspy.context(adapter=self._adapter):
            return self.predict(text=text)


def examples(rows: tuple[Row, ...]) -> list[Any]:
    """Return rows as DSPy takes them."""
    return [dspy.Example(text=row.text + row.cue, label=row.answer).with_inputs("text") for row in rows]


def right(example: Any, prediction: Any, trace: Any = None) -> bool:
    """Tell whether a label is right."""
    return bool(example.label == prediction.label)


def search(job: Job) -> Shipped:
    """Search instructions and demonstrations, and ship the best on dev."""
    words = {word.strip(): word for word in job.label_words}
    trials = trials_of(job, CANDIDATES)
    task = dspy.LM(
        f"openai/{job.model}",
        temperature=0,
        max_tokens=1,
        num_retries=0,
        api_base=job.url,
        api_key="none",
        extra_body=job.asked_for_label(LAST),
    )
    proposer = dspy.LM(
        f"openai/{job.model}",
        max_tokens=job.write_tokens,
        num_retries=0,
        api_base=job.url,
        api_key="none",
    )
    dspy.configure(lm=task, adapter=LenientAdapter())
    optimizer = dspy.MIPROv2(
        right,
        prompt_model=proposer,
        task_model=task,
        auto=None,
        num_candidates=CANDIDATES,
        num_threads=THREADS,
        max_errors=PATIENCE,
        seed=job.seed,
    )
    best = optimizer.compile(
        Classifier(job.instruction, WordedAdapter(words)),
        trainset=examples(job.train),
        valset=examples(job.dev),
        num_trials=trials,
        minibatch=False,
    )
    shipped = demonstrated(best.predict.signature.instructions, best.predict.demos, words)
    told = {
        "trials": trials,
        "dev": [one["score"] for one in best.candidate_programs],
        "instructions": sorted({one["program"].predict.signature.instructions for one in best.candidate_programs}),
    }
    return Shipped(shipped, ended="trials", told=told)


if __name__ == "__main__":
    main(search)
