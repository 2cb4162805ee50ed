#!/usr/bin/env bash
# nevergrad 1.0.12: "AnisotropicAdaptiveDiscreteOnePlusOne" of the registry, on an array of real numbers without bounds,
# proposes the largest numbers that there are, 1.8e308 and its negative, from its second candidate on, whatever it is told.
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
import numpy as np

array = ng.p.Array(shape=(8,))
search = ng.optimizers.registry["AnisotropicAdaptiveDiscreteOnePlusOne"](parametrization=array, budget=300)
search.parametrization.random_state = np.random.RandomState(0)
largest = []
for _ in range(6):
    candidate = search.ask()
    largest.append(float(np.abs(candidate.value).max()))
    search.tell(candidate, float(np.sum(np.clip(candidate.value, -1e3, 1e3) ** 2)))
print("nevergrad", importlib.metadata.version("nevergrad"), "largest coordinates:", largest)
raise SystemExit(0 if min(largest[1:]) > 1e300 else 1)
PY
"$folder/env/bin/python" "$folder/probe.py"
