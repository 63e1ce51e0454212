"""Double exponential smoothing (Holt), scored by how well it foretells the next value."""

import csv
import functools


@functools.lru_cache(maxsize=8)
def load(path):
    """Read a series once per interpreter: interpreters stay warm between tasks."""
    with open(path, newline="") as f:
        return tuple(float(row["value"]) for row in csv.DictReader(f))


def score(path, alpha, beta):
    """The negative mean squared error of forecasting each value from those before it."""
    series = load(path)
    level, trend, squares = series[0], series[1] - series[0], 0.0
    for value in series[1:]:
        forecast = level + trend
        squares += (value - forecast) ** 2
        before, level = level, alpha * value + (1 - alpha) * forecast
        trend = beta * (level - before) + (1 - beta) * trend
    return {"file": path, "alpha": alpha, "beta": beta, "score": round(-squares / (len(series) - 1), 6)}


def best(results):
    """The best parameters per file, and the best of all."""
    per_file = {}
    for r in results:
        if r["file"] not in per_file or r["score"] > per_file[r["file"]]["score"]:
            per_file[r["file"]] = r
    return {"tried": len(results), "best": max(per_file.values(), key=lambda r: r["score"]), "per_file": per_file}
