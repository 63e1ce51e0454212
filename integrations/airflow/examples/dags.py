"""DAGs that run the pipeline beside this file."""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

from coiled_jobs_airflow.operator import CoiledJobsOperator
from coiled_jobs_airflow.sensor import CoiledJobsSensor

with DAG("coiled_jobs_example", schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False):
    # Waits in the triggerer, for an hour at most; a second try goes on where the first one ended.
    count = CoiledJobsOperator(
        task_id="count",
        file="pipeline.yaml",
        pipeline_params={"day": "{{ dag_run.run_after | ds }}", "shards": 8},
        results=["count", "report"],
        deferrable=True,
        execution_timeout=timedelta(hours=1),
        retries=1,
    )

    @task
    def largest(values: list[int]) -> int:
        """Take the results of a function: a list in the order of its items."""
        return max(values)

    largest(count.output["results_count"])

    # Waits for a run that somebody else starts: here the one above, by its key.
    CoiledJobsSensor(
        task_id="wait",
        key="airflow/coiled_jobs_example/count/{{ run_id }}/-1",
        mode="reschedule",
        poke_interval=60,
        timeout=3600,
    )

with DAG("coiled_jobs_mapped", schedule=None, start_date=datetime(2026, 1, 1)):
    # One run per mapped task. Fan out in the pipeline where you can: that is one run with many tasks.
    CoiledJobsOperator.partial(task_id="count", file="pipeline.yaml").expand(
        pipeline_params=[{"day": "monday"}, {"day": "tuesday"}]
    )

with DAG("coiled_jobs_plain", schedule=None, start_date=datetime(2026, 1, 1)):
    # Without this package. Values go through env, so that the shell never reads them.
    BashOperator(
        task_id="count",
        bash_command='exec coiled-jobs apply "$FILE" --yes --json --param "day=$DAY" --key "$KEY"',
        env={
            "FILE": "/opt/airflow/dags/pipeline.yaml",
            "DAY": "{{ dag_run.run_after | ds }}",
            "KEY": "airflow/{{ dag.dag_id }}/{{ task.task_id }}/{{ run_id }}",
        },
        append_env=True,
        retries=1,
    )
