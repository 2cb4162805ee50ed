"""Recorded answers: an earlier run's exchanges given again, failures included, so that a run can be had twice."""

from pathlib import Path

from distributed_tuner.errors import ConfigError, LedgerError, ProposerError
from distributed_tuner.ledger.reader import read_rows
from distributed_tuner.ledger.rows import ExchangeRow
from distributed_tuner.proposers.base import Ask
from distributed_tuner.seeds import Key
from distributed_tuner.values import Answer


class ReplayProposer:
    """Finds an answer by trial, stage and number of the request.

    A trial that the ledger does not name is the one with the same index: its id begins with its method, of which the
    recorded proposer was a part ("zot+local-0000" is replayed by "zot+replay-0000").

    Raises:
        ConfigError: the file cannot be read as a ledger.
    """

    def __init__(self, ledger: Path) -> None:
        try:
            rows = [row for row in read_rows(ledger) if isinstance(row, ExchangeRow)]  # of one written twice the last
        except LedgerError as error:
            raise ConfigError(f"proposer.ledger must be a ledger with exchange rows: {error}") from None
        self._rows: dict[Key, ExchangeRow] = {
            (row.trial_id, "screen" if row.screen else row.stage, row.number): row for row in rows
        }
        self._trials = {_index(row.trial_id): row.trial_id for row in rows}
        self.label = f"replay {ledger.parent.name}/{ledger.name}"

    def answer(self, ask: Ask) -> Answer:
        """Give the recorded answer.

        Raises:
            ProposerError: there is none, or what was recorded is a failure.
        """
        trial, *rest = ask.key
        row = self._rows.get(ask.key) or self._rows.get((self._trials.get(_index(str(trial)), ""), *rest))
        if row is None:
            raise ProposerError(
                f"an answer must have been recorded for every request, but there is none for {ask.key}; replay a run"
                " with the same trials, stages and seed"
            )
        if row.problem and not row.answer:
            raise ProposerError(row.problem)
        return Answer(row.answer, row.input_tokens, row.output_tokens, row.seconds, row.usd)


def _index(trial_id: str) -> str:
    return trial_id.rpartition("-")[2]
