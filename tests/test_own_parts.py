"""Parts of the user's own, as ``check`` meets them: sound ones are accepted, each mistake is one line."""

import functools
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_head import CentredHead
from own_optimizer import EvolutionStrategy

from distributed_tuner import Analytic, custom, heads, optimizers, oracles, proposers, tune
from distributed_tuner.config.custom import CustomPart, parts_of
from distributed_tuner.config.head import CustomHeadConfig
from distributed_tuner.config.optimizer import CustomOptimizerConfig
from distributed_tuner.config.oracle import CustomOracleConfig
from distributed_tuner.config.proposer import CustomProposerConfig
from distributed_tuner.errors import ConfigError, PartError, ProposerError, TunerError
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.proposers.custom import NoModel
from distributed_tuner.testing.oracles import SPEC
from distributed_tuner.values import Point, Request

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OPTIMIZER = (EXAMPLES / "own_optimizer.py").read_text()
HEAD = (EXAMPLES / "own_head.py").read_text()
ORACLE = (EXAMPLES / "own_oracle.py").read_text()
TASK = (EXAMPLES / "own_task.py").read_text()
PROPOSER = (EXAMPLES / "own_proposer.py").read_text()
names = map("mine_{}".format, itertools.count())  # a module is imported once a process

Check = Callable[..., Prepared]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return what checks a space of one search in which one part is ``source``, by default of the class ``name``."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def checked(
        family: str,
        source: str | None,
        name: str,
        folder: str = "",
        prompt_settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Prepared:
        module = next(names)
        (tmp_path / folder).mkdir(exist_ok=True)
        if source is not None:
            (tmp_path / folder / f"{module}.py").write_text(source)
        part = {"kind": "custom", "import_path": f"{module}:{name}"} | more
        stage = {"kind": "search", "optimizer": {"kind": "random_search"}}
        tree = {"name": "own", "task": {"kind": "demo"}, "oracle": {"kind": "analytic"}, "budget": {"queries": 100}}
        tree |= {"prompt": prompt_settings or {"length": 2}, "stages": [stage]}
        if family == "optimizer":
            stage["optimizer"] = part
        elif family == "gradient":
            stage |= {"kind": "gradient", "optimizer": part}
        elif family == "proposer":
            restart = {"kind": "restart", "proposer": part}
            tree |= {"task": {"kind": "demo", "feedback": 4}, "stages": [stage, restart, stage]}
        else:
            tree[family] = part
        space = tmp_path / "space.yaml"
        space.write_text(json.dumps(tree))  # YAML holds JSON
        return prepare(space, [])

    return checked


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(TunerError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ----------------------------------------------------------------------------------------------- what is accepted
def test_the_examples_are_sound(check: Check) -> None:
    prepared = check("optimizer", OPTIMIZER, "EvolutionStrategy", settings={"sigma": 0.5})
    assert prepared.plans[0].method == "EvolutionStrategy"
    (part,) = parts_of(prepared.experiment)
    assert part.folders and part.settings == {"sigma": 0.5}
    assert check("head", HEAD, "CentredHead").experiment.head.kind == "custom"


def test_a_module_may_lie_in_a_folder_that_is_named(check: Check) -> None:
    message = refused(lambda: check("head", HEAD, "CentredHead", folder="elsewhere"))
    assert "put it next to the search space, or name its folder in folders" in message
    assert check("head", HEAD, "CentredHead", folder="elsewhere", folders=["elsewhere"])


def test_settings_are_drawn_like_any_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    space = (EXAMPLES / "own_parts.yaml").read_text().replace("sigma: 0.3", "sigma: !grid [0.1, 0.2]")
    for name in ("own_optimizer.py", "own_head.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    path = tmp_path / "space.yaml"
    path.write_text(space)
    plans = prepare(path, ["oracle.kind=analytic"]).plans
    assert [plan.drawn for plan in plans] == [{"stages.0.optimizer.settings.sigma": sigma} for sigma in (0.1, 0.2)]


def test_objects_of_python_become_parts() -> None:
    from distributed_tuner.heads.bias import BiasHead

    class Mine(BiasHead):
        pass

    here = CustomHeadConfig(import_path=custom.path_of(BiasHead))
    assert here.import_path == "distributed_tuner.heads.bias:BiasHead"
    local = CustomHeadConfig(import_path=custom.path_of(Mine), settings={"strength": 0.1})
    assert custom.path_of(Mine) == local.import_path
    assert isinstance(heads.build(local, 2), Mine)
    elsewhere = CustomHeadConfig(import_path="given:part_0")
    assert "put its class into a module" in refused(lambda: heads.build(elsewhere, 2))


def test_tune_takes_classes_with_their_settings() -> None:
    optimizer = functools.partial(EvolutionStrategy, children=4)
    rows = (["good", "bad"] * 8, [1, 0] * 8)
    result = tune(Analytic(), rows, optimizer=optimizer, head=CentredHead, budget=40, seed=1, progress=False)
    assert json.loads((result.directory / "config.json").read_text())["trials"][0]["method"] == "EvolutionStrategy"
    assert result.predict(["good"]).shape == (1,)

    class Mine(EvolutionStrategy):
        pass

    message = refused(lambda: tune(Analytic(), rows, optimizer=Mine, budget=40, pool=1, progress=False))
    assert "put its class into a module of its own, or leave pool out" in message


# ----------------------------------------------------------------------------------------------- importing
@pytest.mark.parametrize(
    ("source", "name", "told"),
    [
        (None, "Mine", "put it next to the search space"),
        ("import no_such_package", "Mine", "imports 'no_such_package', which this Python does not have; install that"),
        ("1 / 0", "Mine", "raised ZeroDivisionError"),
        ("def f(:", "Mine", "raised SyntaxError"),
        ("class Mien: pass", "Mine", "did you mean 'Mien'?"),
        ("x = 1", "Mine", "it has x"),
        ("Mine = 3", "Mine", "is of type int; name its class"),
        ("class Mine: pass", "Mine", "must be a subclass of distributed_tuner.optimizers.base.Optimizer"),
    ],
)
def test_what_cannot_be_imported_is_refused(check: Check, source: str | None, name: str, told: str) -> None:
    assert told in refused(lambda: check("optimizer", source, name))


def test_no_code_of_a_run_directory_is_run(check: Check, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "ledger.jsonl").touch()
    message = refused(lambda: check("head", "raise SystemExit(9)", "Mine", folder="run", folders=["run"]))
    assert "a run directory holds no code that is run" in message


@pytest.mark.parametrize("path", ["mine", "mine:", ":Mine", "mine/x:Mine", "mine.py"])
def test_an_import_path_has_a_module_and_a_class(path: str) -> None:
    with pytest.raises(ValueError, match="import_path"):
        CustomOptimizerConfig(import_path=path)


# ----------------------------------------------------------------------------------------------- contracts
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def recommend", "def suggest", "lacks recommend"),
        ("def _relocate", "def _move", "lacks _relocate"),
        ("super().__init__(dim, key)", "pass", "begins with super().__init__(dim, key)"),
        ("sigma: float = 0.3", "width: float = 0.3", "must be made of its settings"),
        ("return self._children\n", "return 1\n", "it proposed 5 in step 0"),
        ('"sigma": self._sigma}\n\n    def _load', '"sigma": self}\n\n    def _load', "return those from _save"),
        ("losses_are_of_the_start = False", "white_box = True", "put it into a stage of kind gradient"),
        ("losses_are_of_the_start = False", "is_discrete = True", "set space: words"),
    ],
)
def test_an_optimizer_that_breaks_its_contract_is_refused(check: Check, old: str, new: str, told: str) -> None:
    assert old in OPTIMIZER
    assert told in refused(lambda: check("optimizer", OPTIMIZER.replace(old, new), "EvolutionStrategy"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sgima": 1.0}, "unexpected keyword argument 'sgima'"),
        ({"dim": 3}, "is given dim already"),
        ({"children": "many"}, "queries_per_step of an optimizer is a whole number"),
    ],
)
def test_settings_that_the_constructor_refuses(check: Check, settings: dict[str, Any], told: str) -> None:
    assert told in refused(lambda: check("optimizer", OPTIMIZER, "EvolutionStrategy", settings=settings))


def test_a_black_box_belongs_into_a_search_stage(check: Check) -> None:
    message = refused(lambda: check("gradient", OPTIMIZER, "EvolutionStrategy"))
    assert "put it into a stage of kind search" in message


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def _leave_one_out", "def _loo", "lacks _leave_one_out"),
        ("super().__init__(classes)", "pass", "begins with super().__init__(classes)"),
        ('"mean": np.mean(', '"means": np.mean(', "must read answers, but it raised KeyError"),
        ("axis=0)}", "axis=0), 'note': self}", "must be fitted to answers, but it raised TypeError"),
        ("np.exp(log_softmax(", "(log_softmax(", "which are above 0 and sum to 1"),
        ("log_softmax((scores - mean) / self._temperature))", "log_softmax(scores[:1]))", "an array of shape (1, 4)"),
        ("least_rows = 2", "words_needed = True", "set it to how many"),
    ],
)
def test_a_head_that_breaks_its_contract_is_refused(check: Check, old: str, new: str, told: str) -> None:
    assert old in HEAD
    assert told in refused(lambda: check("head", HEAD.replace(old, new), "CentredHead"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def score", "def scores", "raised TypeError: Can't instantiate abstract class HashedWords"),
        ("(Oracle)", "", "lacks info, cost, evaluate"),
        ("scores[i] = features_E_D @ rows_W_D.T", "return scores[:1]", "gave arrays of shape (1,"),
        ("scores[i] =", "scores[9] =", "must answer a request, but it raised IndexError"),
        ("width: int = 16", "breadth: int = 16", "does not take these"),
    ],
)
def test_an_oracle_that_breaks_its_contract_is_refused(check: Check, old: str, new: str, told: str) -> None:
    assert old in ORACLE
    prompt = {"length": 4, "init": "zeros", "scale": "paper"}

    def asked() -> None:
        source = ORACLE.replace(old, new)
        prepared = check("oracle", source, "HashedWords", settings={"width": 8}, prompt_settings=prompt)
        oracle = oracles.build(prepared.experiment.oracle)
        batch, spec = prepared.tasks[0].batch("train"), prompt_spec(prepared.experiment.prompt, prepared.tasks[0])
        oracle.evaluate(Request((Point(np.zeros(32, np.float32)),) * 2, batch, spec))

    assert told in refused(asked)


def test_an_oracle_without_a_vocabulary_has_no_restarts_of_soft_prompts() -> None:
    config = CustomOracleConfig(import_path="own_oracle:HashedWords")
    counter = build_counter(config)
    assert (counter.width, counter.soft, counter.has_tokenizer) == (16, True, False)
    assert "has no vocabulary" in refused(lambda: counter.require_embedded(SPEC))
    with pytest.raises(ValueError, match="leave it out"):
        CustomOracleConfig(import_path="own_oracle:HashedWords", cache="/tmp/answers")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("self.label = ", "self.name = ", "lacks label"),
        ("def answer", "def reply", "lacks answer"),
        ("tuned: TunedModel, ", "", "does not take these"),
        ("self._instructions = instructions", "self._instructions = instructions[99]", "raised IndexError"),
    ],
)
def test_a_proposer_that_breaks_its_contract_is_refused(check: Check, old: str, new: str, told: str) -> None:
    assert old in PROPOSER
    settings = {"instructions": ["Route the message."]}
    assert check("proposer", PROPOSER, "FromAList", settings=settings).plans[0].method == "random_search+FromAList"
    assert told in refused(lambda: check("proposer", PROPOSER.replace(old, new), "FromAList", settings=settings))


WORDING = {"text": "text", "label": "even", "template": "{text} is{label_word}", "shots": 4} | {
    "manual_prompt": "Is it even?"
}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def train", "def rows", "lacks train"),
        ("(TaskSource)", "", "must be a subclass of distributed_tuner.tasks.custom.TaskSource"),
        ("number % 2", "number % 0", "must bring its train rows, but it raised ZeroDivisionError"),
        ('"even"', '"odd"', "has no label column 'even'"),
        ("range(self._limit)", "range(0)", "must have rows, but there are none"),
        ("limit: int = 100", "below: int = 100", "does not take these"),
    ],
)
def test_a_task_that_breaks_its_contract_is_refused(check: Check, old: str, new: str, told: str) -> None:
    assert old in TASK
    words = {"true": " even", "false": " odd"}
    more: dict[str, Any] = {"settings": {"limit": 60}, "label_words": words, **WORDING}
    prepared = check("task", TASK, "Parity", **more)
    assert [len(prepared.tasks[0].examples(split)) for split in ("train", "dev", "test")] == [8, 8, 50]
    assert told in refused(lambda: check("task", TASK.replace(old, new), "Parity", **more))


@pytest.mark.parametrize(
    ("answer", "told"), [(3, "did with int"), (None, "NoneType"), (ValueError("no"), "raised ValueError: no")]
)
def test_a_proposer_that_fails_costs_the_stage_its_proposals(answer: object, told: str) -> None:
    class Moody:
        label = "moody"

        def __init__(self, tuned: object) -> None:
            pass

        def answer(self, ask: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

    config = CustomProposerConfig(import_path=custom.path_of(Moody))
    proposer = proposers.build(config, root=Path(), tuned=NoModel())
    with pytest.raises(ProposerError, match=told):
        proposer.answer(proposers.Ask("Write.", 1, ("a", 0, 0)))


def test_a_part_that_fails_later_says_where() -> None:
    config = CustomHeadConfig(import_path=custom.path_of(_Moody))
    head = heads.build(config, 2)
    with pytest.raises(PartError, match=r"must be fitted to answers, but it raised KeyError.*test_own_parts"):
        head.fit([[0.0, 1.0]], [1])


class _Moody(heads.Head):
    def _fit(self, *told: Any) -> Any:
        raise KeyError("mood")

    _predict = _leave_one_out = _fit


def test_an_optimizer_that_is_no_optimizer_for_words(check: Check) -> None:
    config = CustomOptimizerConfig(import_path=custom.path_of(optimizers.RandomSearch), space="words")
    message = refused(lambda: optimizers.build(config, dim=2, key=(0,), steps=1, vocabulary=["a", "b"]))
    assert "lacks _relocate_text" in message


def test_what_is_no_part_is_left_as_it_is() -> None:
    config = CustomHeadConfig(import_path="a:B")
    assert custom.with_folders(config, Path("/x")).folders[0] == "/x"
    assert isinstance(config, CustomPart) and config.class_name == "B"
    with pytest.raises(ConfigError):
        custom.imported(config)
