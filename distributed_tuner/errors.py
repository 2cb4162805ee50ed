"""One tree of errors. A message states the rule, the value received and the next move.

Every member takes a single message, so that it crosses process borders by pickle unchanged. The command line turns a
``TunerError`` into one line on stderr and the class's ``exit_code``; anything else is a bug and keeps its traceback.

A message quotes what was typed and what files hold, which may be anything: it loses what would steer a terminal, and
what looks like a key.
"""

import errno

from distributed_tuner.shown import masked, plain

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full file system."""


class TunerError(Exception):
    """Root of all errors that a user can cause or cure."""

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(plain(message)))


class ConfigError(TunerError, ValueError):
    """A search space, override or setting breaks a rule."""


class TaskError(TunerError, ValueError):
    """The data, the template or the label words cannot make a task."""


class ModelError(TunerError, ValueError):
    """The model cannot be found, loaded or asked in the way that was configured."""


class HeadError(TunerError, ValueError):
    """A head cannot be fitted to what was answered, or does not go with the model or the task."""


class OptimizerError(TunerError, RuntimeError):
    """An optimizer does not do what its contract promises, or raised something of its own."""


class PartError(TunerError, RuntimeError):
    """A head, oracle, task or proposer raised something of its own, or breaks its family's contract."""


class RunDirectoryError(TunerError, FileExistsError):
    """A run directory is missing, already used, or not one of ours."""


class ClusterError(TunerError, RuntimeError):
    """A Ray cluster cannot be joined, or none can be started on this machine."""


class LedgerError(TunerError, ValueError):
    """A ledger cannot be read as one."""


class StateError(TunerError, ValueError):
    """A saved state is torn, of another version, or holds what no state of ours does."""


class StorageError(TunerError, OSError):
    """Output of a run cannot be written: a full disk, a store that cannot be reached."""

    exit_code = 1


class BudgetTooSmall(TunerError, ValueError):
    """The budget does not pay for a single step."""

    exit_code = 3


class BudgetExhausted(TunerError):
    """A request would cost more than is left. Ends a stage; never reaches the user."""


class OracleError(TunerError, RuntimeError):
    """An oracle could not answer although the request was sound."""


class OracleMemoryError(OracleError):
    """A tile did not fit into the memory of an oracle's device."""


class ProposerError(TunerError, RuntimeError):
    """A proposer has no answer. Costs a restart stage its proposals, never the run."""


class OracleTimeout(OracleError):
    """An oracle gave up a request that had run out of its time."""
