"""logistic.py HUNDREDTHS STEPS: the values that x -> r x (1 - x) settles on, as JSON."""

import json
import os
import sys


def settle(r, steps):
    x = 0.4
    for _ in range(steps):
        x = r * x * (1 - x)
        if not 0 <= x <= 1:
            sys.exit(f"r = {r}: x left the range from 0 to 1")  # exit code 1: not repeated
    cycle = []
    for _ in range(64):
        x = r * x * (1 - x)
        if any(abs(x - seen) < 1e-6 for seen in cycle):
            break
        cycle.append(x)
    return cycle


def main():
    hundredths, steps = int(sys.argv[1]), int(sys.argv[2])
    # Every tenth task pretends that a service it needs is busy at first.
    if int(os.environ["COILED_JOBS_INDEX"]) % 10 == 5 and os.environ["COILED_JOBS_ATTEMPT"] == "1":
        print("the service is busy, try again later", file=sys.stderr)
        sys.exit(75)
    r = hundredths / 100
    cycle = settle(r, steps)
    print(json.dumps({"r": r, "period": len(cycle) if len(cycle) < 64 else None, "lowest": round(min(cycle), 4)}))


if __name__ == "__main__":
    main()
