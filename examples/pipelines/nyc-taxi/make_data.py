"""Writes the months in data/: the header of the real files, made-up rides.

The same seed gives the same bytes, so a test can compare them.
"""

import csv
import datetime
import os
import random
import sys

HEADER = (
    "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,rate_code_id,store_and_fwd_flag,"
    "pickup_location_id,dropoff_location_id,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,"
    "improvement_surcharge,total_amount,congestion_surcharge"
).split(",")
MONTHS = ["2019-01", "2019-02", "2019-03", "2019-04"]
RIDES = 200


def ride(rng, month):
    start = datetime.datetime.strptime(month, "%Y-%m") + datetime.timedelta(seconds=rng.randrange(28 * 24 * 3600))
    miles = round(min(rng.expovariate(1 / 2.9) + 0.3, 25), 1)
    minutes = max(2, miles * rng.uniform(3.0, 6.5))
    end = start + datetime.timedelta(seconds=int(60 * minutes))
    fare = round((2.5 + 2.5 * miles + 0.2 * minutes) * 2) / 2
    extra = rng.choice([0.0, 0.5, 1.0])
    tolls = 5.76 if miles > 15 else 0.0
    congestion = 2.5 if month >= "2019-02" else 0.0
    card = rng.random() < 0.7
    tip = round((fare + extra) * rng.choice([0.1, 0.15, 0.2, 0.25]), 2) if card and rng.random() < 0.95 else 0.0
    total = round(fare + extra + 0.5 + tip + tolls + 0.3 + congestion, 2)
    return [
        rng.choice([1, 2]), start, end, rng.choice([1, 1, 1, 1, 2, 2, 3, 5]), miles, 1, "N",
        rng.randrange(1, 264), rng.randrange(1, 264), 1 if card else 2, fare, extra, 0.5, tip, tolls, 0.3, total, congestion,
    ]  # fmt: skip


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for month in MONTHS:
        rng = random.Random(f"nyc-taxi {month}")
        with open(os.path.join(folder, f"yellow_tripdata_{month}.csv"), "w", newline="") as f:
            out = csv.writer(f, lineterminator="\n")
            out.writerow(HEADER)
            out.writerows(sorted((ride(rng, month) for _ in range(RIDES)), key=lambda r: r[1]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "data"))
