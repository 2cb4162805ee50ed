"""Run directories that somebody else may have written: a report, or one line that says what is odd."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distributed_tuner.errors import TunerError
from distributed_tuner.ledger import CostRow, EvalRow, RunEndRow, RunRow, StepRow, TrialRow
from distributed_tuner.report import write_report

PAID: dict[str, Any] = {"cost": CostRow(queries=2), "spent": CostRow(queries=2), "elapsed": 1.0}
CONFIG = {
    "experiment": {"name": "odd", "head": {"kind": "bias"}, "budget": {"queries": 9}},
    "trials": [{"trial_id": "zot-0000", "index": 0, "method": "zot", "config": {"stages": [{"kind": "search"}]}}],
    "task": {"name": "t", "metric": "accuracy", "label_words": [" a", " b"], "train": 1, "dev": 1, "test": 1},
    "model": {"model": "m", "dtype": "float32"},
    "versions": {"python": "3"},
    "command": "python tune.py",
}
PROMPT = {"trial_id": "zot-0000", "nearest_tokens": [["film", 0.5]], "text": "film", "length": 1, "words": None}
DEEP = "[" * 100_000 + "]" * 100_000


def ledger_rows() -> list[dict[str, Any]]:
    score = {"train_loss": 0.5, "dev_loss": 0.5, "dev_metric": 0.5, "selected": True, "losses": [0.5, 0.5]}
    rows = [
        RunRow(time=1.0, name="odd", version="0.1.0", seed=0, methods=["zot"]),
        TrialRow(time=2.0, trial_id="zot-0000", method="zot", seed=0, split_seed=0, drawn={"x": 0.5}),
        EvalRow.model_validate({"time": 3.0, "trial_id": "zot-0000", "stage": 0, "step": 0, **score, **PAID}),
        StepRow(time=4.0, trial_id="zot-0000", stage=0, step=1, loss=0.5, best_loss=0.4, failed=0, **PAID),
        RunEndRow(time=9.0, status="done", wall_seconds=8, oracle_busy_seconds=4, oracle_actors=2, tiles=1, retries=0),
    ]
    return [row.model_dump() for row in rows]


def changed(tree: Any, path: str, value: Any) -> Any:
    """Return a copy of a tree with another value at a dotted path."""
    copy = json.loads(json.dumps(tree))
    *parts, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = copy
    for part in parts:
        place = place[part]
    place[last] = value
    return copy


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a run directory, some of its files changed: text as it is, all else as JSON."""

    def write(config: Any = CONFIG, prompt: Any = PROMPT, rows: list[Any] | None = None) -> Path:
        (tmp_path / "best").mkdir()
        for name, held in (("config.json", config), ("best/prompt.json", prompt)):
            (tmp_path / name).write_text(held if isinstance(held, str) else json.dumps(held))
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows or ledger_rows()]
        (tmp_path / "ledger.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


def test_the_run_is_sound(written: Callable[..., Path]) -> None:
    assert write_report(written()).is_file()


# ------------------------------------------------------------------------------------------------- config and prompt
@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((name, value) for name in ("experiment", "task", "model", "versions") for value in ([], 3, "x")),
        *(("trials", value) for value in (3, "x", {"a": 1}, [3], [{}])),
        ("trials.0.trial_id", None),
        ("trials.0.seed", 10**300),
        ("trials.0.drawn", [1]),
        ("trials.0.config", "x"),
        ("trials.0.config.stages", {"kind": "search"}),
        ("trials.0.config.stages.0", "search"),
        ("experiment.name", ["x"]),
        ("experiment.head", {"kind": 3}),
        ("experiment.budget", {"queries": "many"}),
        ("experiment.budget", {"usd": 10**400}),
        ("experiment.significance", "often"),
        ("task.label_words", 3),
        ("task.label_words", [3]),
        ("task.test", "many"),
        ("task.test", -1),
        ("task.test", 10**300),
        ("task.metric", ["accuracy"]),
        ("versions.python", {"major": 3}),
        ("command", ["python"]),
    ],
)
def test_an_odd_config_is_one_line_that_names_the_place(written: Callable[..., Path], path: str, value: Any) -> None:
    folder = written(config=changed(CONFIG, path, value))
    with pytest.raises(TunerError) as refused:
        write_report(folder)
    message = str(refused.value)
    assert "config.json must be as a run has written it" in message
    assert path in message and len(message) < 500 and message.isprintable()
    assert not (folder / "report.html").exists()


def test_a_trial_that_stands_twice_is_refused(written: Callable[..., Path]) -> None:
    with pytest.raises(TunerError, match="'zot-0000' occurs twice"):
        write_report(written(config=CONFIG | {"trials": CONFIG["trials"] * 2}))  # type: ignore[operator]


@pytest.mark.parametrize("where", ["config", "prompt"])
@pytest.mark.parametrize("text", [DEEP, "", "[]", "3", '{"a": 1', "\ufeff{}", '{"length": %s}' % ("9" * 5000)])
def test_a_file_that_is_no_object_is_one_line(written: Callable[..., Path], where: str, text: str) -> None:
    if where == "config" and "length" in text:
        text = text.replace("length", "task_metric")
    folder = written(**{where: text})
    with pytest.raises(TunerError, match=r"\.json must be as a run has written it"):
        write_report(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_wherever_it_stands_in_a_config(
    written: Callable[..., Path], value: float
) -> None:
    config = changed(CONFIG, "trials.0.config.stages.0.kind", "search")
    config["trials"][0]["config"]["deep"] = [{"rho": value}]
    with pytest.raises(TunerError, match="is no JSON"):
        write_report(written(config=config))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nearest_tokens", 3),
        ("nearest_tokens", [3]),
        ("nearest_tokens.0", ["film", "often"]),
        ("nearest_tokens.0", [None, 0.5]),
        ("cosines", {"film": 0.5}),
        ("cosines", ["often"]),
        ("length", "one"),
        ("words", ["film"]),
        ("trial_id", 3),
    ],
)
def test_an_odd_prompt_is_one_line_that_names_the_place(written: Callable[..., Path], path: str, value: Any) -> None:
    prompt = changed(PROMPT | {"cosines": []}, path, value)
    with pytest.raises(TunerError, match=r"prompt\.json must be as a run has written it") as refused:
        write_report(written(prompt=prompt))
    assert path.split(".")[0] in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ ledgers
@pytest.mark.parametrize(
    ("row", "path", "value"),
    [
        *((row, "time", value) for row in range(5) for value in (-1e18, 1e18, "then", None)),
        (0, "seed", 10**300),
        (1, "seed", 10**300),
        (1, "drawn", [1]),
        (2, "spent.queries", 10**300),
        (2, "dev_metric", "high"),
        (3, "elapsed", 1e300),
        (3, "step", -1),
        (4, "oracle_actors", 10**300),
        (4, "wall_seconds", 1e308),
    ],
)
def test_a_number_that_no_run_writes_is_refused_with_its_line(
    written: Callable[..., Path], row: int, path: str, value: Any
) -> None:
    rows = ledger_rows()
    rows[row] = changed(rows[row], path, value)
    with pytest.raises(TunerError, match=f"got .* in line {row + 1} of ") as refused:
        write_report(written(rows=rows))
    assert path in str(refused.value) and len(str(refused.value)) < 500


def test_losses_that_diverged_are_as_good_as_none(written: Callable[..., Path]) -> None:
    rows = ledger_rows()
    for name in ("train_loss", "dev_loss"):
        rows[2][name] = 1e308
    rows[2]["losses"] = [1e308, 1e308]
    rows[3]["loss"] = -1e308
    folder = written(rows=rows)
    write_report(folder)
    (trial,) = json.loads((folder / "summary.json").read_text())["trials"]
    assert (trial["train_loss"], trial["dev_loss"], trial["dev_metric"]) == (None, None, 0.5)


def test_drawn_values_that_are_no_numbers_have_a_report(written: Callable[..., Path]) -> None:
    rows = ledger_rows()
    rows[1]["drawn"] = {"x": float("nan"), "y": [1, {"z": float("inf")}]}
    folder = written(rows=rows)
    write_report(folder)
    (trial,) = json.loads((folder / "summary.json").read_text())["trials"]
    assert trial["drawn"] == {"x": None, "y": [1, {"z": None}]}


def test_a_row_of_another_version_says_which(written: Callable[..., Path]) -> None:
    rows = [changed(ledger_rows()[0], "version", "9.9.9"), {"type": "dream", "time": 1.0}]
    with pytest.raises(TunerError, match=r"line 2 of .* written by version 9\.9\.9, and this is"):
        write_report(written(rows=rows))


def test_what_a_survey_or_screen_of_another_sort_tells_is_shown_as_far_as_it_goes(written: Callable[..., Path]) -> None:
    told = {"type": "survey", "time": 5.0, "trial_id": "zot-0000", "stage": 0, "settings": {"pace": 0.5}}
    paid = {name: value if name == "elapsed" else value.model_dump() for name, value in PAID.items()}
    known = {"trace": 1.0, "norm": 1.0, "effective_dimension": 1.0, "snr": 2.0, "noise": None}
    folder = written(rows=[*ledger_rows(), told | paid, told | paid | known | {"stage": 1}])
    assert "pace" in write_report(folder).read_text()


@pytest.mark.parametrize(
    "line", ['{"type":"x\\u001b[31m\\u202e","time":1}', '{"\\u001b]0;title\\u0007":1}', "\x1b[31m"]
)
def test_a_malformed_ledger_does_not_steer_the_terminal(written: Callable[..., Path], line: str) -> None:
    import tune

    result = CliRunner().invoke(tune.app, ["report", str(written(rows=[*ledger_rows(), line]))])
    assert result.exit_code == 2
    (told,) = result.stderr.splitlines()
    assert told.isprintable() and "in line 6 of" in told
