import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from distributed_tuner.config.task import FileTaskConfig
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import build

POOL = [{"text": f"review number {i}", "label": ("negative", "positive")[i % 2]} for i in range(20)]
TEST = [{"text": f"another one {i}", "label": ("negative", "positive")[i % 2]} for i in range(6)]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(**changes) -> FileTaskConfig:
    settings = {
        "kind": "file",
        "train": "train.jsonl",
        "text": "text",
        "label": "label",
        "template": "{text} It was {label_word}",
        "label_words": {"negative": "terrible", "positive": "great"},
        "shots": 3,
    }
    return FileTaskConfig.model_validate(settings | changes)


def refused(root: Path, **changes) -> str:
    with pytest.raises(TaskError) as caught:
        build(config(**changes), root)
    return str(caught.value)


def test_a_jsonl_task_has_all_that_an_oracle_needs(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    write(tmp_path / "test.jsonl", TEST)
    task = build(
        config(test="test.jsonl", manual_prompt="Judge.", loss="hinge", metric=["matthews", "accuracy"]), tmp_path
    )
    assert (len(task.train), len(task.dev), len(task.test)) == (6, 6, 6)
    assert task.label_words == (" terrible", " great")
    assert task.label_names == ("negative", "positive")
    assert (task.manual_prompt, task.metric, task.metrics) == ("Judge.", "matthews", ("matthews", "accuracy"))
    batch = task.batch("dev", [2, 0])
    assert (batch.split, batch.loss, batch.label_rule) == ("dev", "hinge", "single")
    assert batch.examples == (task.dev[2], task.dev[0])
    example = task.test[1]
    assert (example.text, example.cue, example.label) == ("another one 1", " It was", 1)
    uids = [e.uid for split in ("train", "dev", "test") for e in task.examples(split)]
    assert len(set(uids)) == len(uids)


def test_an_index_outside_the_split_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    with pytest.raises(TaskError, match="from 0 to 5"):
        build(config(), tmp_path).batch("train", [6])


def test_without_a_test_file_the_rest_of_the_pool_is_the_test_set(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    task = build(config(), tmp_path)
    texts = [e.text for split in ("train", "dev", "test") for e in task.examples(split)]
    assert sorted(texts) == sorted(row["text"] for row in POOL)
    assert "no test example" in refused(tmp_path, shots=5)


def test_the_split_seed_moves_the_draw_but_not_the_test_set(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    write(tmp_path / "test.jsonl", TEST)
    first, second = (build(config(test="test.jsonl", test_limit=4, split_seed=s), tmp_path) for s in (0, 1))
    assert {e.uid for e in first.train} != {e.uid for e in second.train}
    assert first.test == second.test
    assert sorted(e.label for e in first.test) == [0, 0, 1, 1]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_tables_give_the_same_task_as_jsonl(tmp_path, suffix):
    import pandas as pd

    rows = [{"text": f'say "{i}", NA', "label": i % 2} for i in range(12)]
    write(tmp_path / "train.jsonl", rows)
    frame = pd.DataFrame(rows)
    target = tmp_path / f"train.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(target)
    else:
        frame.to_csv(target, index=False, sep="\t" if suffix == "tsv" else ",")
    words = {0: "terrible", 1: "great"}
    assert build(config(train=target.name, label_words=words, shots=2), tmp_path).train == (
        build(config(label_words=words, shots=2), tmp_path).train
    )


def test_number_labels_match_however_they_are_written(tmp_path):
    rows = [{"text": f"t{i}", "label": (0, 1, "0", "1 ", 0.0, 1.0)[i % 6]} for i in range(12)]
    write(tmp_path / "train.jsonl", rows)
    task = build(config(label_words={1: "great", "0": "terrible"}, shots=2), tmp_path)
    assert task.label_names == ("1", "0")
    assert task.label_words == (" great", " terrible")
    assert sorted(e.label for e in task.train) == [0, 0, 1, 1]
    for example in (*task.train, *task.dev):
        row = rows[int(example.uid.removeprefix("pool-"))]
        assert example.label == (0 if str(row["label"])[0] == "1" else 1)


def test_two_text_columns(tmp_path):
    rows = [{"premise": f"p{i}", "claim": f"c{i}", "label": ("no", "yes")[i % 2]} for i in range(10)]
    write(tmp_path / "train.jsonl", rows)
    pair = {"text": ["premise", "claim"], "label_words": {"no": "No", "yes": "Yes"}, "shots": 2}
    task = build(config(template="{premise} So {claim}?{label_word}", **pair), tmp_path)
    assert task.train[0].text.startswith("p") and " So c" in task.train[0].text
    assert "'claim' is not in the template" in refused(tmp_path, template="{premise} So?{label_word}", **pair)


def test_relative_paths_are_looked_up_beside_the_settings_first(tmp_path, monkeypatch):
    there, here = tmp_path / "settings", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    write(here / "train.jsonl", [{**row, "text": "here " + row["text"]} for row in POOL])
    assert build(config(), there).train[0].text.startswith("here")
    write(there / "train.jsonl", POOL)
    assert build(config(), there).train[0].text.startswith("review")
    assert build(config(train=str(here / "train.jsonl")), there).train[0].text.startswith("here")


def test_a_missing_file_names_the_places_that_were_searched(tmp_path):
    message = refused(tmp_path, train="nowhere.jsonl")
    assert str(tmp_path / "nowhere.jsonl") in message and os.getcwd() in message


def test_unreadable_files_point_at_the_line(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "positive"}\n\n{"text": "b", \n')
    assert "train.jsonl, line 3 is not JSON" in refused(tmp_path)
    (tmp_path / "train.jsonl").write_text('["a", "positive"]\n')
    assert "line 1 holds a JSON list" in refused(tmp_path)
    (tmp_path / "bad.csv").write_text("text,label\na,positive\nb,positive,more\n")
    assert "line 3" in refused(tmp_path, train="bad.csv")
    (tmp_path / "bad.parquet").write_text("not parquet")
    assert "bad.parquet cannot be read" in refused(tmp_path, train="bad.parquet")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    assert "not UTF-8" in refused(tmp_path, train="latin.jsonl")
    (tmp_path / "data.xlsx").write_text("")
    assert ".jsonl, .csv, .tsv, .parquet" in refused(tmp_path, train="data.xlsx")


@pytest.mark.parametrize(("name", "content"), [("e.jsonl", "\n"), ("e.csv", ""), ("h.csv", "text,label\n")])
def test_empty_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert name in refused(tmp_path, train=name)


def test_missing_columns_are_answered_with_the_nearest(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    assert "no label column 'lable': did you mean 'label'?" in refused(tmp_path, label="lable")
    assert "no text column 'txet': did you mean 'text'?" in refused(
        tmp_path, text="txet", template="{txet} {label_word}"
    )
    assert "{subject}, which is no column" in refused(tmp_path, template="{subject}: {text} {label_word}")
    assert "shows the label column" in refused(tmp_path, template="{text} {label} {label_word}")


def test_labels_without_a_word_and_words_without_a_label(tmp_path):
    write(tmp_path / "train.jsonl", [*POOL, {"text": "so so", "label": "mixed"}])
    message = refused(tmp_path)
    assert "line 21 is 'mixed'" in message and "'negative', 'positive'" in message
    write(tmp_path / "train.jsonl", [*POOL, {"text": "no label"}])
    assert "line 21 is empty" in refused(tmp_path)
    write(tmp_path / "train.jsonl", POOL)
    words = {"negative": "bad", "positive": "great", "mixed": "okay"}
    assert "'mixed' has a label word but no example" in refused(tmp_path, label_words=words)


@pytest.mark.parametrize("text", ["", "   ", None])
def test_empty_texts_are_refused_with_their_line(tmp_path, text):
    write(tmp_path / "train.jsonl", [*POOL, {"text": text, "label": "positive"}])
    assert "'text' is empty in train.jsonl, line 21" in refused(tmp_path)


def test_repeats_between_pool_and_test_are_counted_and_told(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    write(tmp_path / "test.jsonl", [*TEST, *POOL[:3]])
    task = build(config(test="test.jsonl"), tmp_path)
    assert "3 of 20 rows of train.jsonl are also in test.jsonl" in task.warnings
    assert len(task.test) == 9


def test_f1_is_refused_for_three_classes(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": f"t{i}", "label": "abc"[i % 3]} for i in range(18)])
    words = {"a": "one", "b": "two", "c": "three"}
    assert "f1 is for two classes" in refused(tmp_path, label_words=words, metric=["f1"])


@pytest.mark.parametrize(
    "changes",
    [
        {"label_words": {"only": "one"}},
        {"label_words": {0: "zero", "0": "nought"}},
        {"label_words": {"no": False, "yes": True}},
        {"metric": []},
        {"metric": ["accuracy", "accuracy"]},
        {"shots": 0},
        {"template": None},
        {"test_limit": 0},
        {"shot": 3},
    ],
)
def test_settings_that_need_no_data_are_refused_early(changes):
    with pytest.raises(ValidationError):
        config(**changes)


@pytest.mark.parametrize(
    ("label", "words", "advice"),
    [
        ("no", {False: "No", True: "Yes"}, "yes, no, on and off as booleans: quote such keys"),
        ("None", {None: "No", "some": "Yes"}, "null and ~ as nothing: quote such keys"),
        (True, {"no": "No", "yes": "Yes"}, "write true and false as the keys"),
        ("Good", {"good": "great", "bad": "poor"}, "capitals count, so write it as 'good'"),
        ("fine", {"good": "great", "bad": "poor"}, "add it to label_words"),
    ],
)
def test_a_label_that_is_nearly_known_is_explained(tmp_path, label, words, advice):
    write(tmp_path / "train.jsonl", [{"text": "a", "label": label}])
    assert advice in refused(tmp_path, label_words=words)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("values", [(0, 1), (0.0, 1.0), ("0", "1.0"), (False, True)])
def test_a_label_is_the_same_in_every_format(tmp_path, suffix, values):
    import pandas as pd

    rows = [{"text": f"t{i}", "label": values[i % 2]} for i in range(6)]
    frame, target = pd.DataFrame(rows), tmp_path / f"train.{suffix}"
    match suffix:
        case "jsonl":
            write(target, rows)
        case "parquet":
            frame.to_parquet(target)
        case _:
            frame.to_csv(target, index=False, sep="\t" if suffix == "tsv" else ",")
    words = {"false": "terrible", "true": "great"} if values[0] is False else {0: "terrible", 1: "great"}
    task = build(config(train=target.name, label_words=words, shots=1), tmp_path)
    assert [example.label for example in task.test] == [int(e.uid.removeprefix("pool-")) % 2 for e in task.test]
    assert task.label_names == tuple(map(str, words))


def test_a_message_stays_a_line_however_long_labels_and_columns_are(tmp_path):
    wide = {f"column {i}": "x" for i in range(500)}
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "long " * 9000, **wide}])
    assert len(refused(tmp_path)) < 400
    message = refused(tmp_path, label="lable")
    assert "did you mean 'label'?" in message and "and 490 more" in message and len(message) < 400


def test_labels_keep_the_name_that_they_are_written_by(tmp_path):
    rows = [{"text": f"t{i}", "label": (1, 2.5)[i % 2]} for i in range(6)]
    write(tmp_path / "train.jsonl", rows)
    assert build(config(label_words={"1.0": "bad", "2.5": "good"}, shots=1), tmp_path).label_names == ("1.0", "2.5")


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ([{"role": "user", "content": "hi"}], 'a list ([{"role": "user"'),
        ({"en": "hi"}, 'a mapping ({"en": "hi"})'),
        ("cut \ud83d", "half of a surrogate pair ('cut \\ud83d')"),
    ],
)
def test_a_cell_that_is_no_text_is_refused_with_its_place(tmp_path, value, held):
    write(tmp_path / "train.jsonl", [*POOL, {"text": value, "label": "positive"}])
    message = refused(tmp_path)
    assert "'text' must hold text, but in train.jsonl, line 21 it holds " + held in message


def test_rows_without_text_or_label_are_dropped_where_that_is_asked_for(tmp_path):
    holes = [{"text": " ", "label": "positive"}, {"text": None, "label": "odd"}, {"text": "no label"}]
    write(tmp_path / "train.jsonl", [holes[0], *POOL, *holes[1:]])
    task = build(config(on_empty="drop"), tmp_path)
    assert "3 of 23 rows of train.jsonl have no text or no label and are left out" in task.warnings
    drawn = [*task.train, *task.dev, *task.test]
    assert sorted(e.text for e in drawn) == sorted(row["text"] for row in POOL)
    assert {e.uid for e in drawn} == {f"pool-{i}" for i in range(1, 21)}  # as the file numbers them


def test_other_templates_word_the_same_rows_and_share_their_texts(tmp_path):
    write(tmp_path / "train.jsonl", POOL)
    own = "{text} It was {label_word}"
    task = build(config(), tmp_path, ("\nLabel:{label_word}", "A text. {text} It was {label_word}", own))
    cue, longer = task.others
    assert (task.template, cue.template) == (own, "{text}\nLabel: {label_word}")
    for split in ("train", "dev", "test", "feedback"):
        for plain, same, other in zip(*(one.examples(split) for one in (task, cue, longer)), strict=True):
            assert same.text is plain.text and same.cue == "\nLabel:"
            assert other.text == f"A text. {plain.text}" and other.cue == plain.cue
            assert plain.uid == same.uid == other.uid and plain.label == same.label == other.label
    assert task.worded(cue.template).train == cue.train and task.worded("").train == task.train
    assert task.worded(cue.template, (" bad", " good")).label_words == (" bad", " good")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{label} {text}{label_word}", "shows the label column"),
        ("It was {title}{label_word}", "add {text} to it"),
        ("{text} {titel}{label_word}", "which is no column of"),
    ],
)
def test_another_template_is_checked_as_the_tasks_own(tmp_path, template, message):
    write(tmp_path / "train.jsonl", POOL)
    with pytest.raises(TaskError) as caught:
        build(config(), tmp_path, (template,))
    assert message in str(caught.value) and template in str(caught.value)
