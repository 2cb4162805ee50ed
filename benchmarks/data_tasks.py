"""Tasks whose examples lie in a folder with train.jsonl and test.jsonl: how the benchmarks word them."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DataTask:
    """How a task's data are worded. ``init``: the words that the prompt starts from."""

    description: str
    words: dict[str, str]
    template: str
    manual: str
    init: str
    shots: int
    feedback: int
    text: tuple[str, ...] = ("text",)

    def settings(self, data: Path, splits: str, test_limit: int) -> list[str]:
        """Return what is set for the task of an experiment: its files, wording and splits."""
        folder = data.resolve()
        given = {
            "kind": "file",
            "train": str(folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "text": list(self.text),
            "label": "label",
            "description": self.description,
            "template": self.template,
            "label_words": self.words,
            "manual_prompt": self.manual,
            "shots": self.shots,
            "feedback": self.feedback,
            "test_limit": test_limit,
        }
        return [f"task={json.dumps(given)}", f"task.split_seed=!grid [{splits}]"]


TASKS: dict[str, DataTask] = {
    "sst2": DataTask(
        "the sentiment of a sentence from a film review",
        {"negative": " terrible", "positive": " great"},
        "{text} It was{label_word}",
        "Classify the movie review.",
        " Overall I thought that the movie as a whole",
        shots=16,
        feedback=4,
    ),
    "agnews": DataTask(
        "the topic of a news article",
        {"world": " World", "sports": " Sports", "business": " Business", "technology": " Technology"},
        "{text} Topic:{label_word}",
        "Classify the news article.",
        " What is this piece of news about?",
        shots=8,
        feedback=2,
    ),
    "rte": DataTask(
        "whether the first text implies the second",
        {"entailment": " Yes", "not_entailment": " No"},
        "{premise} Question: {hypothesis} Answer:{label_word}",
        "Does the first text imply the second? Yes or No.",
        " Think of what it says, then answer Yes or No.",
        shots=16,
        feedback=4,
        text=("premise", "hypothesis"),
    ),
}
