"""Bad input to the command line: one line, the right exit status, and nothing done."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest
import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
Refused = Callable[..., str]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, without network, and where nothing can run: an experiment that begins is a failure."""

    def begun(*arguments: Any, **options: Any) -> None:
        raise AssertionError("an experiment was begun although its input is wrong")

    experiment = types.ModuleType("actors.run.experiment")
    experiment.run = begun  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "actors.run.experiment", experiment)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tune(workplace: Path) -> Callable[..., click.testing.Result]:
    """Return the command line as a function."""
    import tune

    def run(*arguments: str) -> click.testing.Result:
        return CliRunner().invoke(tune.app, list(arguments))

    return run


@pytest.fixture
def refused(tune: Callable[..., click.testing.Result], workplace: Path) -> Refused:
    """Return a function that runs a command, expects it to be refused in one line, and returns the line."""

    def run(*arguments: str, status: int = 2) -> str:
        before = sorted(workplace.rglob("*"))
        result = tune(*arguments)
        assert result.exit_code == status, (result.output, result.exception)
        assert isinstance(result.exception, SystemExit), "a traceback would have been shown"
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert result.stdout == ""
        assert sorted(workplace.rglob("*")) == before, "something was written"
        return line

    return run


@pytest.fixture
def space(workplace: Path) -> Callable[..., str]:
    """Return a function that writes a sound space with parts replaced, and returns its name."""

    def write(**parts: Any) -> str:
        sound = {
            "name": "mine",
            "task": {"kind": "demo", "shots": 4, "test_limit": 20},
            "oracle": {"kind": "analytic"},
            "stages": [{"kind": "search", "optimizer": {"kind": "zot"}}],
            "budget": {"queries": 50},
        }
        (workplace / "mine.yaml").write_text(yaml.safe_dump(sound | parts, sort_keys=False), encoding="utf-8")
        return "mine.yaml"

    return write


@pytest.fixture
def file_task(workplace: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that writes a data file and returns a task on it with parts replaced."""

    def write(rows: list[Any] | None = None, **parts: Any) -> dict[str, Any]:
        if rows is None:
            rows = [{"text": f"this film was word{i}", "label": i % 2} for i in range(40)]
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (workplace / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {
            "kind": "file",
            "train": "data.jsonl",
            "text": "text",
            "label": "label",
            "template": "{text} It was{label_word}",
            "label_words": {0: " bad", 1: " good"},
            "manual_prompt": "Judge the film.",
            "shots": 4,
        } | parts

    return write


def holds(line: str, *parts: str) -> None:
    for part in parts:
        assert part in line, f"{part!r} is not in {line!r}"


def test_the_input_that_is_broken_below_is_sound(
    tune: Callable[..., click.testing.Result], space: Callable[..., str], file_task: Callable[..., dict[str, Any]]
) -> None:
    for name in (space(), space(task=file_task())):
        result = tune("check", name)
        assert result.exit_code == 0, result.output
        assert "zot-0000" in result.stdout
        begun = tune("run", name, "--out", "there")
        assert isinstance(begun.exception, AssertionError), "a sound run does not get as far as its experiment"


# ------------------------------------------------------------------------------------------------- the space
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_unknown_key(refused: Refused, space: Callable[..., str], command: str) -> None:
    holds(refused(command, space(bugdet={"queries": 3})), "bugdet", "did you mean 'budget'?")


def test_a_value_outside_its_range(refused: Refused, space: Callable[..., str]) -> None:
    line = refused("run", space(), "--set", "optimizer.momentum=1.5")
    holds(line, "stages.0.optimizer.momentum", "less than 1", "but got 1.5", "change it")


def test_an_end_of_a_range_outside(refused: Refused, space: Callable[..., str]) -> None:
    line = refused("check", space(), "--set", "optimizer.momentum=!uniform [0.5, 1.0]")
    holds(line, "stages.0.optimizer.momentum", "but got 1.0")


def test_a_missing_space(refused: Refused, space: Callable[..., str]) -> None:
    space()
    holds(refused("run", "mime.yaml"), "'mime.yaml'", "mine.yaml", "check the path")


def test_a_space_that_is_not_yaml(refused: Refused, workplace: Path) -> None:
    (workplace / "mine.yaml").write_text("name: [a\nseed: 0\n", encoding="utf-8")
    holds(refused("run", "mine.yaml"), "must be YAML", "mine.yaml, line 2", "mend the line")


@pytest.mark.parametrize("override", ["queries", "stages.3.steps=1", "optimizer.rho=!unifrom [1, 2]"])
def test_an_override_that_does_not_fit(refused: Refused, space: Callable[..., str], override: str) -> None:
    holds(refused("run", space(), "--set", override), "--set")


def test_settings_that_all_trials_share_cannot_be_drawn(refused: Refused, space: Callable[..., str]) -> None:
    holds(refused("check", space(), "--set", "oracle.seed=!grid [0, 1]"), "oracle must be the same", "2 values")


def test_an_unknown_optimizer_of_nevergrad(refused: Refused, space: Callable[..., str]) -> None:
    stages = [{"kind": "search", "optimizer": {"kind": "nevergrad", "optimizer": "OnePlusTow"}}]
    holds(refused("check", space(stages=stages)), "OnePlusTow", "OnePlusOne")


# ------------------------------------------------------------------------------------------------- the data
def test_a_missing_data_file(refused: Refused, space: Callable[..., str], file_task: Callable[..., Any]) -> None:
    holds(refused("run", space(task=file_task(train="dat.jsonl"))), "'dat.jsonl'", "looked for", "Check the path")


def test_an_unreadable_row(refused: Refused, space: Callable[..., str], file_task: Callable[..., Any]) -> None:
    rows = ['{"text": "good", "label": 1}', '{"text": "bad", "label": 0', '{"text": "good", "label": 1}']
    holds(refused("run", space(task=file_task(rows))), "data.jsonl, line 2", "not JSON", "one object a line")


@pytest.mark.parametrize(("role", "near"), [("text", "'text'"), ("label", "'label'")])
def test_a_missing_column(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], role: str, near: str
) -> None:
    task = file_task(
        **{role: role + "s"}, template="{texts} It was{label_word}" if role == "text" else "{text}{label_word}"
    )
    holds(refused("run", space(task=task)), "data.jsonl", f"'{role}s'", f"did you mean {near}?")


def test_too_few_examples_of_a_class(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any]
) -> None:
    rows = [{"text": f"film {i}", "label": int(i < 7)} for i in range(30)]
    line = refused("run", space(task=file_task(rows)))
    holds(line, "2 x shots = 8", "'1' has 7", "use shots: 3 or fewer")


def test_a_label_without_a_label_word(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any]
) -> None:
    rows = [{"text": f"film {i}", "label": i % 3} for i in range(30)]
    holds(refused("run", space(task=file_task(rows))), "data.jsonl, line 3", "'2'", "label_words")


def test_an_empty_text(refused: Refused, space: Callable[..., str], file_task: Callable[..., Any]) -> None:
    rows = [{"text": "" if i == 4 else f"film {i}", "label": i % 2} for i in range(30)]
    holds(refused("run", space(task=file_task(rows))), "data.jsonl, line 5", "'text' is empty", "drop the row")


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("It was{label_word}", ["needs at least one column", "{text}"]),
        ("{text} It was", ["exactly one {label_word}", "got 0"]),
        ("{text} It was{label_word} or{label_word}", ["exactly one {label_word}", "got 2"]),
        ("{txt} It was{label_word}", ["'text'"]),
        ("{text It was{label_word}", ["cannot be read"]),
        ("{text}{label_word} it was.", ["must end with {label_word}"]),
    ],
)
def test_a_template_without_its_fields(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], template: str, parts: list[str]
) -> None:
    holds(refused("run", space(task=file_task(template=template))), *parts)


def test_a_broken_csv_is_told_in_one_line(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], workplace: Path
) -> None:
    (workplace / "data.csv").write_text('text,label\n"a film,1\nb,0\n', encoding="utf-8")
    holds(refused("run", space(task=file_task(train="data.csv"))), "data.csv", "cannot be read")


def test_a_row_with_a_comma_too_many(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], workplace: Path
) -> None:
    (workplace / "data.csv").write_text("label,text\n" + "1,Honestly, it was fine\n" * 9, encoding="utf-8")
    line = refused("check", space(task=file_task(train="data.csv")))
    holds(line, "data.csv, row 1 (line 2) has 3 fields, but the header names 2", "' it was fine'", "quotation marks")


def test_what_repeats_in_the_data_is_told_by_check(
    tune: Callable[..., click.testing.Result], space: Callable[..., str], file_task: Callable[..., Any]
) -> None:
    rows = [{"text": f"film {i // 4}", "label": i % 2} for i in range(40)]
    result = tune("check", space(task=file_task(rows)), "--set", "task.split_seed=!grid [0, 1]")
    assert result.exit_code == 0 and result.stderr == ""
    told = [line for line in result.stdout.splitlines() if line.startswith("warning: ")]
    assert len(told) == len(set(told))
    holds(told[0], "20 of 40 rows of data.jsonl have the text of an earlier row", "line 1 is '0', line 2 is '1'")
    assert sum("dev examples are also in train (split_seed 1)" in line for line in told) == 1


# ------------------------------------------------------------------------------------------------- the model
@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with a tokenizer and the settings of a GPT-2 of 32 positions; weights are not needed here."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, PreTrainedTokenizerFast

    words = ["film", "this", "was", "It", "bad", "good", "fine", "Judge", "the", ".", "word"]
    vocabulary = {"<unk>": 0} | {
        piece: i + 1 for i, piece in enumerate(w for word in words for w in (word, "Ġ" + word))
    }
    vocabulary |= {"Ċ": len(vocabulary), "Ġ": len(vocabulary) + 1}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    folder = tmp_path_factory.mktemp("tiny")
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)
    config = GPT2Config(vocab_size=len(vocabulary), n_positions=32, n_embd=8, n_layer=1, n_head=2)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(folder)
    return str(folder)


def model(name: str) -> dict[str, Any]:
    return {"kind": "transformers", "model": name}


def test_the_tiny_model_is_sound(
    tune: Callable[..., click.testing.Result],
    space: Callable[..., str],
    file_task: Callable[..., Any],
    tiny_model: str,
) -> None:
    result = tune("check", space(task=file_task(), oracle=model(tiny_model), prompt={"length": 4}))
    assert result.exit_code == 0, result.output


def test_an_unknown_model_without_network(refused: Refused, space: Callable[..., str]) -> None:
    line = refused("run", space(oracle=model("nobody/no-such-model")))
    holds(line, "'nobody/no-such-model'", "could not be loaded", "check the name, the network or HF_TOKEN")


@pytest.mark.slow
def test_an_unreachable_hub_is_told_soon(space: Callable[..., str], workplace: Path) -> None:
    import os
    import subprocess

    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and "HF_" not in key}
    name = space(oracle=model("nobody/no-such-model"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tune.py"), "check", name],
        env=clean | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(workplace / "home")},
        capture_output=True,
        text=True,
        timeout=25,  # the hub's client alone would retry for longer
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    holds(line, "error: ", "'nobody/no-such-model'", "could not be loaded")


def test_a_path_without_a_folder(refused: Refused, space: Callable[..., str]) -> None:
    holds(refused("run", space(oracle=model("./nowhere"))), "'./nowhere'", "config.json", "check the path")


def test_a_folder_that_is_no_model(refused: Refused, space: Callable[..., str], workplace: Path) -> None:
    (workplace / "empty").mkdir()
    holds(refused("run", space(oracle=model("empty"))), "'empty'", "could not be loaded", "save_pretrained")


def test_prompt_and_text_longer_than_the_context(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], tiny_model: str
) -> None:
    parts = {"task": file_task(), "oracle": model(tiny_model), "prompt": {"length": 27, "layout": "prefix"}}
    line = refused("run", space(**parts))
    holds(line, "context of 32 tokens", "27 prompt rows and 7 tokens", "make 34", "shorten prompt.length")


def test_words_and_text_longer_than_the_context(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], tiny_model: str
) -> None:
    parts = {"task": file_task(), "oracle": model(tiny_model)}
    stages = [{"kind": "search", "optimizer": {"kind": "token_edit"}}]
    line = refused("run", space(**parts, stages=stages, prompt={"kind": "text", "length": 60}))
    holds(line, "context of 32 tokens", "text prompt 'prompt prompt", "use fewer words (prompt.length")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ({0: " bad", 1: " good5"}, ["must be one token", "' good5' is 2", "label_rule: first", "or to sum or mean"]),
        ({0: " terrible", 1: " great"}, ["must differ in their token", "' terrible'", "' great'", "label_words"]),
    ],
)
def test_label_words_that_the_tokenizer_cannot_tell(
    refused: Refused,
    space: Callable[..., str],
    file_task: Callable[..., Any],
    tiny_model: str,
    words: dict[int, str],
    parts: list[str],
) -> None:
    task = file_task(label_words=words)
    line = refused("run", space(task=task, oracle=model(tiny_model), prompt={"length": 4}))
    holds(line, *parts)


# ------------------------------------------------------------------------------------------------- the budget
@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("budget", "shown"),
    [({"queries": 5}, "6 queries"), ({"forwards": 30}, "96 forwards"), ({"tokens": 99}, "tokens")],
)
def test_a_budget_smaller_than_a_step(
    refused: Refused, space: Callable[..., str], command: str, budget: dict[str, int], shown: str
) -> None:
    line = refused(command, space(budget={"queries": None} | budget), status=3)
    holds(line, "one step of zot", shown, str(budget), "raise it")


def test_a_stage_that_the_ones_before_leave_nothing(refused: Refused, space: Callable[..., str]) -> None:
    search = {"kind": "search", "optimizer": {"kind": "zot"}}
    greedy = search | {"steps": 10**6}
    holds(refused("run", space(stages=[greedy, search]), status=3), "the stages before take", "limit the steps")


# ------------------------------------------------------------------------------------------------- the run directory
@pytest.mark.parametrize("chosen", [True, False])
def test_an_existing_run_is_left_alone(
    refused: Refused, space: Callable[..., str], workplace: Path, chosen: bool
) -> None:
    there = workplace / ("there" if chosen else "runs/mine")
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}", encoding="utf-8")
    (there / "ledger.jsonl").write_text("precious\n", encoding="utf-8")
    line = refused("run", space(), *(["--out", "there"] if chosen else []))
    holds(line, str(there.relative_to(workplace)), "holds a run", "--resume", "--out DIR")
    assert (there / "ledger.jsonl").read_text(encoding="utf-8") == "precious\n"
    assert (there / "config.json").read_text(encoding="utf-8") == "{}"


def test_a_folder_with_other_things_is_left_alone(refused: Refused, space: Callable[..., str], workplace: Path) -> None:
    (workplace / "there").mkdir()
    (workplace / "there" / "thesis.tex").touch()
    holds(refused("run", space(), "--out", "there"), "there is not empty", "--out DIR")


def test_an_analysis_leaves_other_things_alone(refused: Refused, workplace: Path) -> None:
    (workplace / "runs").mkdir()
    (workplace / "runs" / "notes.txt").write_text("keep")
    told = refused("analyze", "effective-dimension", "--out", "runs")
    holds(told, "an earlier one, but runs holds something else", "--out")


def test_the_comparison_of_a_paper_is_a_benchmark(refused: Refused) -> None:
    for options in ([], ["--quick", "--seed", "3"]):
        holds(refused("analyze", "trainable-optimizer", *options), "python -m benchmarks.reproductions")


def test_an_analysis_that_needs_gradients_of_a_black_box(
    refused: Refused, space: Callable[..., str], file_task: Callable[..., Any], tiny_model: str
) -> None:
    path = space(task=file_task(), oracle={"kind": "vllm", "model": tiny_model}, prompt={"length": 4})
    holds(refused("analyze", "effective-dimension", path), "of kind vllm gives no gradients", "--forward-only")
    words = space(prompt={"kind": "text"}, stages=[{"kind": "search", "optimizer": {"kind": "token_edit"}}])
    holds(refused("analyze", "effective-dimension", words), "needs coordinates", "prompt.kind is text")
    holds(refused("analyze", "effective-dimension", "nothing.yaml"), "nothing.yaml")


def test_a_file_is_no_run_directory(refused: Refused, space: Callable[..., str], workplace: Path) -> None:
    (workplace / "there").touch()
    holds(refused("run", space(), "--out", "there"), "there", "--out DIR")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "name=" + "n" * 300], "choose a shorter name"),
        (["--out", "file/x"], "a part of the path is a file"),
        (["--out", "/proc/x"], "'/proc/x' is not (No such file or directory)"),
    ],
)
def test_a_run_directory_that_cannot_be_made(
    refused: Refused, space: Callable[..., str], workplace: Path, arguments: list[str], says: str
) -> None:
    (workplace / "file").touch()
    holds(refused("run", space(), *arguments), "must be within reach", says)


def test_resuming_without_a_run(refused: Refused, space: Callable[..., str]) -> None:
    holds(refused("run", space(), "--resume", "--out", "there"), "config.json", "there", "start a run")
    holds(refused("run", space(), "--resume"), "runs/mine", "check the path")


def test_a_resumed_run_whose_space_was_edited(
    tune: Callable[..., click.testing.Result], space: Callable[..., str], workplace: Path
) -> None:
    from distributed_tuner.preflight.prepare import prepare
    from distributed_tuner.runs.directory import write_json

    prepared = prepare(workplace / space(), ["budget.queries=80"])
    (workplace / "there").mkdir()
    trials, experiment = [plan.to_json() for plan in prepared.plans], prepared.experiment.model_dump(mode="json")
    config = {"experiment": experiment, "trials": trials, "space": prepared.space}
    write_json(workplace / "there" / "config.json", config)
    resume = ["run", "mine.yaml", "--out", "there", "--resume"]

    result = tune(*resume, "--set", "budget.queries=200")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    holds(line, "--set differs from there/config.json: budget.queries was 80 and is 200", "undo the edit")
    space(seed=1)
    line = tune(*resume).stderr
    holds(line, "mine.yaml differs from there/config.json: seed was left out and is 1")

    space()
    for given in (resume, ["run", "--out", "there", "--resume"]):
        result = tune(*given)
        assert isinstance(result.exception, AssertionError), "it gets as far as its experiment"
    write_json(workplace / "there" / "config.json", config | {"newer": 1})
    result = tune(*resume)
    assert result.exit_code == 2
    holds(result.stderr, "there/config.json holds 'newer', which is not known here")


@pytest.mark.parametrize("arguments", [["report"], ["evaluate"], ["export", "--format", "text"]])
@pytest.mark.parametrize("exists", [True, False])
def test_commands_on_a_folder_without_a_run(
    refused: Refused, workplace: Path, arguments: list[str], exists: bool
) -> None:
    if exists:
        (workplace / "there").mkdir()
    holds(refused(arguments[0], "there", *arguments[1:]), "there", "does not" if len(arguments) == 1 else "lacks")


@pytest.mark.parametrize("text", ["{broken", "{}", "[]"])
def test_a_config_that_no_run_has_written(
    refused: Refused, space: Callable[..., str], workplace: Path, text: str
) -> None:
    (workplace / "there").mkdir()
    (workplace / "there" / "config.json").write_text(text, encoding="utf-8")
    for arguments in (["evaluate", "there"], ["run", space(), "--resume", "--out", "there"], ["report", "there"]):
        holds(refused(*arguments), "there")
