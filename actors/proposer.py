"""The proposer actor: one process that writes prompts for all trials, and how a run starts and reaches it."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster import head
from actors.pool.client import RemoteCodec
from actors.pool.pool import Pool
from distributed_tuner import proposers
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.proposer import (
    LocalProposerConfig,
    OpenAIProposerConfig,
    ProposerConfig,
    ReplayProposerConfig,
    VllmProposerConfig,
)
from distributed_tuner.errors import ProposerError, TunerError
from distributed_tuner.proposers.base import Ask, Proposer
from distributed_tuner.values import Answer, Sampling, TokenSpace

REQUESTS = 16  # that wait for a server or for engines at a time


class PoolModel:
    """The model that a pool of oracles holds, as proposers ask it (``TunedModel``).

    The dispatcher is known by its name: its handle would keep the proposer's actor from being restarted.
    """

    def __init__(self, name: str, dispatcher: str) -> None:
        self.name = name
        self._dispatcher = dispatcher

    @functools.cache  # noqa: B019 - the object lives as long as its process
    def words(self) -> tuple[str, ...]:
        return RemoteCodec(ray.get_actor(self._dispatcher)).vocabulary(TokenSpace())

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        try:
            answer: Answer = ray.get(ray.get_actor(self._dispatcher).write.remote(instruction, sampling))
        except RayTaskError as error:
            if isinstance(error.cause, TunerError):
                raise error.cause from None
            raise
        return answer


class ProposerWorker:
    """Builds the proposer where it lives and answers for it.

    It is built by the first call, since Ray would wrap what goes wrong in a constructor.
    """

    def __init__(self, config: ProposerConfig, root: Path, tuned: PoolModel) -> None:
        self._config = config
        self._root = root
        self._tuned = tuned

    def __repr__(self) -> str:
        """Return what Ray calls the actor in log lines and on its dashboard: "proposer(openai)"."""
        return f"proposer({self._config.kind})"

    @functools.cached_property
    def _proposer(self) -> Proposer:
        return proposers.build(self._config, root=self._root, tuned=self._tuned)

    def label(self) -> str:
        """Return the proposer's label; answers once its model is loaded."""
        return self._proposer.label

    def answer(self, ask: Ask) -> Answer:
        """Answer a request.

        Raises:
            ProposerError: there is no answer.
        """
        return self._proposer.answer(ask)


ProposerActor = ray.remote(ProposerWorker)


class RemoteProposer:
    """Client of a proposer for trials: its protocol, through the actor."""

    def __init__(self, actor: Any, label: str) -> None:
        self._actor = actor
        self.label = label

    def answer(self, ask: Ask) -> Answer:
        """Answer a request.

        Raises:
            ProposerError: there is no answer, or the actor died of it more than once.
        """
        try:
            answer: Answer = ray.get(self._actor.answer.remote(ask))
        except RayTaskError as error:
            if isinstance(error.cause, TunerError):
                raise error.cause from None
            raise ProposerError(f"the proposer failed: {type(error.cause).__name__}; see its log in Ray") from None
        except RayError as error:
            raise ProposerError(
                f"the proposer's process died ({type(error).__name__}), and again when it was asked once more; see its"
                " log in Ray"
            ) from None
        return answer


class Proposers:
    """The proposers of a run: one actor for each setting, shared by all trials."""

    def __init__(self, actors: Sequence[Any], remote: dict[str, RemoteProposer]) -> None:
        self._actors = actors
        self.remote = remote

    @classmethod
    def start(cls, experiments: Sequence[Experiment], name: str, root: Path, pool: Pool) -> "Proposers":
        """Start what the screens and restart stages of the experiments need, and wait until local models are loaded.

        Raises:
            ModelError: a local model cannot be loaded.
            ConfigError: recorded answers cannot be read.
        """
        wanted: dict[str, ProposerConfig] = {}
        for experiment in experiments:
            for proposer in experiment.proposers:
                wanted.setdefault(key_of(proposer), proposer)
        tuned = PoolModel(pool.oracle.info.model, pool.dispatcher_name)
        actors = [_start(config, f"{name}/proposer-{i}", root, tuned) for i, config in enumerate(wanted.values())]
        try:
            labels = ray.get([actor.label.remote() for actor in actors])
        except RayTaskError as error:
            if isinstance(error.cause, TunerError):
                raise error.cause from None
            raise
        remote = [RemoteProposer(actor, label) for actor, label in zip(actors, labels, strict=True)]
        return cls(actors, dict(zip(wanted, remote, strict=True)))

    def stop(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)


def key_of(config: ProposerConfig) -> str:
    """Return by what a run knows the proposer of these settings."""
    return config.model_dump_json()


def _start(config: ProposerConfig, name: str, root: Path, tuned: PoolModel) -> Any:
    """Ask Ray for an actor. On a CPU it reserves none: it would wait for those that the oracles hold, and it works
    only now and then."""
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 1, "name": name}
    if isinstance(config, OpenAIProposerConfig | VllmProposerConfig):
        options["max_concurrency"] = REQUESTS
    if isinstance(config, ReplayProposerConfig):  # its ledger lies where the driver is
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    elif not (isinstance(config, LocalProposerConfig) and config.gpus):  # which goes where its GPU is
        options["resources"] = head()
    if isinstance(config, LocalProposerConfig):
        options["num_gpus"] = config.gpus
        options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(config.threads)}}
    return ProposerActor.options(**options).remote(config, root, tuned)
