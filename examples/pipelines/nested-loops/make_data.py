"""Writes three series to data/; the same seed gives the same bytes."""

import os
import random
import sys


def series(name):
    rng = random.Random(f"nested-loops {name}")
    value = 100.0
    for day in range(60):
        value += {"calm": 0.2, "steady": 1.0, "wild": 0.0}[name] + rng.gauss(0, {"calm": 0.3, "steady": 0.8, "wild": 6.0}[name])
        yield day, round(value, 2)


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for name in ("calm", "steady", "wild"):
        with open(os.path.join(folder, name + ".csv"), "w") as f:
            f.write("day,value\n")
            f.writelines(f"{day},{value}\n" for day, value in series(name))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "data"))
