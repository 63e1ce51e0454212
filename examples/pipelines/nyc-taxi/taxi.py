"""The work on one month of NYC taxi rides. Nothing but the standard library."""

import csv
import json
import os


def process(path, min_tip=0.01):
    """Keep the rides that tipped at least min_tip; return the path of the new file.

    Beside it lies a summary of the month, for the report.
    """
    print(f"processing {path}")
    os.makedirs("processed", exist_ok=True)
    outfile = os.path.join("processed", os.path.basename(path))
    month = {"month": _month(path), "rides": 0, "kept": 0, "fares": 0.0, "tips": 0.0, "miles": 0.0, "by_hour": {}}

    with open(path, newline="") as source, open(outfile, "w", newline="") as target:
        rides = csv.DictReader(source)
        kept = csv.DictWriter(target, rides.fieldnames, lineterminator="\n")
        kept.writeheader()
        for ride in rides:
            month["rides"] += 1
            tip = float(ride["tip_amount"] or 0)
            if tip < min_tip:
                continue
            kept.writerow(ride)
            month["kept"] += 1
            month["tips"] += tip
            month["fares"] += float(ride["fare_amount"] or 0)
            month["miles"] += float(ride["trip_distance"] or 0)
            hour = ride["pickup_datetime"][11:13]
            month["by_hour"][hour] = month["by_hour"].get(hour, 0) + 1

    for key in ("fares", "tips", "miles"):
        month[key] = round(month[key], 2)
    with open(os.path.splitext(outfile)[0] + ".json", "w") as summary:
        json.dump(month, summary)
    print(f"kept {month['kept']} of {month['rides']} rides")
    return outfile


def _month(path):
    """2019-01 from .../yellow_tripdata_2019-01.csv"""
    return os.path.splitext(os.path.basename(path))[0].rsplit("_", 1)[-1]
