"""table.py FILE: the results of the sweep as a CSV table. A task that failed for good has no row."""

import csv
import json
import os
import sys

with open(os.path.join(os.environ["COILED_JOBS_NEEDS"], "sweep.jsonl")) as f:
    results = [json.loads(line) for line in f]
with open(sys.argv[1], "w", newline="") as f:
    out = csv.DictWriter(f, ["r", "period", "lowest"], lineterminator="\n")
    out.writeheader()
    out.writerows(r for r in results if r is not None)
