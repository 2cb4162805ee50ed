#!/usr/bin/env bash
# nevergrad 1.0.12: "OldCMA" of the registry (what "CMA" stands for in most settings), asked once in one dimension, changes
# the settings that all of its kind share: from then on those of any number of dimensions are of the package fcmaes,
# which nevergrad does not bring, and not of pycma. Without fcmaes they cannot be asked any more.
# Source: nevergrad/optimization/optimizerlib.py, _CMA.es: `if self.dimension == 1: self._config.fcmaes = True`, where
# _config is the module's own ParametrizedCMA.
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "nevergrad==1.0.12" "numpy==2.4.6" "cma==4.5.0"
cat > "$folder/probe.py" <<'PY'
import importlib.metadata
import warnings

warnings.simplefilter("ignore")
import nevergrad as ng


def asked(dimension):
    search = ng.optimizers.registry["OldCMA"](parametrization=dimension, budget=100)
    try:
        search.ask()
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    return type(search.es).__module__


found = [(dimension, asked(dimension)) for dimension in (5, 1, 5)]
print("nevergrad", importlib.metadata.version("nevergrad"), found)
(_, before), _, (_, after) = found
raise SystemExit(0 if before.startswith("cma") and before != after else 1)
PY
"$folder/env/bin/python" "$folder/probe.py"
