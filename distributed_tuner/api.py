"""The Python API: ``tune`` a prompt of a frozen model, ``load`` one that was kept. The command line runs the same
code."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distributed_tuner import oracles
from distributed_tuner.callbacks import Callback
from distributed_tuner.config.default_search import with_default_search
from distributed_tuner.config.space import draw_trials, recorded, validate
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.custom import described, require_importable
from distributed_tuner.errors import ConfigError
from distributed_tuner.handed_in import Source, oracle_of, source_of, written
from distributed_tuner.labelled_data import Wishes, labelled_data
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.preflight.prepare import prepare_plans
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.python_messages import spelled_as_arguments
from distributed_tuner.result import Result
from distributed_tuner.runs.directory import RunDirectory, kept
from distributed_tuner.runs.evaluation import returned
from distributed_tuner.runs.local import LocalBackend
from distributed_tuner.runs.progress_bar import Bar
from distributed_tuner.runs.run import Run
from distributed_tuner.storage import is_uri

QUERIES = 500
ROWS = 16  # of a soft prompt
EVALUATIONS, EVAL_EVERY = 5, 100  # evaluations that a budget is divided into, and the most queries between two
COMMAND = "distributed_tuner.tune"
SOFT: dict[str, Any] = {"kind": "cma", "name": "bbt", "popsize": 20, "alpha": 0.3, "recommend": "mean"}
WORDS: dict[str, Any] = {"kind": "token_edit"}
FIRST_ORDER = ("adamw", "sgd", "trainable")


def tune(
    model: Any,
    data: Any,
    *,
    tokenizer: Any = None,
    test: Any = None,
    text: str | Sequence[str] = "text",
    label: str = "label",
    target: str | None = None,
    label_words: Mapping[Any, str] | None = None,
    label_rule: str | None = None,
    template: str | None = None,
    instruction: str | None = None,
    shots: int | None = None,
    metric: Any = None,
    prompt: Any = None,
    optimizer: Any = None,
    head: Any = None,
    objective: Any = None,
    budget: Any = QUERIES,
    settings: Mapping[str, Any] | None = None,
    pool: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Tune a prompt of a frozen model on a few labelled texts.

    Of each label, ``shots`` rows steer the search (train) and as many select the prompt (dev). The prompt is returned
    with a head that reads the model's answers; where it is not better on dev than the untuned instruction read by such
    a head, that is returned instead (``Result.helped``). Ctrl-C ends the search: what there is, is returned.

    Args:
        model: the frozen model: a hub id or directory; a pair (model, tokenizer) of transformers, which stays yours
            and is left as it was; an oracle's settings (``Transformers``, ``Server``, ``Vllm``, ``Analytic``); or any
            object with the ``LossOracle`` protocol.
        data: labelled rows: a DataFrame, (texts, labels), or a list of mappings; or a ``Task``, or a task's settings
            as a search space has them, such as ``{"kind": "demo"}``.
        tokenizer: of a transformers model that is handed in alone.
        test: labelled rows that the returned prompt is scored on once. None: no test; see ``Result.score``.
        text: the column or columns that hold the text.
        label: the column that holds the label.
        target: the column that holds the text to be generated, of data without labels.
        label_words: label in the data -> word that the model should say, as in ``" great"``. None: the labels
            themselves, each behind a space.
        label_rule: ``"single"``, the default: each label word is one token. ``"sum"``, ``"mean"``: it has any length,
            and is scored by all its tokens. ``"first"``: by the first.
        template: a row as the model reads it: columns in braces, one ``{label_word}`` (with a target: one
            ``{target}``). None: the texts, a line each, then ``Label:{label_word}`` or ``Answer: {target}``.
        instruction: the untuned prompt, which the search starts from. None: a sentence that names the labels.
        shots: rows of each label in train, and as many in dev; of all rows, with a target. None: 16, half of the rows
            of a label with fewer than 32.
        metric: what is reported, a metric or several; the first one selects. Of targets it may be a function of
            (predictions, targets, inputs), lists of texts, that returns a number. None: accuracy; ``exact_match`` and
            ``token_f1``.
        prompt: settings of the prompt (``SoftPrompt``, ``TextPrompt``, or a mapping). None: 16 rows of embeddings; a
            prompt in words for servers that take text alone.
        optimizer: settings of the optimizer (``Cma``, ``Zot``, ``RandomSearch``, ``Nevergrad``, ``TokenEdit``; of a
            white box ``AdamW``, ``Sgd``), its kind, or a class of your own, with settings as in
            ``functools.partial(Mine, sigma=0.1)``. None: a screen of instructions, templates and demonstrations,
            of about 55 queries, whose best prompts are an ensemble as well; with a target, or a budget of fewer than 32
            queries, CMA-ES as in BBT, or token edits for prompts in words.
        head: how answers are read: a head's kind, settings, or a class of your own. None: the strongest that model and
            shots allow.
        objective: the loss that the search minimises, such as ``{"head": "bias"}``, the default, or
            ``{"head": "label_words"}``; of targets ``"likelihood"``, the default, or ``"metric"``.
        budget: the most queries of the search (one candidate on one batch of rows), or a ``Budget`` of queries,
            forwards, tokens, seconds, dollars.
        settings: anything else of a search space by its name there, such as ``stages``, ``screen``, ``rounds`` or
            ``significance``.
        pool: None: in this process. A number of oracle actors, on a Ray that is started here; or a Ray address
            ("auto", "ray://HOST:PORT"); or both, ``{"address": ..., "actors": ...}``.
        seed: of the split and of the search.
        out: a new directory for the run. None: a temporary one, gone with the result unless it is saved.
        progress: whether to show a progress bar. None: in terminals and notebooks.
        callbacks: called at steps, evaluations, restarts and the end (``Callback``).

    Returns:
        The prompt with its head, and what was measured.

    Raises:
        ConfigError: a setting, or an object that was handed in, breaks a rule.
        TaskError: so do the data, the template or the label words.
        ModelError: the model cannot be had, or its answers do not agree with each other.
        BudgetTooSmall: the budget pays for no step.
        RunDirectoryError: ``out`` is used already.

    Example:
        >>> from distributed_tuner import Analytic, tune
        >>> texts = ["good film", "great story", "bad plot", "dull story"] * 8
        >>> labels = ["positive", "positive", "negative", "negative"] * 8
        >>> result = tune(Analytic(), (texts, labels), shots=4, budget=100, progress=False)
        >>> result.status
        'done'
        >>> result.predict(["a good story"]).shape
        (1,)
    """
    with spelled_as_arguments(own_stages="stages" in (settings or {})):
        if out is not None and is_uri(str(out)):
            raise ConfigError(
                f"out must be a local directory, but is {str(out)!r}; runs at URIs are the command line's"
            )
        source = source_of(model, tokenizer)
        columns = (text,) if isinstance(text, str) else tuple(text)
        wishes = Wishes(columns, label, target, label_words, label_rule, template, instruction, shots, seed, metric)
        given = labelled_data(data, test, wishes)
        oracle, address = _placed(source, pool)
        more = dict(settings or {})
        tree = {
            "name": "tune",
            "seed": seed,
            "task": given.tree | more.pop("task", {}),
            "oracle": oracle,
            **({"prompt": _tree(prompt)} if prompt is not None else {}),
            **({"head": _tree(head)} if head is not None else {}),
            "budget": {"queries": budget} if isinstance(budget, int) else _tree(budget),
            **more,
        }
        tree = _completed(tree, source, optimizer, objective, profiles=source.profiles and not given.has_targets)
        validate(tree)
        prepared = prepare_plans(draw_trials(tree), Path.cwd(), given.build, source.count)
        if pool is not None:
            require_importable(prepared.experiment)
        folder = tempfile.TemporaryDirectory(prefix="prompt-tuner-") if out is None else None
        bar = Bar(prepared.plans, prepared.tasks[0].metric, callbacks, progress)
        with kept(str(out) if folder is None else folder.name, False, bar.note) as directory:
            if pool is None:
                answering = _run_here(prepared, source, directory, bar, page=out is not None)
            else:
                answering = _run_on_ray(prepared, directory, bar, address)
        return Result(directory.path, answering, given.values, folder)


def load(path: str | Path, model: Any = None, tokenizer: Any = None) -> Result:
    """Load a result: of ``Result.save``, of ``tune(out=...)``, or of a run of the command line.

    Args:
        path: the run directory, or ``best/`` in it.
        model: the model, as ``tune`` takes it. None: the one that the run names; a model or an oracle that was handed
            in as an object has to be handed in again.
        tokenizer: of a transformers model that is handed in alone.

    Returns:
        The result. Its labels are text.

    Raises:
        RunDirectoryError: there is no run.
        HeadError: the head was fitted to another model's answers.

    Example:
        >>> import tempfile
        >>> from distributed_tuner import Analytic, load, tune
        >>> data = (["good", "bad"] * 8, [1, 0] * 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = tune(Analytic(), data, budget=60, progress=False).save(f"{folder}/kept")
        ...     load(kept).labels
        ('0', '1')
    """
    directory = Path(path)
    if directory.name == "best" and (directory.parent / "config.json").is_file():
        directory = directory.parent
    RunDirectory(directory).require_plain()
    return Result(directory, _Answering(None if model is None else source_of(model, tokenizer)))


# ----------------------------------------------------------------------------------------------------- the settings
def _tree(settings: Any) -> Any:
    """Return settings as a search space has them, however they were given."""
    if (own := described(settings)) is not None:
        return own
    return written(settings) if isinstance(settings, BaseModel) else settings


def _is_white_box(optimizer: Any) -> bool:
    found = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    return isinstance(found, type) and bool(getattr(found, "white_box", False))


def _completed(tree: dict[str, Any], source: Source, optimizer: Any, objective: Any, profiles: bool) -> dict[str, Any]:
    """Return the tree with the defaults of what was left out. ``profiles``: the objective has a bias by default."""
    rows = {"length": ROWS} if source.knows_words else {"length": ROWS, "init": "zeros"}
    prompt = tree.setdefault("prompt", rows if source.soft else {"kind": "text"})
    if objective is not None or profiles:
        tree.setdefault("objective", {"head": "bias"} if objective is None else _tree(objective))
    if "stages" in tree:
        if optimizer is not None:
            raise ConfigError("an optimizer belongs to a stage, and settings name the stages; give one of both")
        return tree
    if optimizer is None:
        tree = with_default_search(tree)
        if "stages" in tree:
            return tree
    soft = not isinstance(prompt, Mapping) or prompt.get("kind", "soft") == "soft"
    chosen = _tree(optimizer) if optimizer is not None else SOFT if soft else WORDS
    chosen = {"kind": chosen} if isinstance(chosen, str) else chosen
    if not isinstance(chosen, Mapping):
        raise ConfigError(
            "optimizer must be settings such as Zot(rho=1.0), a kind, or a class of your own, but got"
            f" {optimizer!r}; give one of these"
        )
    kind = "gradient" if chosen.get("kind") in FIRST_ORDER or _is_white_box(optimizer) else "search"
    queries = tree["budget"].get("queries") if isinstance(tree["budget"], Mapping) else None
    every = {"eval_every": min(EVAL_EVERY, max(1, queries // EVALUATIONS))} if isinstance(queries, int) else {}
    return tree | {"stages": [{"kind": kind, "optimizer": chosen, **every}]}


def _placed(source: Source, pool: Any) -> tuple[dict[str, Any], str | None]:
    """Return the oracle's settings for where it computes, and the address of the cluster that is joined."""
    tree = dict(source.tree)
    if pool is None:
        if tree.get("kind") == "transformers" and tree.get("threads", "auto") == "auto":
            import torch

            tree["threads"] = torch.get_num_threads()
        return tree | {"actors": 1}, None
    if source.given:
        raise ConfigError(
            "a model that is handed in as an object stays in this process, but pool has it computed in others; give its"
            " hub id or a directory (model.save_pretrained), or leave pool out"
        )
    told: Mapping[str, Any] = (
        pool if isinstance(pool, Mapping) else {"actors": pool} if isinstance(pool, int) else {"address": pool}
    )
    if unknown := told.keys() - {"address", "actors"}:
        raise ConfigError(f"pool has an address and actors, but got {', '.join(map(repr, sorted(unknown)))}")
    if "actors" in told:
        tree["actors"] = told["actors"]
    return tree, told.get("address")


# ----------------------------------------------------------------------------------------------------- the run
class _Answering:
    """Gives the oracle of a run: the one that has answered, or one that is made again.

    source: a model that was handed in; None: that of the run's settings.
    """

    def __init__(self, source: Source | None, known: LossOracle | None = None) -> None:
        self._source = source
        self._known = known

    def __call__(self, directory: Path) -> LossOracle:
        if self._known is None:
            _, tree, _ = returned(directory)
            config = experiment_of(recorded(tree)).oracle
            source = self._source
            resolved = config if source is None or source.given else oracle_of(source.tree)
            build = oracles.build if source is None else source.build
            self._known = TiledOracle(build(resolved), config.tile)
        return self._known

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is not None and self._source.given:
            raise TypeError(
                "a result of a model that was handed in as an object cannot be pickled; save() it, and"
                " load(path, model=...)"
            )
        return _Answering, (self._source,)


def _run_here(prepared: Prepared, source: Source, directory: RunDirectory, bar: Bar, page: bool) -> _Answering:
    """Run in this process; return what gives the oracle that has answered."""
    backend = LocalBackend(bar, source.build)
    with LedgerWriter(directory.ledger) as writer:
        Run(prepared.sized(1, None), directory, backend, writer, bar, command=COMMAND, page=page).go()
    assert backend.pool is not None
    return _Answering(source if source.given else None, backend.pool.oracle)


def _run_on_ray(prepared: Prepared, directory: RunDirectory, bar: Bar, address: str | None) -> _Answering:
    """Run on a Ray pool; return what makes an oracle like the pool's in this process."""
    from actors.run.experiment import run

    run(prepared, directory, address=address, resume=False, command=COMMAND, observer=bar)
    return _Answering(None)
