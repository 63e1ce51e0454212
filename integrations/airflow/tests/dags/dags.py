"""The DAGs of test_airflow.py; each has a folder for what its run leaves and what it waits for."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from coiled_jobs_airflow.operator import CoiledJobsOperator
from coiled_jobs_airflow.sensor import CoiledJobsSensor

DIR = Path(os.environ["COILED_JOBS_TEST_DIR"])


def run(dag_id: str, fail: str = "", **kwargs: Any) -> CoiledJobsOperator:
    return CoiledJobsOperator(
        task_id="run",
        file="pipeline.yaml",
        pipeline_params={"dir": str(DIR / dag_id), "items": "{{ 1 + 2 }}", "fail": fail},
        poll_interval=1,
        retry_delay=timedelta(seconds=1),
        **kwargs,
    )


with DAG("success", schedule=None):

    @task
    def check(squares: list[dict[str, int]]) -> int:
        return sum(s["square"] for s in squares)

    done = run("success", results=["work", "total"])
    check(done.output["results_work"])

with DAG("fails_once", schedule=None):
    run("fails_once", fail="1", retries=1)

with DAG("fails", schedule=None):
    run("fails", fail="0", logs="failed")

with DAG("lost", schedule=None):
    run("lost", retries=1)

with DAG("lost_for_good", schedule=None):
    run("lost_for_good", retries=0)

with DAG("killed", schedule=None):
    run("killed", retries=0)

with DAG("timeout", schedule=None):
    run("timeout", retries=20, execution_timeout=timedelta(seconds=10))

# With tries to spare: a busy Airflow fails a task that is resumed before it has seen it deferred. Whatever
# it does, there is one run.
with DAG("deferred", schedule=None):
    run("deferred", deferrable=True, retries=3, results=["total"])
    CoiledJobsSensor(
        task_id="wait",
        key="airflow/deferred/run/{{ run_id }}/-1",
        poke_interval=1,
        deferrable=True,
        timeout=300,
    )

with DAG("deferred_killed", schedule=None):
    run("deferred_killed", deferrable=True)

with DAG("deferred_cleared", schedule=None):
    run("deferred_cleared", deferrable=True, retries=3)
