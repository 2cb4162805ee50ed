"""A proposer of one's own: takes the instructions of a list in turn."""

from distributed_tuner.proposers.base import Ask, TunedModel


class FromAList:
    """Proposes ``instructions``, beginning where the request's number says."""

    def __init__(self, *, tuned: TunedModel, instructions: list[str]) -> None:
        self.label = "list"
        self._instructions = instructions

    def answer(self, ask: Ask) -> str:
        number = ask.key[-1]
        assert isinstance(number, int)
        wanted = [self._instructions[(number + i) % len(self._instructions)] for i in range(ask.count)]
        return "\n".join(f"{i}. {text}" for i, text in enumerate(wanted, start=1))
