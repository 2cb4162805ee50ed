"""Cases of the sanity check: for each layout of the trials' prompts, a few prompts on a few examples.

Pure: what must agree is oracles/checks/parity.py's, and what follows from it the run's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.oracles.checks.parity import EXAMPLES, TIMES, Canaries, canaries
from distributed_tuner.prompts.spec import prompt_spec, start_text
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import LABEL_WORDS, Batch, PromptSpec, Request


@dataclass(frozen=True, slots=True)
class ParityCase:
    """One layout's first prompt, its task, and a prompt in words."""

    layout: str
    prompt: PromptSpec
    task: Task
    text: str

    @property
    def batch(self) -> Batch:
        """The examples that parity cases are scored on."""
        train = self.task.batch("train", range(min(EXAMPLES, len(self.task.train))))
        return replace(train, objective=LABEL_WORDS, answer_words=())

    def canaries(self, width: int, embedding_std: float) -> Canaries:
        """Return the prompts that are scored; ``width`` and ``embedding_std`` are those of the model's embeddings."""
        return canaries(self.text, self.prompt, width, embedding_std)

    def requests(self, width: int) -> list[Request]:
        """Return requests that cost what the sanity check asks."""
        asked = Request(tuple(self.canaries(width, 1.0).values()), self.batch, self.prompt)
        return [asked] * TIMES


def passes_unasked(config: OracleConfig) -> bool:
    """Whether the sanity check skips this oracle.

    A model of transformers computes what the plain pass does: they are compared when it is loaded
    (oracles/checks/packing.py).
    """
    return config.kind == "transformers"


def parity_cases(experiments: Sequence[Experiment], tasks: Sequence[Task]) -> list[ParityCase]:
    """Return a case for each layout of the trials' prompts."""
    found: dict[str, ParityCase] = {}
    for experiment, task in zip(experiments, tasks, strict=True):
        if task.has_targets and task.steers == "metric":
            continue  # texts have no losses that could be near each other
        if not passes_unasked(experiment.oracle):
            prompt = prompt_spec(experiment.prompt, task)
            layout = prompt.layout if prompt.length else "text"
            found.setdefault(layout, ParityCase(layout, prompt, task, start_text(experiment.prompt, task)))
    return list(found.values())
