"""The operator in a real Airflow: scheduler, workers and triggerer, some of which get killed.

The DAG runs are started together and then looked at one after the other, because most of the time
somebody waits for somebody.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import Airflow, DagRun, descendants, processes, until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, binary: str) -> Iterator[Airflow]:
    a = Airflow(tmp_path_factory.mktemp("airflow"), binary)
    try:
        a.start()
        yield a
    finally:
        a.close()
        for job in json.loads(a.cli("runs", "--all", "--json")) if a.store.exists() else []:
            a.cli("cancel", job["run"])


@pytest.fixture(scope="module")
def started(airflow: Airflow) -> dict[str, DagRun]:
    """All DAG runs: what does not have to wait for anything is let go."""
    names = ["lost", "lost_for_good", "timeout", "deferred", "success", "fails_once", "fails", "killed"]
    runs = {name: airflow.trigger(name) for name in [*names, "deferred_killed", "deferred_cleared"]}
    for name in ("success", "fails_once", "fails"):
        runs[name].go()
    return runs


def lose_worker(run: DagRun) -> int:
    """Kill the worker of a task, supervisor and all it has started, but not the run itself."""
    (job,) = until("the run exists", run.jobs)

    def waiting() -> list[int]:
        return [p for p, text in processes() if b"\0wait\0" + job["run"].encode() in text]

    (pid,) = until("somebody waits for the run", waiting)
    task = parent(pid)
    supervisor = parent(task)
    lost = [supervisor, *descendants(supervisor)]
    for p in lost:
        os.kill(p, signal.SIGKILL)
    return len(lost)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[1])


def test_lost_worker(started: dict[str, DagRun]) -> None:
    """A worker is killed in the middle: the next try joins the run, and no item runs twice."""
    for name in ("lost", "lost_for_good"):
        started[name].all_begin()
        assert lose_worker(started[name]) >= 3  # the supervisor, the task, and who waits
    run = started["lost"]
    assert run.status() == "running"
    until("the task is tried again", lambda: run.ti()["try_number"] == 2)
    run.reaches("running")
    run.go()
    ti = run.reaches("success")
    assert ti["try_number"] == 2
    assert len(run.jobs()) == 1
    assert run.begun() == [0, 1, 2]
    assert run.xcom("status") == "succeeded"
    run.leaves_nothing()


def test_worker_lost_with_the_last_try(started: dict[str, DagRun]) -> None:
    """No try is left to join the run: it is cancelled by whoever finds out."""
    run = started["lost_for_good"]
    run.reaches("failed")
    until("the run is cancelled", lambda: run.status() == "cancelled")
    run.leaves_nothing()


def test_success(started: dict[str, DagRun]) -> None:
    run = started["success"]
    run.reaches("success")
    (job,) = run.jobs()
    assert job["key"] == f"airflow/success/run/{run.run}/-1"
    assert run.xcom("run") == job["run"]
    assert run.xcom("status") == "succeeded"
    assert run.xcom("cost_usd") == 0
    assert run.xcom("summary")["work"]["succeeded"] == 3
    assert run.xcom("results_work") == [{"square": 0}, {"square": 1}, {"square": 4}]
    assert run.xcom("results_total") == [3]
    assert run.xcom("return_value")["run"] == job["run"]
    page = f"http://jobs.example:8321/runs/{job['run']}"
    links = run.airflow.ask("GET", f"{run.path}/taskInstances/run/links")
    assert links["extra_links"] == {"coiled-jobs": page}
    log = run.log()
    assert "item 2 says hello" in log
    assert f"run {job['run']}: {page}" in log
    run.reaches("success", "check")
    assert run.xcom("return_value", "check") == 5
    run.leaves_nothing()


def test_failure_is_continued(started: dict[str, DagRun]) -> None:
    """The second try runs what failed in the first, in the same run."""
    run = started["fails_once"]
    assert run.reaches("success")["try_number"] == 2
    assert len(run.jobs()) == 1
    assert run.begun() == [0, 1, 1, 2]
    assert "work: 1 of 3 tasks failed" in run.log(attempt=1)


def test_failure(started: dict[str, DagRun]) -> None:
    run = started["fails"]
    run.reaches("failed")
    assert run.xcom("status") == "failed"
    assert run.xcom("summary")["work"]["failed"] == 1
    log = run.log()
    assert "item 0 gives up" in log
    assert "item 1 says hello" not in log
    assert f"coiled-jobs logs {run.jobs()[0]['run']} --failed" in log
    run.leaves_nothing()


def test_kill_cancels(started: dict[str, DagRun]) -> None:
    run = started["killed"]
    run.all_begin()
    run.mark("failed")
    until("the run is cancelled", lambda: run.status() == "cancelled")
    run.leaves_nothing()


def test_timeout_with_another_try_leaves_the_run(started: dict[str, DagRun]) -> None:
    run = started["timeout"]
    until("the task is tried again", lambda: run.ti()["try_number"] >= 2)
    assert run.status() == "running"
    run.go()
    run.reaches("success")
    assert run.begun() == [0, 1, 2]
    assert len(run.jobs()) == 1


def test_mark_failed_cancels_deferred(started: dict[str, DagRun]) -> None:
    run = started["deferred_killed"]
    run.reaches("deferred")
    run.all_begin()
    run.is_followed()
    run.mark("failed")
    until("the run is cancelled", lambda: run.status() == "cancelled")
    run.leaves_nothing()


def test_clear_deferred_goes_on_in_the_same_run(started: dict[str, DagRun]) -> None:
    run = started["deferred_cleared"]
    run.reaches("deferred")
    run.all_begin()
    run.is_followed()
    run.clear()
    until("the task is tried again", lambda: run.ti()["try_number"] >= 2)
    run.go()
    run.reaches("success")
    assert len(run.jobs()) == 1
    assert run.xcom("status") == "succeeded"
    run.leaves_nothing()


def test_deferred(started: dict[str, DagRun]) -> None:
    """A triggerer is killed and another one started: the run does not notice."""
    run = started["deferred"]
    run.reaches("deferred")
    run.reaches("deferred", "wait")
    run.all_begin()
    run.airflow.kill("triggerer")
    run.airflow.spawn("triggerer")
    assert run.status() == "running"
    run.go()
    run.reaches("success")
    assert run.xcom("results_total") == [3]
    assert run.xcom("return_value")["status"] == "succeeded"
    run.reaches("success", "wait")
    assert run.xcom("return_value", "wait")["run"] == run.xcom("run")
    assert run.begun() == [0, 1, 2]
    assert "item 1 says hello" in run.log()
    run.leaves_nothing()
