"""Setup of a trial: its experiment and task, as its screen, surveys and a population have changed them."""

from dataclasses import dataclass

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.prompt import started_from
from distributed_tuner.config.stage import RestartStageConfig, SearchStageConfig
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.prompts.spec import framed, unframed
from distributed_tuner.stages.prompt_space import PromptSpace, prompt_space
from distributed_tuner.stages.reading import fitted_on, head_for_costs
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.stages.selection import Rule
from distributed_tuner.stages.trial_state import Found, TrialState
from distributed_tuner.stages.validation import AnyReader, reader_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Candidate, Text


@dataclass(frozen=True, eq=False, slots=True)
class TrialSetup:
    """What stages are opened with. rule: of evaluations that no search makes."""

    experiment: Experiment
    task: Task
    space: PromptSpace
    schedule: StageSchedule
    reader: AnyReader
    rule: Rule

    @classmethod
    def of(cls, experiment: Experiment, task: Task, oracle: LossOracle, state: TrialState) -> "TrialSetup":
        """Return the setup at ``state``. ``experiment``, ``task``: those that the trial began with."""
        if state.screened is not None:
            experiment, task = _screened(experiment, task, state.screened)
        for place, measured in state.surveyed.items():
            experiment = _surveyed(experiment, place, measured)
        experiment = experiment.changed(state.settings) if state.settings else experiment
        space = prompt_space(experiment.prompt, task, oracle.info.width)
        rules = [stage.select for stage in experiment.stages if not isinstance(stage, RestartStageConfig)]
        return cls(
            experiment,
            task,
            space,
            StageSchedule(experiment, task, space, oracle),
            reader_of(task, head_for_costs(experiment.head), fitted_on(experiment)),
            rules[0] if rules else "cross_validation",
        )

    def place(self, state: TrialState) -> int:
        """Return which of ``experiment.stages`` a trial is at."""
        return state.stage_index % len(self.experiment.stages)

    def current(self, state: TrialState) -> Candidate:
        """Return the prompt that the stages before ended at."""
        return self.space.at(self.space.start) if state.current is None else state.current

    def reader_of(self, candidate: Candidate) -> AnyReader:
        """Return what reads a prompt's answers."""
        return self.reader_of_words if isinstance(candidate, Text) else self.reader

    @property
    def reader_of_words(self) -> AnyReader:
        """What reads prompts in words: their texts have no instruction in front."""
        task = unframed(self.task, self.experiment.prompt)
        return reader_of(task, head_for_costs(self.experiment.head), fitted_on(self.experiment))


def _screened(experiment: Experiment, task: Task, found: Found) -> tuple[Experiment, Task]:
    """Start from the screen's instruction, in its wording."""
    before = experiment.prompt
    prompt = started_from(before, found.instruction)
    task = framed(unframed(task, before).worded(found.template, found.label_words), prompt)
    return experiment.model_copy(update={"prompt": prompt, "screen": None}), task


def _surveyed(experiment: Experiment, place: int, measured: dict[str, float]) -> Experiment:
    """Put what a survey measured in the place of "auto", for this and all later rounds."""
    stages = list(experiment.stages)
    stage = stages[place]
    assert isinstance(stage, SearchStageConfig)
    stages[place] = stage.model_copy(update={"optimizer": stage.optimizer.resolved(measured)})
    return experiment.model_copy(update={"stages": tuple(stages)})
