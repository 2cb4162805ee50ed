import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import build
from distributed_tuner.tasks.demo import DATA

TEAMS = {"billing", "shipping", "technical", "account"}


@pytest.fixture(scope="module")
def rows():
    return {
        split: [json.loads(line) for line in (DATA / f"demo_{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    }


def shingles(text: str, size: int = 4) -> set[str]:
    letters = "".join(c for c in text.lower() if c.isalnum())
    return {letters[i : i + size] for i in range(max(1, len(letters) - size + 1))}


def test_the_demo_is_large_and_balanced(rows):
    assert len(rows["train"]) + len(rows["test"]) >= 480
    for split in rows.values():
        counts = Counter(row["label"] for row in split)
        assert set(counts) == TEAMS and len(set(counts.values())) == 1


def test_no_message_of_the_test_set_is_nearly_one_of_the_pool(rows):
    pool = [shingles(row["text"]) for row in rows["train"]]
    closest = max(len(a & b) / len(a | b) for a in (shingles(row["text"]) for row in rows["test"]) for b in pool)
    assert closest < 0.25
    texts = [row["text"].lower() for split in rows.values() for row in split]
    assert len(set(texts)) == len(texts)


def test_both_splits_have_short_and_long_messages_alike(rows):
    def shares(split):
        words = [len(row["text"].split()) for row in split]
        return [sum(low <= n < high for n in words) / len(words) for low, high in ((1, 9), (9, 31), (31, 200))]

    assert shares(rows["train"]) == pytest.approx(shares(rows["test"]), abs=0.03)
    assert min(shares(rows["test"])) > 0.2


def test_the_demo_task_needs_no_setting():
    task = build(DemoTaskConfig(), Path())
    assert (len(task.train), len(task.dev), len(task.test)) == (64, 64, 288)
    assert task.label_words == (" billing", " shipping", " technical", " account")
    example = task.test[0]
    assert example.text.startswith("Message: ") and example.cue == "\nTeam:"
    assert all(team in task.manual_prompt for team in TEAMS)


def test_a_task_is_cheap_to_send():
    task = build(DemoTaskConfig(), Path())
    sent = pickle.dumps(task)
    assert len(sent) < 200_000
    assert pickle.loads(sent) == task


def test_overrides_of_the_demo():
    words = {"account": "D", "technical": "C", "shipping": "B", "billing": "A"}
    settings = {"template": "{text} Team: {label_word}", "label_words": words, "shots": 2, "test_limit": 10}
    task = build(DemoTaskConfig(manual_prompt="", **settings), Path())
    assert (task.label_names[0], task.label_words[0], task.manual_prompt) == ("account", " D", "")
    assert Counter(e.label for e in task.test).most_common()[-1][1] == 2 and len(task.test) == 10
    with pytest.raises(TaskError, match="billing, shipping, technical, account"):
        build(DemoTaskConfig(label_words={"a": "x", "b": "y"}), Path())
    with pytest.raises(TaskError, match="no column of the demo data"):
        build(DemoTaskConfig(template="{message} {label_word}"), Path())


def test_building_the_demo_loads_no_heavy_library():
    program = """if True:
        import sys
        from pathlib import Path
        from distributed_tuner.config.task import DemoTaskConfig
        from distributed_tuner.tasks import build
        build(DemoTaskConfig(), Path())
        print([name for name in ("pandas", "datasets", "torch", "transformers", "ray") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
