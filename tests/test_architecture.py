"""The arrows between the packages, and what the command line loads before it knows what to do."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import save_tiny

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "distributed_tuner"


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, at_top: bool = False) -> Iterator[str]:
    """Yield every name that a module imports, also inside functions; ``at_top``: only what loading it loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _loaded(tree) if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _loaded(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not typing_only:
            yield node
            yield from _loaded(node)


def offenders(folder: Path, forbidden: tuple[str, ...], at_top: bool = False) -> list[str]:
    """Return "module -> import" for each import of something forbidden or of a part of it."""
    return [
        f"{name_of(path)} -> {name}"
        for path in modules(folder)
        for name in imports(path, at_top)
        if any(name == one or name.startswith(one + ".") for one in forbidden)
    ]


def test_the_walk_sees_what_is_there() -> None:
    assert len(modules(CORE)) > 50
    assert offenders(ROOT / "actors", ("ray",)) != []
    assert "actors.pool.dispatcher -> ray" in offenders(ROOT / "actors", ("ray",))
    assert offenders(CORE / "oracles", ("torch",)) != offenders(CORE / "oracles", ("torch",), at_top=True) == []


FRONT_DOORS = ("distributed_tuner.cli", "distributed_tuner.api", "distributed_tuner.classifier")
"""What people come in by: above actors/, and imported by nothing of the core but each other."""


def test_the_core_knows_no_ray_and_no_actors() -> None:
    found = offenders(CORE, ("ray", "actors"))
    assert [one for one in found if not one.startswith(tuple(f"{door} -> actors" for door in FRONT_DOORS))] == []
    exported = ("distributed_tuner -> ", *FRONT_DOORS)  # the package names what it exports, and loads it when asked
    assert [one for one in offenders(CORE, FRONT_DOORS) if not one.startswith(exported)] == []


def test_nothing_that_is_installed_imports_the_benchmarks() -> None:
    assert [*offenders(CORE, ("benchmarks",)), *offenders(ROOT / "actors", ("benchmarks",))] == []


PRIVATE = ("ray._private", "ray._raylet")


def test_private_parts_of_ray_are_used_in_one_room() -> None:
    found = offenders(ROOT / "actors", PRIVATE)
    assert found and [one for one in found if not one.startswith("actors.ray_internals.")] == []


@pytest.mark.parametrize("folder", ["distributed_tuner", "actors", "benchmarks", "tests"])
def test_nobody_imports_the_entry_point_but_its_tests(folder: str) -> None:
    found = offenders(ROOT / folder, ("tune",))
    assert [one for one in found if not one.startswith("tests.")] == []


def test_optimizers_and_oracles_do_not_know_each_other() -> None:
    assert offenders(CORE / "optimizers", ("distributed_tuner.oracles",)) == []
    assert offenders(CORE / "oracles", ("distributed_tuner.optimizers",)) == []


def test_neither_knows_stages_tasks_ledger_or_report() -> None:
    above = tuple(f"distributed_tuner.{part}" for part in ("stages", "tasks", "ledger", "report", "preflight"))
    assert offenders(CORE / "optimizers", above) == []
    assert offenders(CORE / "oracles", above) == []
    assert offenders(CORE / "maths", above) == []


def test_stages_meet_both_families_through_their_protocols() -> None:
    allowed = {
        "distributed_tuner.optimizers",  # the package: build
        "distributed_tuner.optimizers.base",
        "distributed_tuner.optimizers.probe",
        "distributed_tuner.oracles.base",
        "distributed_tuner.oracles.codec",  # of which every oracle has one
        "distributed_tuner.oracles.wrappers.budgeted",  # the protocol with a budget
    }
    for path in modules(CORE / "stages"):
        for name in imports(path):
            if name.startswith("distributed_tuner.o"):
                known = name in allowed or name.rpartition(".")[0] in allowed - {"distributed_tuner.optimizers"}
                assert known, f"{name_of(path)} imports {name}"


def test_a_trial_knows_its_stages_by_their_contract_alone() -> None:
    kinds = {f"distributed_tuner.stages.{name}" for name in ("search", "restart", "screen", "auto_settings")}
    known = {name.rpartition(".")[0] for name in imports(CORE / "stages" / "trial.py")}
    assert "distributed_tuner.stages.opening" in known and not known & kinds


def test_what_runs_an_optimizer_names_none() -> None:
    """A new kind is a config class, a file and a case of ``build``; what runs it meets the unions and the contract."""
    config, first_order = "distributed_tuner.config.optimizer", "distributed_tuner.config.first_order"
    family = "distributed_tuner.optimizers"
    unions = {f"{config}.OptimizerConfig", f"{config}.OptimizerSettings", f"{first_order}.FirstOrderConfig"}
    contract = {family, *(f"{family}.{name}" for name in ("build", "build_probe", "Optimizer"))}
    elsewhere = (f"{family}.base.", f"{family}.contract.", f"{family}.probe.")
    rooms = [ROOT / "actors", *(CORE / name for name in ("stages", "schedule", "preflight", "runs"))]
    found = [
        f"{name_of(path)} -> {name}"
        for room in rooms
        for path in modules(room)
        for name in imports(path)
        if name.startswith((config, first_order, family)) and not name.startswith(elsewhere)
        if name not in unions | contract
    ]
    assert found == [
        "actors.run.analysis -> distributed_tuner.config.first_order.AdamWConfig"
    ]  # an experiment with AdamW


def test_maths_is_numpy_and_the_standard_library() -> None:
    ours = ("distributed_tuner.maths.", "distributed_tuner.values.Array")  # the latter only names array types
    for path in modules(CORE / "maths"):
        for name in imports(path):
            plain = name.split(".")[0] in {"numpy", *sys.stdlib_module_names}
            assert plain or name.startswith(ours), f"{name_of(path)} imports {name}"


def test_config_knows_only_itself_and_what_knows_nothing_else() -> None:
    for path in modules(CORE / "config"):
        for name in imports(path):
            if name.startswith("distributed_tuner."):
                assert name.split(".")[1] in {"config", "errors", "seeds", "shown", "values"}, (
                    f"{name_of(path)} imports {name}"
                )


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = ("torch", "transformers", "datasets", "plotly", "pandas", "peft", "safetensors", "openai", "tenacity")
    assert offenders(CORE, heavy, at_top=True) == []
    assert offenders(ROOT / "actors", heavy, at_top=True) == []


# --------------------------------------------------------------------------------------------- what is really loaded
LIBRARIES = {"ray", "torch", "transformers", "huggingface_hub", "pandas", "pyarrow", "scipy", "sklearn", "plotly"}
LIBRARIES |= {"matplotlib", "openai", "datasets", "peft", "accelerate", "tensorboardX", "pytest", "hypothesis"}
"""What takes long to import."""


def loaded_after(code: str, **environment: str) -> set[str]:
    """Run code in a fresh interpreter; return the top-level modules that it has loaded."""
    probe = f"import sys\n{code}\nprint('\\n'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def command(*arguments: str) -> str:
    """Return code that runs a command of tune.py and expects it to succeed."""
    return (
        "import tune\n"
        f"try:\n    tune.app({list(arguments)!r})\n"
        "except SystemExit as left:\n    assert not left.code, left.code"
    )


def test_the_entry_point_loads_the_command_line_and_nothing_heavy() -> None:
    modules = "print(*(name for name in sys.modules if name.startswith('distributed_tuner')))"
    ours = {"distributed_tuner", "distributed_tuner.cli", "distributed_tuner.shipped"}
    assert {name for name in loaded_after(f"import tune\n{modules}") if name.startswith("distributed")} == ours
    assert loaded_after("import tune") & {"ray", "torch", "numpy", "pydantic", "actors"} == set()


def test_check_starts_no_ray_and_needs_no_torch_without_a_model() -> None:
    loaded = loaded_after(command("check", "search_spaces/debug.yaml"))
    assert "distributed_tuner" in loaded
    assert loaded & (LIBRARIES | {"nevergrad", "actors", "tokenizers"}) == set()


def test_check_of_a_model_that_was_met_before_needs_its_tokenizer_alone(tmp_path: Path) -> None:
    oracle = {"kind": "transformers", "model": str(save_tiny("llama", tmp_path / "model")), "dtype": "auto"}
    space = tmp_path / "space.yaml"
    stages = [{"kind": "search", "optimizer": {"kind": kind}} for kind in ("zot", "cma", "nevergrad")]
    words = {"0": " bad", "1": " good"}
    task = {"kind": "file", "train": "data.jsonl", "text": "text", "label": "label", "shots": 2}
    task |= {"template": "{text} It was{label_word}", "label_words": words, "manual_prompt": "Classify"}
    settings = {"name": "tiny", "task": task, "oracle": oracle, "prompt": {"length": 2}, "budget": {"queries": 400}}
    rows = [json.dumps({"text": f"film {i}", "label": i % 2}) for i in range(12)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    space.write_text(json.dumps(settings | {"stages": stages}))  # YAML holds JSON
    kept = {"DISTRIBUTED_TUNER_CACHE": str(tmp_path / "cache")}
    first = loaded_after(command("check", str(space)), **kept)
    again = loaded_after(command("check", str(space)), **kept)
    assert {"torch", "transformers", "tokenizers"} <= first
    assert "tokenizers" in again
    assert again & (LIBRARIES | {"nevergrad", "actors"}) == set()


def test_actors_of_the_pool_load_no_more_than_they_need() -> None:
    loaded = loaded_after(
        "import actors.pool.dispatcher, actors.pool.supervisor\n"
        "assert 'distributed_tuner.preflight.prepare' not in sys.modules"
    )
    assert loaded & (LIBRARIES - {"ray"}) == set()


@pytest.mark.parametrize("part", ["actors.trials.trainable", "actors.run.experiment"])
def test_the_driver_and_a_trial_load_tune_without_data_frames_and_data_sets(part: str) -> None:
    without = f"import {part}\nassert 'ray.data' not in sys.modules\n"
    loaded = loaded_after(without)
    assert "ray" in loaded
    assert loaded & (LIBRARIES - {"ray", "pyarrow"} | {"cma", "nevergrad", "prometheus_client", "jinja2"}) == set()


def test_who_asks_tune_for_a_data_frame_gets_one() -> None:
    loaded_after(
        "from actors.ray_internals.tune_import import tune\nassert 'pandas' not in sys.modules\n"
        "from ray.tune.analysis import experiment_analysis\n"
        "assert experiment_analysis.DataFrame([[1]]).shape == experiment_analysis.pd.DataFrame([[1]]).shape == (1, 1)\n"
        "import pandas, ray.data\n"
        "assert type(experiment_analysis.DataFrame()) is pandas.DataFrame is experiment_analysis.pd.DataFrame\n"
        "assert ray.data.Dataset.__name__ == 'Dataset'"
    )


def test_report_needs_neither_ray_nor_torch(tmp_path: Path) -> None:
    from distributed_tuner.ledger.rows import RunRow
    from distributed_tuner.ledger.writer import LedgerWriter

    plan = {"trial_id": "zot-0000", "index": 0, "method": "zot", "seed": 0, "split_seed": 0, "drawn": {}, "config": {}}
    (tmp_path / "config.json").write_text(json.dumps({"name": "some", "trials": [plan]}))
    with LedgerWriter(tmp_path / "ledger.jsonl") as writer:
        writer.write(RunRow(name="some", version="0", seed=0, methods=["zot"]))
    loaded = loaded_after(command("report", str(tmp_path)))
    assert (tmp_path / "report.html").is_file()
    assert loaded & {"ray", "torch", "transformers", "actors"} == set()
