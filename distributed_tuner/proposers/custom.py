"""Proposers of the user's own, and a guard around them: what goes wrong in one costs a stage its proposals alone."""

from distributed_tuner.config.proposer import CustomProposerConfig
from distributed_tuner.custom import imported, made, raised, require_methods
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Ask, Proposer, TunedModel
from distributed_tuner.values import Answer, Sampling


class GuardedProposer:
    """Hands requests on, and turns what is raised into a ProposerError. A plain text is an answer that took nothing."""

    def __init__(self, proposer: Proposer, config: CustomProposerConfig) -> None:
        self._proposer, self._config = proposer, config

    @property
    def label(self) -> str:
        return f"custom {self._proposer.label}"

    def answer(self, ask: Ask) -> Answer:
        try:
            answer: object = self._proposer.answer(ask)
        except ProposerError:
            raise
        except Exception as error:
            raise ProposerError(f"{self._config.import_path} must answer a request, but {raised(error)}") from error
        if isinstance(answer, str):
            return Answer(answer)
        if not isinstance(answer, Answer):
            raise ProposerError(
                f"{self._config.import_path} must answer with a text or an Answer, but did with {type(answer).__name__}"
            )
        return answer


class NoModel:
    """Stands for the tuned model where a proposer is only made."""

    name = "none"

    def words(self) -> tuple[str, ...]:
        return ()

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        raise ProposerError("no model is loaded yet, so that none can be asked")


def build_custom(config: CustomProposerConfig, tuned: TunedModel) -> Proposer:
    """Make a proposer of the user's own.

    Raises:
        ConfigError: it cannot be imported or made, or lacks a method of ``Proposer``.
    """
    proposer = made(config, imported(config), {"tuned": tuned})
    require_methods(config, proposer, ("label", "answer"), Proposer)
    return GuardedProposer(proposer, config)
