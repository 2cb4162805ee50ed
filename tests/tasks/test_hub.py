from collections import Counter
from typing import get_args

import datasets
import pytest

from distributed_tuner.config.task import HubTaskConfig, HubTaskName
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import build
from distributed_tuner.tasks.hub_table import HUB_TASKS

ALL = get_args(HubTaskName)
PAIR = {"sentence1": "one {i}", "sentence2": "two {i}"}
COLUMNS = {
    "sst2": {"sentence": "film {i} "},
    "yelp_polarity": {"text": "nice\\n\\nplace\n{i}"},
    "agnews": {"text": "news {i}"},
    "dbpedia": {"title": "T", "content": " thing {i}"},
    "mrpc": PAIR,
    "snli": {"premise": "p {i}", "hypothesis": "h {i}"},
    "rte": PAIR,
    "copa": {"premise": "It rained {i}.", "choice1": "a", "choice2": "b", "question": "effect"},
    "cola": {"sentence": "It is {i}."},
    "boolq": {"question": "is it {i}", "passage": "It is."},
    "wic": {"sentence1": "Bank {i}.", "sentence2": "A bank.", "word": "bank"},
    "wsc": {"text": "Ann met Eve; she smiled {i}.", "span1_text": "Ann", "span2_text": "she"},
}
# The whole of one example: text | cue | label word | tail, label index 1.
CAUSAL = {
    "sst2": "film 1| . The sentiment is| positive|",
    "yelp_polarity": "nice place 1| . It is| positive|",
    "agnews": "news 1| The news above is about| sports|",
    "dbpedia": "thing 1| The text above is about| education|",
    "mrpc": "one 1 , two 1| ? The answer is| Yes|",
    "snli": "p 1 , h 1| ? The answer is| Maybe|",
    "rte": "one 1 , two 1| ? The answer is| No|",
    "copa": "It rained 1. so ... choice1: a choice2: b| The answer is choice|2|",
    "cola": "It is 1.| . It was| acceptable|",
    "boolq": "question: is it 1 . passage: It is.| . yes or no?| yes|",
    "wic": "Bank 1. A bank. Does bank| have the same meaning in both sentences?| yes|",
    "wsc": "she: Ann met Eve; she smiled 1. Does she refer to Ann|?| yes|",
}
MASKED = {
    "sst2": ". film 1| . It was| great| .",
    "yelp_polarity": ". nice place 1| . It was| great| .",
    "agnews": "|.| Sports| News: news 1",
    "dbpedia": "|[ Category:| Education| ] thing 1",
    "mrpc": ". one 1| ?| Yes| , two 1",
    "snli": ". p 1| ?| Maybe| , h 1",
    "rte": ". one 1| ?| No| , two 1",
    "copa": ". premise: It rained 1. . choice1: a . choice2: b . question: effect| . It was| 1| .",
    "cola": ". It is 1.| . It was| acceptable| .",
    "boolq": ". question: is it 1 . passage It is.| . yes or no?| yes|",
    "wic": ". Bank 1. A bank. Does bank| have the same meaning in both sentences?| yes| .",
    "wsc": ". she: Ann met Eve; she smiled 1. Does she refer to Ann|?| yes| .",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(kind: str, per_class: int = 3):
    classes = len(HUB_TASKS[kind].label_names)
    made = {column: [] for column in (*COLUMNS[kind], "label")}
    for i in range(per_class * classes):
        for column, text in COLUMNS[kind].items():
            made[column].append(text.replace("{i}", str(i)))
        made["label"].append(i % classes)
    return datasets.Dataset.from_dict(made)


def save(kind: str, path, **more) -> str:
    splits = {"train": rows(kind), HUB_TASKS[kind].test_split: rows(kind, 2), **more}
    datasets.DatasetDict(splits).save_to_disk(path)
    return str(path)


def load(kind: str, dataset: str, root, **changes):
    return build(HubTaskConfig(kind=kind, dataset=dataset, **{"shots": 1, **changes}), root)


@pytest.mark.parametrize("family", ["causal", "masked"])
@pytest.mark.parametrize("kind", ALL)
def test_every_task_is_worded_as_its_table_says(kind, family, tmp_path):
    task = load(kind, save(kind, tmp_path / "data"), tmp_path, model_family=family)
    spec = HUB_TASKS[kind]
    classes = len(spec.label_names)
    assert Counter(e.label for e in task.train) == Counter(range(classes)) == Counter(e.label for e in task.dev)
    assert len(task.test) == 2 * classes
    example = task.test[1]
    word = task.label_words[example.label]
    worded = "|".join((example.text, example.cue, word, example.tail))
    assert worded == {"causal": CAUSAL, "masked": MASKED}[family][kind]
    assert (task.name, task.label_names, task.loss) == (kind, spec.label_names, spec.loss)
    assert task.label_rule == "first"
    assert len(task.manual_prompt) > 20 and len(task.description) > 10


def test_recommended_losses_and_metrics():
    hinge = {kind for kind in ALL if HUB_TASKS[kind].loss == "hinge"}
    assert hinge == {"mrpc", "snli", "rte"}
    metrics = {kind: HUB_TASKS[kind].metrics for kind in ALL if HUB_TASKS[kind].metrics != ("accuracy",)}
    assert metrics == {"mrpc": ("f1", "accuracy"), "cola": ("accuracy", "matthews")}
    tested = {kind for kind in ALL if HUB_TASKS[kind].test_split == "test"}
    assert tested == {"agnews", "yelp_polarity", "dbpedia", "snli"}


def test_pairs_without_a_gold_label_are_dropped(tmp_path):
    data = rows("snli").to_dict()
    data["label"][4] = -1
    unlabelled = datasets.Dataset.from_dict(data)
    task = load("snli", save("snli", tmp_path / "data", test=unlabelled), tmp_path)
    assert len(task.test) == len(unlabelled) - 1
    assert "test-4" not in {e.uid for e in task.test}


def test_the_cause_of_copa_is_asked_with_because(tmp_path):
    data = rows("copa").to_dict()
    data["question"] = ["cause"] * len(data["question"])
    task = load("copa", save("copa", tmp_path / "data", validation=datasets.Dataset.from_dict(data)), tmp_path)
    assert "It rained 0. because ..." in task.test[0].text


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv", "saved"])
def test_folders_of_splits_load_too(form, tmp_path):
    folder = tmp_path / "sst2"
    folder.mkdir()
    for split, part in (("train", rows("sst2")), ("validation", rows("sst2", 2))):
        match form:
            case "parquet":
                part.to_parquet(folder / f"{split}.parquet")
            case "jsonl":
                part.to_json(folder / f"{split}.jsonl")
            case "csv":
                part.to_csv(folder / f"{split}.csv", index=False)
            case "saved":
                part.save_to_disk(folder / split)
    task = load("sst2", "sst2", tmp_path)  # relative to the settings
    assert (len(task.train), len(task.test)) == (2, 4)


def test_cells_of_a_folder_are_read_as_they_are_written(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("sentence,label\nNA,0.0\n007,1.0\nnull,0.0\n1.50,1.0\n")
    task = load("sst2", str(tmp_path), tmp_path)
    assert [example.text for example in task.test] == ["NA", "007", "null", "1.50"]
    (tmp_path / "train.csv").write_text("sentence,label\nfine, really,1\n")
    with pytest.raises(TaskError, match=r"row 1 \(line 2\) has 3 fields"):
        load("sst2", str(tmp_path), tmp_path)


def test_a_folder_that_datasets_reads_does_not_shift_columns(tmp_path):
    for folder, line in (("some", "fine, really,1\nso, so,0\n"), ("one", "fine,1\nso, so,0\n")):
        for split in ("train", "validation"):
            file = tmp_path / folder / "data" / f"{split}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("sentence,label\n" + line)
    with pytest.raises(TaskError, match="more fields than the header"):
        load("sst2", str(tmp_path / "some"), tmp_path)
    with pytest.raises(TaskError, match="Expected 2 fields in line 3, saw 3"):
        load("sst2", str(tmp_path / "one"), tmp_path)
    (tmp_path / "train.csv").touch()
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(TaskError, match=r"one file a split, got train\.csv, train\.jsonl"):
        load("sst2", str(tmp_path), tmp_path)


def test_rows_without_text_are_refused_when_drawn_or_all_dropped(tmp_path):
    data = rows("sst2").to_dict()
    data["sentence"][1], data["label"][4] = None, None
    folder = save("sst2", tmp_path / "data", train=datasets.Dataset.from_dict(data))
    with pytest.raises(TaskError, match=r"\(train\), row 5 is empty"):
        load("sst2", folder, tmp_path)
    task = load("sst2", folder, tmp_path, on_empty="drop")
    assert {e.uid for e in (*task.train, *task.dev)} == {f"pool-{i}" for i in (0, 2, 3, 5)}
    assert f"2 of 6 rows of {folder} (train) have no text or no label and are left out" in task.warnings


def test_cells_of_the_hub_that_are_no_text_are_refused(tmp_path):
    data = datasets.Dataset.from_dict({"sentence": [{"en": "a"}] * 6, "label": [0, 1] * 3})
    with pytest.raises(TaskError, match=r"\(train\), row \d it holds a mapping"):
        load("sst2", save("sst2", tmp_path / "data", train=data), tmp_path)


def test_labels_may_be_names(tmp_path):
    data = rows("rte").to_dict()
    data["label"] = [("entailment", "not_entailment")[label] for label in data["label"]]
    named = datasets.Dataset.from_dict(data)
    task = load("rte", save("rte", tmp_path / "data", train=named), tmp_path)
    assert {e.uid: e.label for e in task.train}.keys() <= {f"pool-{i}" for i in range(len(named))}
    assert all(e.label == int(e.uid.removeprefix("pool-")) % 2 for e in (*task.train, *task.dev))


def test_own_words_are_held_to_one_token_and_keep_the_label_order(tmp_path):
    data = save("rte", tmp_path / "data")
    words = {"not_entailment": "false", "entailment": "true"}
    task = load("rte", data, tmp_path, label_words=words, template="{sentence2}? {label_word}", loss="cross_entropy")
    assert (task.label_words, task.label_rule, task.loss) == ((" true", " false"), "single", "cross_entropy")
    assert task.test[0].text == "two 0"
    assert load("rte", data, tmp_path, label_words={1: "false", 0: "true"}).label_words == (" true", " false")
    with pytest.raises(TaskError, match="entailment, not_entailment once"):
        load("rte", data, tmp_path, label_words={"yes": "true", "no": "false"})


def test_test_limit_and_manual_prompt_can_be_set(tmp_path):
    task = load("agnews", save("agnews", tmp_path / "data"), tmp_path, test_limit=4, manual_prompt="Topic?")
    assert sorted(e.label for e in task.test) == [0, 1, 2, 3]
    assert task.manual_prompt == "Topic?"


def test_without_the_network_the_offline_ways_are_named(tmp_path):
    with pytest.raises(TaskError) as caught:
        load("sst2", "nobody/has-this-data-set", tmp_path)
    message = str(caught.value)
    assert "nobody/has-this-data-set" in message
    assert "save_to_disk" in message and "kind: file" in message and "validation" in message


def test_data_that_do_not_fit_are_refused(tmp_path):
    rows("sst2").save_to_disk(tmp_path / "single")
    with pytest.raises(TaskError, match="got a single one"):
        load("sst2", "single", tmp_path)
    datasets.DatasetDict({"train": rows("sst2")}).save_to_disk(tmp_path / "train_only")
    with pytest.raises(TaskError, match="train and validation, got train"):
        load("sst2", "train_only", tmp_path)
    renamed = rows("sst2").rename_column("sentence", "sentences")
    with pytest.raises(TaskError, match="did you mean 'sentences'"):
        load("sst2", save("sst2", tmp_path / "renamed", train=renamed), tmp_path)
    odd = datasets.Dataset.from_dict({"sentence": ["a"] * 3, "label": [0, 1, 7]})
    with pytest.raises(TaskError, match="row 3 is '7'"):
        load("sst2", save("sst2", tmp_path / "odd", train=odd), tmp_path)
