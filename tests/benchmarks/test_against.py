"""The comparison of two trees in small: its arithmetic, its processes on trees made for it. No test looks at a time."""

import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

import benchmarks.against as command
from benchmarks import side_rates, side_runs
from benchmarks.against import PARTS, processor_of, report
from benchmarks.busy import busy
from benchmarks.ratios import TARGETS, Pair, Row, cells, order, take_turns, verdicts
from benchmarks.side_rates import ONE_SIZES, POOL_SIZES, Plan, Size, affordable
from benchmarks.sides import ROOT, Asker, Name, RevisionError, Side, Sides, commit_of, worktree
from benchmarks.texts import batch
from distributed_tuner.values import PromptSpec

BOTH = Sides(Side("here", ROOT), Side("there", ROOT))
SUFFIX = PromptSpec(2, "zeros", "", "suffix", "embedding")
ROW = Row("pool quickstart", "queries/s", 1, (Pair(6.0, 2.0), Pair(8.0, 2.0), Pair(3.0, 1.5)), "told")


# ------------------------------------------------------------------------------------------- rows and verdicts
def test_sides_take_turns_and_none_is_always_first() -> None:
    asked: list[Name] = []

    def measure(name: Name) -> float:
        asked.append(name)
        return float(len(asked))

    pairs = take_turns(3, 60.0, measure)
    assert asked == ["here", "there", "there", "here", "here", "there"]
    assert pairs == (Pair(1.0, 2.0), Pair(4.0, 3.0), Pair(5.0, 6.0))
    assert order(3) == ("there", "here")


def test_a_row_that_takes_long_has_one_round_at_least() -> None:
    assert len(take_turns(5, 0.0, lambda name: 1.0)) == 1


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    assert (ROW.here, ROW.there, ROW.ratio) == (6.0, 2.0, 3.0)
    assert cells(ROW) == ["pool quickstart", "queries/s", "6.00", "2.00", "3.00", "2.00 to 4.00", "3", "told"]


def test_what_has_no_ratio_says_so() -> None:
    losses = Row("float32 losses", "loss", 0, (Pair(2e-6, 1e-6),))
    nothing = Row("pool prefix", "queries/s", 0, (Pair(1.0, 0.0),))
    assert losses.ratio is None and nothing.ratio is None
    assert cells(losses)[2:6] == ["2.0e-06", "1.0e-06", "-", "-"]


def reached(factor: float = 1.0) -> list[Row]:
    """Return rows that reach every target, or miss them by a factor."""
    rows = {}
    for target in TARGETS:
        value = target.bound * (factor if target.most else 1 / factor)
        row = rows.get((target.row, target.beside)) or Row(target.row, "CPU s", target.beside, (Pair(1.0, 1.0),))
        of = "pairs" if target.of != "share" else "share"
        best = max(value, row.here) if of == "pairs" and factor == 1.0 and not target.most else value
        pair = Pair(best, 1.0)
        changed: dict[str, Any] = {of: pair if of == "share" else (pair,)}
        rows[target.row, target.beside] = replace(row, **changed)
    return list(rows.values())


@pytest.mark.parametrize(("amx", "others"), [(True, 2), (False, 4)])
def test_every_target_has_a_verdict_and_those_of_other_processors_say_so(amx: bool, others: int) -> None:
    for factor, met in ((1.0, True), (1.01, False)):
        judged = verdicts(reached(factor), amx)
        assert len(judged) == len(TARGETS)
        elsewhere = [verdict for verdict in judged if verdict.measured == "not on this processor"]
        assert len(elsewhere) == others and {verdict.met for verdict in elsewhere} == {None}
        assert {verdict.met for verdict in judged if verdict not in elsewhere} == {met}


def test_a_verdict_names_the_row_and_what_was_found() -> None:
    said = [str(verdict) for verdict in verdicts([ROW], amx=False)]
    assert said[0] == "met           pool quickstart, beside 1: here / REV >= 3.00x: 3.00x"
    assert {line.split("  ")[0] for line in said[1:]} == {"not measured"}


def test_losses_that_are_no_numbers_are_a_miss() -> None:
    row = Row("float32 losses", "loss", 0, (Pair(float("nan"), 1e-6), Pair(1e-6, 1e-6)))
    assert [verdict.met for verdict in verdicts([row], amx=False) if "float32" in verdict.target] == [False]


def test_a_table_for_each_number_of_busy_processes() -> None:
    lines = report([ROW, replace(ROW, beside=0)], verdicts([], amx=True), (0, 1, 2))
    assert [line for line in lines if line.startswith("beside")] == [
        "beside 0 busy processes",
        "beside 1 busy processes",
    ]
    assert lines.count("| " + " | ".join(cells(ROW)) + " |") == 2


def test_the_largest_size_that_a_turn_has_time_for() -> None:
    assert affordable(0.1, POOL_SIZES, 10.0) == Size(16, 3)
    assert affordable(0.3, POOL_SIZES, 10.0) == Size(8, 3)
    assert affordable(0.5, POOL_SIZES, 10.0) == Size(4, 4)
    assert affordable(99.0, POOL_SIZES, 10.0) == Size(2, 4)
    assert affordable(1.0, ONE_SIZES, 10.0) == Size(8, 1)


def test_the_useful_rate_is_over_the_matrix_products() -> None:
    from benchmarks.worker import Facts

    facts = Facts(100, {"suffix": (3, 3)}, (2, 2))  # two texts: 2 x (2 rows + 2 tokens of the cue)
    row = Row("one thread suffix 8", "queries/s", 0, (Pair(2.0, 1.0),), "float32")
    row = side_rates.with_useful_rate(row, SUFFIX, facts, [Pair(6400.0, 3200.0)] * 2)
    assert row.share == Pair(2 * 1600 / 6400, 1600 / 3200)
    assert "50% and 50%" in row.how


def test_the_processor_is_told_by_its_flags() -> None:
    first = "processor : 0\nmodel name\t: Xeon\nflags\t\t: fpu avx512f amx_tile amx_bf16\n"
    told = f"{first}\nprocessor: 1\nmodel name: other\n"
    found = processor_of(told)
    assert (found.name, found.amx, found.avx512, found.avx512_bf16) == ("Xeon", True, True, False)
    assert str(found) == "Xeon, AMX, AVX-512, no AVX-512 BF16"
    assert not processor_of("").amx


# ------------------------------------------------------------------------------------------------------- trees
@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of two commits: ``number`` is 1 in the first and 2 in the second."""
    folder = tmp_path / "repository"
    folder.mkdir()
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for number in (1, 2):
        (folder / "number").write_text(str(number), encoding="utf-8")
        subprocess.run(["git", "add", "number"], cwd=folder, check=True)
        subprocess.run(["git", *who, "commit", "--quiet", "-m", f"number {number}"], cwd=folder, check=True)
    return folder


def trees_of(repository: Path) -> int:
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, check=True, capture_output=True, text=True)
    return len(listed.stdout.splitlines())


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_revisions_tree_is_there_for_as_long_as_it_is_used(repository: Path, error: Any) -> None:
    trees = []
    try:
        with worktree("HEAD~1", repository) as tree:
            trees.append(tree)
            assert (tree / "number").read_text(encoding="utf-8") == "1" and trees_of(repository) == 2
            (tree / "left").touch()
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    assert not trees[0].parent.exists() and trees_of(repository) == 1


def test_what_is_no_commit_is_told_in_one_line(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for revision in ("HEAD~9", "--all", ""):
        with pytest.raises(RevisionError, match="must be a commit of this repository"), worktree(revision, repository):
            pass
    assert len(commit_of("HEAD", repository)) == 40
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "bare").mkdir()
    with pytest.raises(RevisionError, match="must be one of a git repository"):
        commit_of("HEAD", tmp_path / "bare")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RevisionError, match="git must be installed"):
        commit_of("HEAD", repository)


def test_both_sides_get_the_same_variables_and_their_own_path(tmp_path: Path) -> None:
    given = {"A": "1", "PYTHONDONTWRITEBYTECODE": "1", "RAY_ADDRESS": "auto", "PYTHONPATH": f"{ROOT}:/other"}
    here, there = (side.environment(given) for side in (Side("here", ROOT), Side("there", tmp_path)))
    assert (here.pop("PYTHONPATH"), there.pop("PYTHONPATH")) == (f"{ROOT}:/other", f"{tmp_path}:/other")
    assert here == there == {"A": "1", "TOKENIZERS_PARALLELISM": "false"}


def test_busy_processes_end_with_the_block() -> None:
    with pytest.raises(KeyboardInterrupt), busy(2) as started:
        assert len(started) == 2 and all(process.poll() is None for process in started)
        raise KeyboardInterrupt
    assert all(process.returncode is not None for process in started)


# ------------------------------------------------------------------------------------------------ commands of a tree
SMAPS = """\
55e0f6a9b000-7ffd3a5f9000 ---p 00000000 00:00 0    [rollup]
Rss:              123456 kB
Pss:               65432 kB
Pss_Dirty:         60000 kB
"""
RUN = """
import json, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir()
while time.process_time() < 0.05:  # several ticks of the clock by which processes are charged
    pass
with (out / "ledger.jsonl").open("w") as ledger:
    for row in ({"type": "run"}, {"type": "step"}):
        print(json.dumps(row), file=ledger, flush=True)
    print(sys.argv[-1])
    if "--set" in sys.argv:
        sys.exit()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        Path("interrupted").touch()
"""


def tree_with(folder: Path, program: str) -> Side:
    (folder / "tune.py").write_text(program, encoding="utf-8")
    return Side("here", folder)


def test_proportional_memory_is_read_in_bytes() -> None:
    assert side_runs.sizes(SMAPS) == (65432 * 1024, 123456 * 1024)
    assert side_runs.sizes("") == (0, 0)


def test_a_step_counts_once_its_row_is_whole(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    assert not side_runs.has_step(ledger)
    row = json.dumps({"type": "step", "step": 1})
    for text, there in (
        ("", False),
        ('{"type": "evaluation"}\n', False),
        (row, False),
        (row[:9], False),
        (row + "\n", True),
    ):
        ledger.write_text('{"type": "run"}\n' + text, encoding="utf-8")
        assert side_runs.has_step(ledger) is there, text


def test_a_run_is_interrupted_after_its_first_step(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        found = side_runs.first_step(tree_with(tmp_path, RUN))
    finally:
        signal.signal(signal.SIGINT, before)
    assert 0 < found.driver <= found.all
    assert (tmp_path / "interrupted").exists()
    assert not [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE and _runs(each)]


def _runs(process: psutil.Process) -> bool:
    return "tune.py" in process.cmdline()


def test_a_run_that_ends_before_its_first_step_is_an_error(tmp_path: Path) -> None:
    side = tree_with(tmp_path, "import sys\nprint('first')\nsys.exit('no room')")
    with pytest.raises(RuntimeError, match="ended with status 1 and said last: no room"):
        side_runs.first_step(side)
    with pytest.raises(RuntimeError, match=r"`python tune.py --help` in the tree of here"):
        side_runs.cpu_of(side, ["--help"])


def test_seconds_are_those_of_the_command_and_its_children(tmp_path: Path) -> None:
    program = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'sum(range(10**6))'])"
    assert side_runs.cpu_of(tree_with(tmp_path, program), ["check"]) > 0


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell how memory is shared"
)
def test_memory_is_of_the_whole_run(tmp_path: Path) -> None:
    found = side_runs.memory(tree_with(tmp_path, RUN), settings=["budget.queries=100"])
    assert found is not None and 0 < found.pss <= found.rss


# ------------------------------------------------------------------------------------------------- oracles of a tree
def plan(model: Path) -> Plan:
    return Plan(besides=(0,), rounds=1, patience=0.0, turn=1.0, model=str(model), dtype="float32")


def test_losses_of_both_sides_are_those_of_the_plain_form(tiny_llama: Path) -> None:
    (row,) = side_rates.losses(BOTH, plan(tiny_llama), lambda line: None)
    assert len(row.pairs) == 1 and 0 < row.here < 1e-4 and 0 < row.there < 1e-4


def test_a_process_answers_line_by_line_with_the_package_of_its_tree(tiny_llama: Path) -> None:
    asker = Asker(BOTH.here, {"model": str(tiny_llama), "device": "cpu", "threads": 1, "dtype": "float32"}, pool=False)
    try:
        asker.wait()
        assert (asker.facts["dtype"], asker.facts["threads"]) == ("float32", 1)
        asker.set_task(batch("SST-2"), SUFFIX)
        taken = asker.ask(candidates=4, requests=2)
        assert taken.seconds > 0 and taken.cpu > 0
        assert asker.matmul_rate() > 0
        losses = np.asarray(asker.losses([[0.0] * (2 * asker.facts["width"])]))
        assert losses.shape == (1, 32) and np.isfinite(losses).all()
    finally:
        asker.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_a_pool_of_a_tree_answers_three_at_a_time(tiny_llama: Path) -> None:
    asker = Asker(BOTH.here, {"model": str(tiny_llama)}, pool=True)
    try:
        asker.wait()
        assert asker.facts["actors"] >= 1 and asker.facts["threads"] >= 1
        asker.set_task(batch("SST-2"), SUFFIX)
        assert asker.ask(candidates=2, requests=4).seconds > 0
    finally:
        asker.stop()


@pytest.mark.slow
def test_a_process_that_cannot_start_is_an_error_here(tmp_path: Path) -> None:
    asker = Asker(BOTH.here, {"model": str(tmp_path / "none"), "device": "cpu", "threads": 1}, pool=False)
    with pytest.raises(RuntimeError, match=r"the process of here .* died"):
        asker.wait()
    asker.stop()


# ----------------------------------------------------------------------------------------------------- the command
def test_the_command_prints_tables_and_verdicts_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path
) -> None:
    chosen: list[Any] = []

    def measure(sides: Sides, plan: Plan, parts: Any, quick: bool, say: Any) -> list[Row]:
        chosen.append((plan.besides, plan.rounds, parts, quick, sides.there.tree))
        return [ROW]

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(command, "worktree", lambda revision: worktree(revision, repository))
    monkeypatch.setattr(command, "commit_of", lambda revision: commit_of(revision, repository))
    file = tmp_path / "new" / "against.json"
    options = ["--beside", "2", "--beside", "1,0", "--only", "memory,check", "--quick", "--json", str(file)]
    done = CliRunner().invoke(app(), ["HEAD~1", *options])
    assert done.exit_code == 0, done.output
    assert "| pool quickstart | queries/s | 6.00 | 2.00 | 3.00 |" in done.output
    assert "met           pool quickstart, beside 1" in done.output
    ((besides, rounds, parts, quick, tree),) = chosen
    assert (besides, rounds, parts, quick) == ((0, 1, 2), 2, ("check", "memory"), True)
    assert not tree.exists()
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["commit"] == commit_of("HEAD~1", repository) and len(written["targets"]) == len(TARGETS)
    assert written["rows"][0]["ratio"] == 3.0 and len(written["rows"][0]["pairs"]) == 3


def test_all_rows_are_measured_unless_some_are_named() -> None:
    assert command._parts("") == PARTS
    assert command._parts("memory, losses") == ("losses", "memory")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["HEAD", "--only", "pools"], "a row must be one of"),
        (["HEAD", "--beside", "0,one"], "numbers from 0"),
        (["no-such-revision"], "error: the revision must be a commit"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app(), arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", "").split())


def app() -> Any:
    made = command.typer.Typer()
    made.command()(command.main)
    return made
