#!/usr/bin/env bash
# pycma 4.5.0: with default options the step size is adapted by two points (TPA) from 300 dimensions on, by the path (CSA)
# below; 4.4.0 took CSA in both unless the covariance was diagonal. With TPA `tell()` draws from numpy's global generator
# from the fourth generation on, although `randn` and `seed: nan` were given.
# Source: cma/evolution_strategy.py, TPA_dimension; cma/sigma_adaptation.py, CMAAdaptSigmaTPA.check_consistency.
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
cat > "$folder/probe.py" <<'PY'
import sys

import cma
import numpy as np


def strategy(dimension, popsize):
    options = {"popsize": popsize, "seed": np.nan, "verbose": -9}
    options["randn"] = lambda *shape, stream=np.random.default_rng(0): stream.standard_normal(shape)
    return cma.CMAEvolutionStrategy(dimension * [1.0], 1.0, options)


rules = {dimension: type(strategy(dimension, 8).adapt_sigma).__name__ for dimension in (299, 300)}
print("pycma", cma.__version__, rules)
if sys.argv[1:] == ["before"]:
    raise SystemExit(0 if set(rules.values()) == {"CMAAdaptSigmaCSA"} else 1)

large = strategy(300, 8)
np.random.seed(1)
left_alone = []
for _ in range(6):
    before = np.random.get_state()[2]
    solutions = large.ask()
    large.tell(solutions, [float(x @ x) for x in solutions])
    left_alone.append(np.random.get_state()[2] == before)
print("numpy's generator left alone, by generation:", left_alone)
switched = rules == {299: "CMAAdaptSigmaCSA", 300: "CMAAdaptSigmaTPA"}
raise SystemExit(0 if switched and not all(left_alone) else 1)
PY
"$folder/env/bin/python" -m pip install --quiet "cma==4.4.0"
"$folder/env/bin/python" "$folder/probe.py" before
"$folder/env/bin/python" -m pip install --quiet "cma==4.5.0"
"$folder/env/bin/python" "$folder/probe.py"
