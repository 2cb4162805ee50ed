#!/usr/bin/env bash
# datasets 5.2.0: a CSV file whose rows end with a comma that its header does not have, as many exports write them, is
# loaded without a word with each value in the column before its own: the first one becomes __index_level_0__, the
# label stands under "text", and the last column is empty.
# Source: datasets/packaged_modules/csv/csv.py, Csv._generate_tables: pandas.read_csv with index_col None takes the first
# field for an index, and pa.Table.from_pandas keeps that as a column.
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "datasets==5.2.0" "pandas==3.1.1" "pyarrow==26.0.1"
printf 'text,label\nfine,1,\nbad,0,\n' > "$folder/rows.csv"
cat > "$folder/probe.py" <<'PY'
import sys

import datasets

datasets.disable_progress_bars()
rows = datasets.load_dataset("csv", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
print("datasets", datasets.__version__, list(rows))
raise SystemExit(0 if rows[0] == {"text": 1, "label": None, "__index_level_0__": "fine"} else 1)
PY
"$folder/env/bin/python" "$folder/probe.py" "$folder/rows.csv" "$folder/cache"
