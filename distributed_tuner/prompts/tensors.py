"""safetensors of a run directory, read into numpy. Somebody else may have written them."""

from pathlib import Path

import numpy as np

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.values import Array64


def read_tensors(path: Path) -> dict[str, Array64]:
    """Return the arrays of a safetensors file by name, as float64.

    Raises:
        RunDirectoryError: it is not whole, or holds what numpy has no numbers for.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: np.asarray(array, dtype=np.float64) for name, array in load_file(path).items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError, SafetensorError) as error:
        raise RunDirectoryError(
            f"{path} must be a safetensors file as a run has written it, but is not ({error}); copy it back from where"
            " the run was made"
        ) from None
