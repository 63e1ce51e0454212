"""A page about all months: report.py --months N --out report.html

Reads the results of the function `process` (one path per line, as JSON) from
the folder that coiled-jobs names in COILED_JOBS_NEEDS.
"""

import argparse
import html
import json
import os

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Taxi rides with a tip</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: .25em .6em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }}
tfoot td {{ font-weight: bold }}
</style>
<h1>Taxi rides with a tip</h1>
<p>{kept:,} of {rides:,} rides in {months} months gave a tip, {percent:.1f} % of the fare on average.</p>
<table>
<thead><tr><th>month<th>rides<th>with a tip<th>share<th>mean tip<th>of the fare<th>mean miles</thead>
<tbody>
{rows}
</tbody>
<tfoot>{total}</tfoot>
</table>
<h2>By hour of the day</h2>
<svg viewBox="0 0 480 130" role="img" aria-label="rides with a tip by hour">
{bars}
</svg>
</html>
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--months", type=int, required=True, help="how many results there must be")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()

    with open(os.path.join(os.environ["COILED_JOBS_NEEDS"], "process.jsonl")) as results:
        paths = [json.loads(line) for line in results]
    if len(paths) != options.months:
        raise SystemExit(f"{options.months} months were processed, but there are {len(paths)} results")
    months = []
    for path in paths:
        with open(os.path.splitext(path)[0] + ".json") as summary:
            months.append(json.load(summary))
    months.sort(key=lambda m: m["month"])

    total = {"month": "all", **{key: sum(m[key] for m in months) for key in ("rides", "kept", "fares", "tips", "miles")}}
    page = PAGE.format(
        kept=total["kept"],
        rides=total["rides"],
        months=len(months),
        percent=100 * share(total["tips"], total["fares"]),
        rows="\n".join(row(m) for m in months),
        total=row(total),
        bars="\n".join(bars(months)),
    )
    with open(options.out, "w") as out:
        out.write(page)
    print(f"{options.out}: {len(months)} months, {total['kept']} of {total['rides']} rides with a tip")


def row(m):
    cells = [
        html.escape(m["month"]),
        f"{m['rides']:,}",
        f"{m['kept']:,}",
        f"{100 * share(m['kept'], m['rides']):.1f} %",
        f"${share(m['tips'], m['kept']):.2f}",
        f"{100 * share(m['tips'], m['fares']):.1f} %",
        f"{share(m['miles'], m['kept']):.2f}",
    ]
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


def bars(months):
    hours = [sum(m["by_hour"].get(f"{hour:02}", 0) for m in months) for hour in range(24)]
    tallest = max(hours) or 1
    for hour, rides in enumerate(hours):
        height = 100 * rides / tallest
        yield (
            f'<rect x="{20 * hour + 2}" y="{110 - height:.1f}" width="16" height="{height:.1f}" fill="#f4b400">'
            f"<title>{hour:02}:00 {rides:,} rides</title></rect>"
            f'<text x="{20 * hour + 10}" y="124" font-size="9" text-anchor="middle">{hour}</text>'
        )


def share(part, whole):
    return part / whole if whole else 0.0


if __name__ == "__main__":
    main()
