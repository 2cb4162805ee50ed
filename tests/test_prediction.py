"""Labelling new rows with what a run returned, and the same by hand with transformers and numpy."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import TEXTS, plain_model, save_tiny

from distributed_tuner import oracles, tasks
from distributed_tuner.config.head import reads_words
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import HeadError, RunDirectoryError, TaskError
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.preflight.wordings import templates_tried
from distributed_tuner.prompts.ensemble_export import ENSEMBLE, write_ensemble
from distributed_tuner.prompts.export import exported, read, write
from distributed_tuner.prompts.spec import NO_ROWS, framed, prompt_spec
from distributed_tuner.runs.directory import write_json
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.runs.prediction import default_out, predict
from distributed_tuner.stages.reading import Reader, read_by
from distributed_tuner.stages.validation import batches
from distributed_tuner.values import Point, Request, Text

pytestmark = pytest.mark.model
SOFT = {"length": 4, "init": "zeros", "layout": "instruction_suffix"}
PROMPT = "Classify the movie review"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=["words", "rows"])
def run(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory as the driver leaves it, with a prompt in words or one of rows behind an instruction."""
    words = request.param == "words"
    return run_in(tmp_path_factory.mktemp(request.param), model, {"kind": "text"} if words else SOFT)


def run_in(
    folder: Path,
    model: Path,
    prompt: dict[str, Any],
    template: str = "",
    label_words: tuple[str, ...] = (),
    on_empty: str = "refuse",
    **more: Any,
) -> Path:
    """Write a run. ``template``, ``label_words``: what a screen has found."""
    folder.mkdir(exist_ok=True)
    data = folder / "train.jsonl"
    rows = [
        {"text": f"{text} {i}", "label": ("bad", "good")[i % 2], "title": ["a film", ""][i // 2 % 2]}
        for i in range(12)
        for text in TEXTS[:3]
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = experiment_of(
        {
            "name": "some",
            "task": {
                "kind": "file",
                "train": str(data),
                "text": "text",
                "label": "label",
                "template": "{text} It was{label_word}",
                "label_words": {"bad": " terrible", "good": " great"},
                "manual_prompt": PROMPT,
                "shots": 3,
                "on_empty": on_empty,
            },
            "oracle": {"kind": "transformers", "model": str(model), "dtype": "float32", "threads": 1},
            "prompt": prompt,
            "head": {"kind": "vocabulary", "words": 12},
            "stages": [{"kind": "search", "optimizer": {"kind": "random_search"}}],
        }
        | more
    )
    oracle = oracles.build(experiment.oracle)
    plain = tasks.build(experiment.task, folder, templates_tried(experiment)).worded(template, label_words)
    if reads_words(experiment.head):
        words = codec_of(oracle).answer_words(plain.batch("train", [0]), 12)
        head = experiment.head.model_copy(update={"answer_words": words})
        experiment = experiment.model_copy(update={"head": head})
    task = read_by(plain, experiment)
    stream = np.random.default_rng(0)
    spec = prompt_spec(experiment.prompt, task)
    point = Point(stream.standard_normal(spec.length * oracle.info.width).astype(np.float32))
    candidate = Text(PROMPT) if prompt == {"kind": "text"} else point
    reader = Reader(task, experiment.head)
    train, dev = (oracle.evaluate(Request((candidate,), batch, spec or NO_ROWS)) for batch in batches(reader))
    found = reader.read(train, dev)
    plan = TrialPlan("some-0000", 0, "random_search", {}, experiment)
    kept = PROMPT if prompt == {"kind": "text"} else codec_of(oracle).materialize(candidate, spec)
    scores = {"train_loss": 1.0, "dev_loss": found.dev_loss, "dev_metric": 0.5, "test_metric": None}
    write(exported(plan, task, kept, [], scores, found.state), folder / "run" / "best")
    write_json(folder / "run" / "config.json", {"trials": [plan.to_json()], "root": str(folder)})
    return folder / "run"


@pytest.mark.parametrize("prompt", [{"kind": "text"}, SOFT], ids=["words", "rows"])
def test_what_a_screen_has_found_goes_with_the_prompt(model: Path, tmp_path: Path, prompt: dict[str, Any]) -> None:
    """The template and the label words, in place of the task's own."""
    template, found = "{text} Verdict:{label_word}", (" bad", " good")
    run = run_in(tmp_path, model, prompt, template, found, head="bias", screen={"templates": [template]})
    described = json.loads((run / "best/prompt.json").read_text())
    assert described["template"]["source"] == template and described["template"]["cue"] == " Verdict:"
    assert described["template"]["label_words"] == [" bad", " good"]
    assert evaluate(run, "dev")["loss"] == pytest.approx(described["scores"]["dev_loss"])
    config = json.loads((run / "config.json").read_text())["trials"][0]["config"]
    task = tasks.build(experiment_of(config).task, Path())
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"text": example.text}) + "\n" for example in task.test))
    predict(run, file, tmp_path / "out.jsonl")
    names = [row["predicted_label"] for row in written(tmp_path / "out.jsonl")]
    right = np.mean([name == task.label_names[e.label] for name, e in zip(names, task.test, strict=True)])
    assert evaluate(run, "test")["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("found", ["", "{text} Verdict:{label_word}", "{title}: {text}{label_word}"])
def test_rows_are_those_that_the_screen_had_whatever_it_found(model: Path, tmp_path: Path, found: str) -> None:
    """A template that it tried has a column that is empty in half of them."""
    screen = {"templates": ["{title}: {text}{label_word}", " Verdict:{label_word}"]}
    run = run_in(tmp_path, model, {"kind": "text"}, found, on_empty="drop", head="bias", screen=screen)
    scores = json.loads((run / "best/prompt.json").read_text())["scores"]
    assert evaluate(run, "dev")["loss"] == pytest.approx(scores["dev_loss"])


def test_a_screen_s_wording_goes_to_another_file_of_the_task(model: Path, tmp_path: Path) -> None:
    template = "{text} Verdict:{label_word}"
    run = run_in(
        tmp_path, model, {"kind": "text"}, template, (" bad", " good"), head="bias", screen={"templates": [template]}
    )
    config = json.loads((run / "config.json").read_text())["trials"][0]["config"]
    (tmp_path / "task.yaml").write_text(json.dumps({"task": config["task"]}))
    assert evaluate(run, "test", tmp_path / "task.yaml") == evaluate(run, "test")
    other = config["task"] | {"label_words": {"bad": " terrible", "fine": " great"}}
    rows = [json.dumps({"text": f"the plot {i}", "label": ("bad", "fine")[i % 2]}) for i in range(20)]
    (tmp_path / "other.jsonl").write_text("\n".join(rows))
    (tmp_path / "task.yaml").write_text(json.dumps({"task": other | {"train": str(tmp_path / "other.jsonl")}}))
    with pytest.raises(HeadError, match="label words that it was fitted to"):
        evaluate(run, "test", tmp_path / "task.yaml")


def test_several_prompts_are_read_together_each_in_its_own_wording(model: Path, tmp_path: Path) -> None:
    """A member's template and label words are its own; the labels are those that evaluate counts."""
    template = "{text} Verdict:{label_word}"
    screen: dict[str, Any] = {"head": "bias", "screen": {"templates": [template]}}
    runs = [
        run_in(tmp_path / "words", model, {"kind": "text"}, template, (" bad", " good"), **screen),
        run_in(tmp_path / "rows", model, SOFT, **screen),
    ]
    write_ensemble([read(run / "best") for run in runs], runs[1] / ENSEMBLE)
    config = json.loads((runs[1] / "config.json").read_text())["trials"][0]["config"]
    task = tasks.build(experiment_of(config).task, Path())
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"text": example.text}) + "\n" for example in task.test))
    for run in runs:
        predict(run, file, run / "out.jsonl")
    predict(runs[1], file, tmp_path / "together.jsonl", ensemble=True)
    alone = [[row["p(good)"] for row in written(run / "out.jsonl")] for run in runs]
    odds = np.log(alone) - np.log(1 - np.array(alone))
    joined = written(tmp_path / "together.jsonl")
    assert [row["p(good)"] for row in joined] == pytest.approx(1 / (1 + np.exp(-odds.mean(axis=0))), abs=1e-5)
    right = [row["predicted_label"] == task.label_names[e.label] for row, e in zip(joined, task.test, strict=True)]
    assert evaluate(runs[1], "test", ensemble=True)["accuracy"] == pytest.approx(np.mean(right))
    losses = {split: evaluate(runs[1], split, ensemble=True)["loss"] for split in ("train", "dev", "test")}  # type: ignore[arg-type]
    assert np.isfinite(list(losses.values())).all()
    with pytest.raises(RunDirectoryError, match="leave --ensemble out"):
        evaluate(runs[0], "test", ensemble=True)
    write_json(runs[1] / ENSEMBLE / "ensemble.json", {"members": ["../../best"]})
    with pytest.raises(RunDirectoryError, match="numbered folders"):
        predict(runs[1], file, tmp_path / "odd.jsonl", ensemble=True)


def written(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def new_rows(folder: Path, suffix: str) -> Path:
    path = folder / f"new{suffix}"
    if suffix == ".csv":
        lines = ["id,text", *(f'{i},"{text.strip()}"' for i, text in enumerate(TEXTS))]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_row_gets_a_label_and_its_probabilities(run: Path, tmp_path: Path, suffix: str) -> None:
    file = new_rows(tmp_path, suffix)
    out = default_out(file)
    told: list[tuple[int, int]] = []
    assert predict(run, file, out, lambda done, rows: told.append((done, rows))) == len(TEXTS)
    rows = written(out)
    assert [str(row["id"]) for row in rows] == [str(i) for i in range(len(TEXTS))] and told[-1] == (7, 7)
    for row in rows:
        chances = {label: float(row[f"p({label})"]) for label in ("bad", "good")}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted_label"] == max(chances, key=lambda label: chances[label])
        assert float(row["probability"]) == max(chances.values())


def test_the_labels_are_those_that_evaluate_counts(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())["trials"][0]["config"]
    task = tasks.build(experiment_of(config).task, Path())
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"text": example.text}) + "\n" for example in task.test))
    predict(run, file, tmp_path / "out.jsonl")
    names = [row["predicted_label"] for row in written(tmp_path / "out.jsonl")]
    right = np.mean([name == task.label_names[e.label] for name, e in zip(names, task.test, strict=True)])
    assert evaluate(run, "test")["accuracy"] == pytest.approx(right)


def test_the_same_by_hand(run: Path, model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    facts, fit = json.loads((run / "best/head.json").read_text()), load_file(run / "best/head.safetensors")
    described = json.loads((run / "best/prompt.json").read_text())
    if described["words"] is None:
        assert described["template"]["instruction"] == PROMPT and framed is not None
        return  # of a soft prompt the rows have to be embedded as well
    loaded, tokenizer = plain_model(model)
    cue = " It was"
    words = [tokenizer.encode(cue + word, add_special_tokens=False)[-1] for word in facts["words"]]
    file = new_rows(tmp_path, ".jsonl")
    predict(run, file, tmp_path / "out.jsonl")
    for text, row in zip(TEXTS, written(tmp_path / "out.jsonl"), strict=True):
        ids = tokenizer.encode(f"{PROMPT}\n") + tokenizer.encode(text.strip() + cue, add_special_tokens=False)
        x = loaded(torch.tensor([ids])).logits[0, -1, words].float().detach().numpy()
        scores = x @ fit["weights"] + fit["intercept"]
        chances = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        assert [row["p(bad)"], row["p(good)"]] == pytest.approx(chances.tolist(), abs=5e-3)


def test_cells_are_kept_as_they_are_and_rows_without_text_have_no_label(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["trials"][0]["config"]["task"]["on_empty"] = "drop"
    write_json(copy / "config.json", config)
    file = tmp_path / "new.jsonl"
    lines = ['{"text": "fine", "tags": ["a", {"b": 1.10}], "emoji": "\\ud83d"}', '{"text": null}', '{"text": "bad"}']
    file.write_text("\n".join(lines) + "\n")
    for suffix in (".csv", ".jsonl"):
        assert predict(copy, file, tmp_path / f"out{suffix}") == 3
        rows = written(tmp_path / f"out{suffix}")
        assert [bool(row["predicted_label"]) for row in rows] == [True, False, True]
        assert rows[0]["tags"] in ('["a", {"b": 1.1}]', ["a", {"b": 1.1}])
        assert rows[0]["emoji"] in ("\\ud83d", "\ud83d")
    with pytest.raises(TaskError, match=r"'text' is empty in .*new\.jsonl, line 2: fill it or take it out"):
        predict(run, file, tmp_path / "refused.csv")


@pytest.mark.parametrize(
    ("name", "content", "out", "message"),
    [
        ("new.jsonl", '{"words": "a"}\n', "out.csv", "no text column 'text'"),
        ("new.jsonl", '{"text": ""}\n', "out.csv", "'text' is empty"),
        ("new.jsonl", '{"text": "a"}\n', "out.txt", "ends in .csv or .jsonl"),
        ("new.jsonl", '{"text": "a"}\n', "new.jsonl", "is there already"),
        ("new.jsonl", '{"text": "a", "probability": 1}\n', "out.csv", "one of that name"),
    ],
)
def test_what_cannot_be_labelled_is_said_and_leaves_nothing(
    run: Path, tmp_path: Path, name: str, content: str, out: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TaskError, match=message):
        predict(run, tmp_path / name, tmp_path / out)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_is_no_file_of_rows(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match="is a folder: name a file in it"):
        predict(run, Path(), default_out(Path()))


def test_a_head_of_another_model_or_of_other_label_words_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    facts = json.loads((copy / "best/head.json").read_text())
    (copy / "best/head.json").write_text(json.dumps(facts | {"model": "another"}))
    file = new_rows(tmp_path, ".jsonl")
    with pytest.raises(HeadError, match="'another'"):
        predict(copy, file, tmp_path / "out.csv")
    with pytest.raises(HeadError, match="'another'"):
        evaluate(copy, "test")
    (copy / "best/head.json").write_text(
        json.dumps(facts | {"label_words": [" a", " b"], "words": [" a", " b", *facts["words"][2:]]})
    )
    with pytest.raises(HeadError, match="label words that it was fitted to"):
        evaluate(copy, "test")
    (copy / "best/head.json").write_text("{}")
    with pytest.raises(HeadError, match="cannot be read"):
        predict(copy, file, tmp_path / "out.csv")
    (copy / "best/head.json").unlink()
    with pytest.raises(RunDirectoryError, match="before there were heads"):
        predict(copy, file, tmp_path / "out.csv")
