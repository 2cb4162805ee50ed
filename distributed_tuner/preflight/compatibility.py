"""Rules about an experiment that no single setting can know: which stages, budgets and schedules go together."""

import importlib.util
import os
import re
from pathlib import Path

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import ContextualHeadConfig, DomainHeadConfig, NoHeadConfig, reads_words
from distributed_tuner.config.logger import MlflowLoggerConfig, holds_key
from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.config.prompt import TextPromptConfig
from distributed_tuner.config.proposer import (
    CustomProposerConfig,
    OpenAIProposerConfig,
    ProposerConfig,
    ReplayProposerConfig,
    VllmProposerConfig,
)
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.server import ServerConfig
from distributed_tuner.config.stage import GradientStageConfig, RestartStageConfig, ScreenStageConfig, SearchStageConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.heads.vocabulary import VocabularyHead
from distributed_tuner.proposers.instruction import check_template
from distributed_tuner.stages.reading import WORDS_LISTED, WORDS_TOLD
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.text_metrics import ROW_METRICS

EXPLORED = re.compile(r"stages\.\d+\.optimizer\.(settings\.)?\w+")
SERVED = ("openai", "aiolimiter", "purgatory")  # the extra "openai"
GENERATING = ("transformers", "vllm", "openai", "analytic", "given", "custom")
SIZES = ("intrinsic_dim", "popsize", "num_workers", "words")  # of an optimizer's state, which a restart may keep


def require_sound(experiment: Experiment, task: Task, root: Path) -> None:
    """Check an experiment. ``root``: where relative paths are looked up.

    Raises:
        ConfigError: a rule is broken; names it, the value, and what to change.
    """
    for index, stage in enumerate(experiment.stages):
        if isinstance(stage, RestartStageConfig):
            _check_restart(experiment, index, stage, task, root)
    _check_served(experiment)
    _check_white_box(experiment)
    _check_answers(experiment, task)
    if not task.has_targets:
        _check_head(experiment, task)
    if experiment.screen is not None:
        _check_screen(experiment, experiment.screen, root)
    _check_objective(experiment, task)
    _check_sort(experiment)
    _check_shares(experiment)
    _check_loggers(experiment)
    if isinstance(experiment.schedule, PopulationScheduleConfig):
        _check_population(experiment, experiment.schedule)


def wants_gradients(experiment: Experiment) -> bool:
    """Tell whether some stage needs a white box."""
    return any(isinstance(stage, GradientStageConfig) for stage in experiment.stages)


def _check_served(experiment: Experiment) -> None:
    """Servers are asked with packages that are an extra."""
    for part in (experiment.oracle, *experiment.proposers):
        missing = [name for name in SERVED if not _is_installed(name)] if isinstance(part, ServerConfig) else []
        if missing:
            raise ConfigError(
                f"kind: {part.kind} asks a server with the package(s) {', '.join(missing)}, which this Python does not"
                " have; pip install 'distributed-prompt-tuner[openai]', or choose another kind"
            )


def _check_white_box(experiment: Experiment) -> None:
    """Gradient stages need a model that can be opened."""
    if wants_gradients(experiment) and not experiment.oracle.white_box:
        raise ConfigError(
            "a gradient stage needs a model that gives gradients, but an oracle of kind"
            f" {experiment.oracle.kind} gives none; set oracle.kind: transformers, or search with losses alone: a"
            " search stage with zot, whose estimates need no gradients"
        )


def _check_answers(experiment: Experiment, task: Task) -> None:
    """Head and objective are for labels or for targets, as the task has them."""
    head, objective = experiment.head, experiment.objective
    if not task.has_targets:
        if isinstance(head, NoHeadConfig):
            raise ConfigError("labels are read by a head, but head is none; set head: label_words, or leave it out")
        if objective.kind in ("likelihood", "metric"):
            raise ConfigError(
                f"objective: {objective.kind} is of texts that are generated, but the task has labels; leave it out, or"
                " give the task a target"
            )
        return
    if not isinstance(head, NoHeadConfig):
        raise ConfigError(
            f"a head turns answers into labels, but the task has targets, and head is {head.kind}; leave it out"
        )
    if objective.kind == "labels" or not objective.value().plain:
        told = "kind: labels" if objective.kind == "labels" else f"head: {objective.head}"
        raise ConfigError(
            f"the task has targets, whose objective is their likelihood or a metric, but objective has {told}; set"
            " objective: likelihood or metric"
        )
    if experiment.oracle.kind not in GENERATING:
        raise ConfigError(
            f"answers are generated by an oracle of kind {', '.join(GENERATING)}, but oracle.kind is"
            f" {experiment.oracle.kind}; set one of these, or give the task a label"
        )
    if experiment.task.model_family == "masked":
        raise ConfigError(
            "answers are generated by causal models, but task.model_family is masked; leave it out, or give the task a"
            " label"
        )
    if experiment.screen is not None and experiment.screen.verbalizers:
        raise ConfigError("a screen's verbalizers are other label words, which targets have not; leave them out")
    if any(isinstance(stage, RestartStageConfig) and stage.reproduce_paper for stage in experiment.stages):
        raise ConfigError(
            "reproduce_paper restarts searches as the published code does, which classifies; leave it out for targets"
        )
    if experiment.ensemble is not None:
        raise ConfigError("an ensemble averages label probabilities, which targets have not; leave ensemble out")
    if objective.kind == "metric":
        _check_metric_objective(experiment, task)


def _check_metric_objective(experiment: Experiment, task: Task) -> None:
    """A metric has no slope, and one of a whole set no bound by some of its rows."""
    if wants_gradients(experiment):
        raise ConfigError(
            "a gradient stage follows a likelihood, but objective is metric, which has no slope; set objective:"
            " likelihood"
        )
    raced = any(isinstance(stage, SearchStageConfig) and stage.optimizer.race_examples for stage in experiment.stages)
    if raced and task.metric not in ROW_METRICS:
        raise ConfigError(
            f"racing needs a bound of a loss by some of its rows, which the metric {task.metric} of a whole set has"
            f" not; leave out race_block, or select by {', '.join(ROW_METRICS)}"
        )


def _check_head(experiment: Experiment, task: Task) -> None:
    """A head needs answers that the oracle gives, and rows of every label."""
    head, oracle = experiment.head, experiment.oracle
    if reads_words(head) and oracle.kind not in {**WORDS_TOLD, **WORDS_LISTED}:
        raise ConfigError(
            f"head: {head.kind} reads the scores of many words, but an oracle of kind {oracle.kind} tells those of"
            " label words alone; set head: bias, or another oracle.kind"
        )
    if isinstance(oracle, OpenAIOracleConfig) and oracle.scores == "generated" and head.kind != "label_words":
        raise ConfigError(
            f"head: {head.kind} is fitted to scores, but oracle.scores: generated tells the written label alone; set"
            " head: label_words, or oracle.scores: logprobs"
        )
    if reads_words(head) and head.words <= len(task.label_words):
        raise ConfigError(
            f"head.words counts the {len(task.label_words)} label words too and must be more, but is {head.words}"
        )
    shots = min(experiment.task.shots - experiment.task.feedback, task.fewest_rows)
    if reads_words(head) and shots < VocabularyHead.least_rows:
        raise ConfigError(
            f"head: {head.kind} leaves each row out once and needs two train rows of every label, but task.shots leaves"
            f" {shots}; give more shots, or set head: bias"
        )


def _check_objective(experiment: Experiment, task: Task) -> None:
    """A profiled objective is of cross-entropy, and of scores that are there."""
    objective = experiment.objective
    if objective.head == "label_words":
        return
    if task.loss != "cross_entropy":
        raise ConfigError(
            f"objective.head: {objective.head} fits a head by cross-entropy, but the task's loss is {task.loss}; set"
            " task.loss: cross_entropy, or objective.head: label_words"
        )
    if objective.head == "vocabulary" and not reads_words(experiment.head):
        raise ConfigError(
            f"objective.head: vocabulary searches by the words that the head reads, but head is"
            f" {experiment.head.kind};"
            " set head: vocabulary, or objective.head: bias"
        )
    smooth = objective.head == "bias" and objective.score == "train"
    if wants_gradients(experiment) and not smooth:
        raise ConfigError(
            "a gradient stage follows the label words' loss or what a bias leaves of it on train, but objective is"
            f" {objective.head}, scored by {objective.score}; set objective: {{head: bias, score: train}}"
        )
    raced = any(isinstance(stage, SearchStageConfig) and stage.optimizer.race_examples for stage in experiment.stages)
    if raced and not smooth:
        raise ConfigError(
            "racing needs a bound of a loss by some of its rows, which objective.head: vocabulary and score:"
            " leave_one_out have not; leave out race_block, or set objective: {head: bias, score: train}"
        )


def _check_sort(experiment: Experiment) -> None:
    """Searches and prompt are of one sort: coordinates of a soft prompt, or words."""
    words = isinstance(experiment.prompt, TextPromptConfig)
    for index, stage in enumerate(experiment.stages):
        if isinstance(stage, RestartStageConfig):
            if words and stage.reproduce_paper:
                raise ConfigError(
                    f"stages.{index}.reproduce_paper restarts soft prompts as the published code does, but prompt.kind"
                    " is text; leave it out"
                )
        elif stage.optimizer.is_discrete != words:
            kind = stage.optimizer.kind
            advice = (
                "use token_edit, or nevergrad with space: words"
                if words
                else "set prompt: {kind: text}, or use an optimizer of soft prompts such as zot or cma"
            )
            raise ConfigError(
                f"stages.{index}.optimizer must search the sort of prompt that is tuned, but {kind} searches"
                f" {'soft prompts' if words else 'words'} and prompt.kind is {experiment.prompt.kind}; {advice}"
            )


def _check_restart(experiment: Experiment, index: int, stage: RestartStageConfig, task: Task, root: Path) -> None:
    if not task.feedback and not stage.reproduce_paper:
        raise ConfigError(
            "a restart stage scores texts on examples held out from train, but task.feedback is 0; set it to a"
            " quarter of task.shots, say"
        )
    following = experiment.stage_schedule[index + 1] if index + 1 < len(experiment.stage_schedule) else None
    taken = isinstance(following, SearchStageConfig) and following.optimizer.takes_candidates
    if stage.state == "inject" and not taken:
        raise ConfigError(
            f"stages.{index}.state: inject hands a prompt to a cma search right behind it, but there is none; use"
            " reset or keep"
        )
    _check_proposer(experiment, stage.proposer, f"stages.{index}.proposer", root)


def _check_screen(experiment: Experiment, screen: ScreenStageConfig, root: Path) -> None:
    """Check that a screen's candidates can be distinguished by its head."""
    head, kind = experiment.head, experiment.oracle.kind
    if isinstance(head, ContextualHeadConfig | DomainHeadConfig):
        raise ConfigError(
            f"a screen weighs prompts by what a head leaves of the loss, but head: {head.kind} goes by texts without"
            " content, which it does not ask about; set head: bias or vocabulary, or leave the screen out"
        )
    if screen.verbalizers and reads_words(head):
        raise ConfigError(
            f"a screen tells verbalizers apart by what the head leaves of the loss, but head: {head.kind} reads many"
            " words and hardly sees which of them are the label words; set head: bias, or leave the screen's"
            " verbalizers out"
        )
    if screen.verbalizers and kind not in WORDS_TOLD:
        raise ConfigError(
            "a screen reads the scores of its verbalizers from one answer, but an oracle of kind"
            f" {kind} tells those of the label words alone; set oracle.kind: transformers or vllm, or leave the"
            " screen's verbalizers out and write task.label_words: !grid [...]"
        )
    if isinstance(experiment.schedule, PopulationScheduleConfig) and (screen.templates or screen.verbalizers):
        raise ConfigError(
            "the trials of a population take over each other's prompts, so that all must have one template and the same"
            " label words, but the screen of each would choose its own; leave the screen's templates and verbalizers"
            " out, or set schedule.kind: none"
        )
    if screen.proposer is not None:
        _check_proposer(experiment, screen.proposer, "the screen's proposer", root)


def _check_proposer(experiment: Experiment, proposer: ProposerConfig, where: str, root: Path) -> None:
    """A proposer can be asked, and its limits hold."""
    if proposer.instruction is not None:
        check_template(proposer.instruction, root)
    if proposer.usd is not None and not _is_priced(proposer):
        raise ConfigError(
            f"{where}.usd limits dollars, but the proposer's tokens have no price, so that it would"
            " never hold; set proposer.price, or limit proposer.calls"
        )
    if isinstance(proposer, VllmProposerConfig) and experiment.oracle.kind != "vllm":
        raise ConfigError(
            f"{where}.kind vllm is the engine that answers the run's loss queries, but oracle.kind is"
            f" {experiment.oracle.kind}; set oracle.kind: vllm, or use a proposer of kind local, or of kind openai with"
            " the base_url of a vLLM server"
        )
    if isinstance(proposer, ReplayProposerConfig) and not (root / proposer.ledger).is_file():
        raise ConfigError(
            f"{where}.ledger must be a file with recorded answers, but there is none at"
            f" {root / proposer.ledger}; give the ledger.jsonl of an earlier run"
        )


def _is_priced(proposer: ProposerConfig) -> bool:
    if isinstance(proposer, CustomProposerConfig):
        return True  # its answers tell what they took
    if not isinstance(proposer, OpenAIProposerConfig):
        return False
    price = proposer.price
    return price.usd_per_million_input_tokens > 0 or price.usd_per_million_output_tokens > 0


def _check_shares(experiment: Experiment) -> None:
    """Stages share what is left of a budget that can be counted beforehand, which seconds cannot."""
    tuned = [stage for stage in experiment.stage_schedule if not isinstance(stage, RestartStageConfig)]
    sharing = [stage for stage in tuned if stage.steps is None]
    budget = experiment.budget
    counted = any(limit is not None for limit in (budget.queries, budget.forwards, budget.tokens, budget.usd))
    if len(tuned) > 1 and sharing and not counted:
        raise ConfigError(
            f"{len(sharing)} stages without steps share what is left of the budget, but it limits no queries, forwards,"
            " tokens or dollars; set budget.queries, or steps for every stage"
        )


def _check_loggers(experiment: Experiment) -> None:
    """Loggers have their packages, and no keys in what is written down."""
    for index, logger in enumerate(experiment.loggers):
        if not _is_installed(logger.package):
            raise ConfigError(
                f"loggers.{index}: a logger of kind {logger.kind} needs the package {logger.package}, which this Python"
                f" does not have; pip install {logger.distribution}, or leave the logger out"
            )
        if isinstance(logger, MlflowLoggerConfig):
            _check_mlflow(index, logger)


def _check_mlflow(index: int, logger: MlflowLoggerConfig) -> None:
    if logger.tracking_uri is not None and holds_key(logger.tracking_uri):
        raise ConfigError(  # without the value: it is no one's to read
            f"loggers.{index}.tracking_uri must hold no user, password or query, for a run writes its settings down;"
            " set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the whole as"
            " MLFLOW_TRACKING_URI, in the environment"
        )
    uri = logger.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not uri.startswith(("http", "databricks")) and not _is_installed("sqlalchemy"):
        raise ConfigError(
            f"loggers.{index}: without a server MLflow keeps its data in a database, which needs sqlalchemy and"
            " alembic, but this Python does not have them; pip install mlflow, or set tracking_uri to a server's URL"
        )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _check_population(experiment: Experiment, schedule: PopulationScheduleConfig) -> None:
    if not any(isinstance(stage, RestartStageConfig) for stage in experiment.stage_schedule):
        raise ConfigError(
            "a population restarts its laggards at restart stages, but there is none between two searches; add one to"
            " stages and set rounds to 2 or more"
        )
    for path, bounds in schedule.explore.items():
        if bounds.low > bounds.high:
            raise ConfigError(f"schedule.explore.{path}: low must not exceed high, but {bounds.low} > {bounds.high}")
        if not EXPLORED.fullmatch(path) or path.rpartition(".")[2] in SIZES:
            raise ConfigError(
                f"schedule.explore changes numbers of optimizers other than {', '.join(SIZES)}, such as"
                f" stages.0.optimizer.learning_rate, but got {path!r}; leave it out, or draw it in the space"
            )
        for value in (bounds.low, bounds.high):
            experiment.changed({path: value})
