"""The operator, with a program that only records how it is called."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coiled_jobs_airflow import follow, operator
from coiled_jobs_airflow._compat import AirflowException, AirflowFailException, AirflowTaskTimeout
from coiled_jobs_airflow.operator import CoiledJobsOperator, cancel_what_is_left, default_key
from tests.conftest import TI, Fake, connect, context, state

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:
    from airflow.exceptions import TaskDeferred


def make(**kwargs: Any) -> CoiledJobsOperator:
    kwargs = {"task_id": "t", "file": "/pipelines/p.yaml", "deferrable": False, **kwargs}
    with DAG("d"):
        return CoiledJobsOperator(**kwargs)


def execute(op: CoiledJobsOperator, **kwargs: Any) -> tuple[Any, TI]:
    c = context(**kwargs)
    return op.execute(c), c["ti"]


@pytest.fixture
def run(fake: Fake) -> Fake:
    """A run that is submitted, waited for, and succeeds."""
    fake.answers("apply", state("running"))
    fake.answers("wait", state("succeeded"))
    return fake


def test_arguments(run: Fake) -> None:
    odd = 'it\'s "odd" $(touch x) `y`; é\n* --yes'
    op = make(
        pipeline_params={"text": odd, "n": 3, "share": 0.5, "flag": True, "list": [1, "a"], "none": None},
        functions=["a", "b"],
        cloud="aws",
        max_cost=2.5,
        apply_args=["--first", "2"],
        logs="none",
    )
    execute(op)
    (call,) = run.calls("apply")
    assert call["args"] == [
        *["apply", "/pipelines/p.yaml", "--detach", "--json", "--yes", "--key=airflow/d/t/r/-1"],
        *["--param", f"text={odd}", "--param", "n=3", "--param", "share=0.5", "--param", "flag=true"],
        *["--param", 'list=[1, "a"]'],
        *["--function=a", "--function=b", "--cloud=aws", "--max-cost=2.5", "--first", "2", "--store=/store"],
    ]
    assert call["stdin"] == "/dev/null"
    assert run.calls("wait")[0]["args"] == ["wait", "p-1", "--json", "--no-download", "--store=/store"]
    assert run.commands() == ["apply", "wait"]


def test_key_is_that_of_the_task_instance_not_of_the_try() -> None:
    assert default_key(TI(try_number=1)) == default_key(TI(try_number=7))
    others = [TI(), TI(dag_id="e"), TI(task_id="u"), TI(run_id="s"), TI(map_index=0), TI(map_index=1)]
    assert len({default_key(ti) for ti in others}) == len(others)


def test_templates_and_relative_file(run: Fake) -> None:
    op = make(
        file="{{ run_id }}.yaml",
        key="k-{{ run_id }}",
        store="/{{ run_id }}",
        pipeline_params={"day": "{{ run_id }}"},
        env={"TOKEN": "{{ run_id }}"},
        apply_args=["--first={{ run_id }}"],
        logs="none",
    )
    c = context(run_id="monday")
    op.render_template_fields(c)
    op.execute(c)
    (call,) = run.calls("apply")
    assert call["args"][1] == str(Path(__file__).parent / "monday.yaml")
    for arg in ("--key=k-monday", "day=monday", "--first=monday", "--store=/monday"):
        assert arg in call["args"]
    assert call["env"]["TOKEN"] == "monday"
    assert call["env"]["PATH"] == os.environ["PATH"]


def test_xcom(run: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, run.path, "/store", page="http://jobs:8321/")
    run.answers("results", '{"index":0,"result":{"x":1}}\n{"index":1,"result":null}\n')
    op = make(results=["work"])
    value, ti = execute(op)
    assert value == state("succeeded")
    assert ti.pushed[0] == ("run", "p-1")
    assert ti.xcom["status"] == "succeeded"
    assert ti.xcom["cost_usd"] == 1.5
    assert ti.xcom["summary"]["work"]["succeeded"] == 2
    assert ti.xcom["results_work"] == [{"x": 1}, None]
    assert ti.xcom["page"] == "http://jobs:8321/runs/p-1"
    assert op.operator_extra_links[0].get_link(op, ti_key=ti) == "http://jobs:8321/runs/p-1"
    assert run.calls("results")[0]["args"][:4] == ["results", "p-1", "work", "--format=jsonl"]


def test_the_id_is_told_before_the_end(fake: Fake) -> None:
    fake.answers("apply", state("running"))
    fake.answers("wait", state("failed"))
    c = context()
    with pytest.raises(AirflowException):
        make().execute(c)
    assert [name for name, _ in c["ti"].pushed] == ["run", "status", "cost_usd", "summary"]


def test_no_xcom(run: Fake) -> None:
    _, ti = execute(make(do_xcom_push=False))
    assert ti.pushed == []


def test_too_many_results(run: Fake) -> None:
    run.answers("results", '{"index":0,"result":"0123456789"}\n' * 100)
    with pytest.raises(AirflowFailException, match=r"coiled-jobs results p-1 work.*max_xcom_bytes"):
        execute(make(results=["work"], max_xcom_bytes=100))


def test_results_that_cannot_be_read(run: Fake) -> None:
    run.answers("results", 2)
    with pytest.raises(AirflowFailException, match="exit code 2"):
        execute(make(results=["nothing"]))


def test_succeeded_before(fake: Fake) -> None:
    """The worker was lost between the end of the run and that of the task."""
    fake.answers("apply", state("succeeded"))
    _, ti = execute(make())
    assert ti.xcom["status"] == "succeeded"
    assert fake.commands() == ["apply"]


@pytest.mark.parametrize("code", [2, 3])
def test_apply_fails(fake: Fake, code: int) -> None:
    fake.answers("apply", code)
    with pytest.raises(AirflowException, match=f"apply ended with exit code {code}: apply went wrong") as e:
        execute(make())
    # What is refused is refused again; everything else may work in a minute.
    assert isinstance(e.value, AirflowFailException) == (code == 2)


@pytest.mark.parametrize(
    ("status", "again", "text"),
    [
        ("failed", True, "run p-1 failed: work: 2 of 2 tasks failed; see `coiled-jobs logs p-1 --failed`"),
        ("stopped", False, "a limit stopped it"),
        ("cancelled", False, "somebody cancelled it"),
    ],
)
def test_ends_without_success(fake: Fake, status: str, again: bool, text: str) -> None:
    fake.answers("apply", state("running", started="2999-01-01T00:00:00Z"))
    fake.answers("wait", state(status, started="2999-01-01T00:00:00Z"))
    with pytest.raises(AirflowException, match=text) as e:
        execute(make())
    assert isinstance(e.value, AirflowFailException) != again
    assert len(fake.calls("apply")) == 1


def test_interrupted_is_taken_up(fake: Fake) -> None:
    fake.answers("apply", state("running"))
    fake.answers("wait", {"out": "", "code": 3}, state("interrupted"), state("succeeded"))
    fake.answers("status", state("interrupted"))
    _, ti = execute(make(logs="none"))
    assert ti.xcom["status"] == "succeeded"
    assert fake.commands() == ["apply", "wait", "status", "apply", "wait", "apply", "wait"]


def test_interrupted_again_and_again(fake: Fake) -> None:
    fake.answers("apply", state("running"))
    fake.answers("wait", state("interrupted"))
    with pytest.raises(AirflowException, match="lost its coordinator 4 times") as e:
        execute(make(logs="none"))
    assert not isinstance(e.value, AirflowFailException)
    assert len(fake.calls("apply")) == 4


def test_cancelled_with_an_earlier_try(fake: Fake) -> None:
    """A task was cleared: its new try finds the run while it is being cancelled, and goes on with it."""
    fake.answers("apply", state("running"))
    fake.answers("wait", state("cancelled"), state("succeeded"))
    _, ti = execute(make(logs="none"))
    assert ti.xcom["status"] == "succeeded"
    assert len(fake.calls("apply")) == 2
    fake.answers("wait", state("cancelled"))
    with pytest.raises(AirflowFailException):
        execute(make(logs="none"))
    assert len(fake.calls("apply")) == 4  # once more, not for ever


def test_store_is_away_for_a_while(run: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PAUSE", 0)
    run.answers("wait", 3, 3, state("succeeded"))
    run.answers("status", 3, state("running"))
    _, ti = execute(make(logs="none"))
    assert ti.xcom["status"] == "succeeded"
    assert run.commands() == ["apply", "wait", "status", "wait", "status", "wait"]
    run.answers("wait", 3)
    run.answers("status", 3)
    with pytest.raises(AirflowException, match="status ended with exit code 3"):
        execute(make(logs="none"))
    assert len(run.calls("status")) == 2 + follow.LOOKS


def test_log(run: Fake, caplog: pytest.LogCaptureFixture) -> None:
    run.answers("logs", "100 %s of it\n" * 4)
    run.answers("wait", {"err": "work: 1 of 2 %d\n", "out": '{"status": "failed"}'}, state("succeeded"))
    op = make(max_log_lines=3)
    with caplog.at_level(logging.INFO):
        follow.Follower(op._prepare(context()), logging.getLogger("x"), True, 3).follow("p-1")
    assert caplog.messages.count("100 %s of it") == 3
    assert "more than 3 lines; the rest: coiled-jobs logs p-1" in caplog.messages
    assert "work: 1 of 2 %d" in caplog.messages


@pytest.mark.parametrize(
    ("logs", "asked"), [("all", [["--follow"]]), ("failed", [["--failed"]]), ("none", [])]
)
def test_which_logs(fake: Fake, logs: str, asked: list[list[str]]) -> None:
    fake.answers("apply", state("running"))
    fake.answers("wait", state("failed"))
    with pytest.raises(AirflowException):
        execute(make(logs=logs))
    assert [c["args"][2:3] for c in fake.calls("logs")] == asked


@pytest.mark.parametrize(
    ("finished", "logs", "asked"),
    [
        ("2100-01-01T00:00:00Z", "all", [["--store=/store"]]),
        ("2100-01-01T00:00:00Z", "none", []),
        ("2020-01-01T00:00:00Z", "all", []),  # it had ended before: its results are taken
    ],
)
def test_logs_of_a_run_that_has_ended_at_once(
    fake: Fake, finished: str, logs: str, asked: list[list[str]]
) -> None:
    fake.answers("apply", {**state("succeeded"), "finished": finished})
    execute(make(logs=logs))
    assert [c["args"][2:] for c in fake.calls("logs")] == asked
    assert not fake.calls("wait")


def kill_when(fake: Fake, op: CoiledJobsOperator, command: str) -> threading.Thread:
    def work() -> None:
        while not fake.calls(command):
            time.sleep(0.01)
        op.on_kill()

    t = threading.Thread(target=work)
    t.start()
    return t


def test_kill_cancels(run: Fake) -> None:
    run.answers("wait", {"sleep": 60})
    op = make()
    killer = kill_when(run, op, "wait")
    with pytest.raises(AirflowException, match="stopped waiting for run p-1"):
        execute(op, try_number=1, max_tries=3)
    killer.join()
    assert [c["args"] for c in run.calls("cancel")] == [["cancel", "p-1", "--store=/store"]]


def test_kill_while_submitting(run: Fake) -> None:
    """The id is not known yet: the key finds the run."""
    run.answers("apply", {"sleep": 60})
    run.answers("runs", '[{"run": "p-7"}]')
    op = make()
    killer = kill_when(run, op, "apply")
    with pytest.raises(AirflowException):
        execute(op)
    killer.join()
    assert run.calls("runs")[0]["args"] == ["runs", "--key=airflow/d/t/r/-1", "--json", "--store=/store"]
    assert run.calls("cancel")[0]["args"][:2] == ["cancel", "p-7"]


def test_kill_does_not_wait_for_the_end_of_the_run(run: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "KILL_PATIENCE", 0.5)
    run.answers("cancel", {"sleep": 5})
    op = make()
    op._prepare(context())
    op._run_id = "p-1"
    began = time.monotonic()
    op.on_kill()
    assert time.monotonic() - began < 4


def test_kill_before_and_after_the_run(run: Fake) -> None:
    op = make()
    op.on_kill()
    execute(op)
    op.on_kill()
    assert "cancel" not in run.commands()


@pytest.mark.parametrize(("tries", "cancelled"), [(1, 0), (0, 1)])
def test_timeout_cancels_only_the_last_try(run: Fake, tries: int, cancelled: int) -> None:
    op = make()

    def timeout(*_: Any) -> Any:
        raise AirflowTaskTimeout("too long")

    op._submit = timeout
    with pytest.raises(AirflowTaskTimeout):
        execute(op, max_tries=tries)
    op._run_id = "p-1"
    op.on_kill()
    assert len(run.calls("cancel")) == cancelled


def test_deferred(run: Fake) -> None:
    op = make(deferrable=True, execution_timeout=timedelta(minutes=5), poll_interval=7, store="/other")
    c = context()
    with pytest.raises(TaskDeferred) as e:
        op.execute(c)
    _, kwargs = e.value.trigger.serialize()
    assert kwargs == {
        "run": "p-1",
        "key": None,
        "coiled_jobs_conn_id": "coiled_jobs_default",
        "store": "/other",
        "poll_interval": 7,
        "cancel": True,
        "interrupted": True,
    }
    assert e.value.timeout == timedelta(minutes=5)
    assert c["ti"].xcom["run"] == "p-1"

    # The same task in another process.
    run.answers("status", state("succeeded"))
    again = make(deferrable=True, store="/other")
    c = context()
    event = {"run": "p-1", "status": "succeeded"}
    value = again.resume_execution(e.value.method_name, {**e.value.kwargs, "event": event}, c)
    assert value["status"] == "succeeded"
    assert c["ti"].xcom["status"] == "succeeded"
    assert len(run.calls("apply")) == 1


def test_deferred_and_interrupted(run: Fake) -> None:
    run.answers("status", state("interrupted"))
    with pytest.raises(TaskDeferred) as e:
        make(deferrable=True).execute_complete(context(), {"run": "p-1"}, again=2, submitted=time.time())
    assert e.value.kwargs["again"] == 3
    assert len(run.calls("apply")) == 1
    with pytest.raises(AirflowException, match="lost its coordinator"):
        make(deferrable=True).execute_complete(context(), {"run": "p-1"}, again=3, submitted=time.time())
    assert len(run.calls("apply")) == 1


def test_triggerer_cannot_follow(run: Fake) -> None:
    run.answers("status", state("running"))
    event = {"run": "p-1", "error": "no program"}
    with pytest.raises(AirflowException, match="the triggerer cannot follow run p-1: no program"):
        make(deferrable=True).execute_complete(context(), event)
    run.answers("status", state("succeeded"))
    assert make(deferrable=True).execute_complete(context(), event)["status"] == "succeeded"


class TestFailureCallback:
    """It is called in the worker after the last try, and elsewhere when a worker is lost."""

    @pytest.fixture(autouse=True)
    def _live(self, fake: Fake) -> None:
        fake.answers("runs", '[{"run": "p-1"}]')
        fake.answers("status", state("running"))

    def call(self, op: CoiledJobsOperator, **kwargs: Any) -> None:
        cancel_what_is_left({**context(**kwargs), "task": op})

    def test_lost_worker(self, fake: Fake) -> None:
        op = make(key="k-{{ run_id }}", store="/{{ run_id }}")
        self.call(op, try_number=1, max_tries=1)
        assert fake.calls() == []
        self.call(op, try_number=2, max_tries=1)
        assert fake.calls("runs")[0]["args"] == ["runs", "--key=k-r", "--json", "--store=/r"]
        assert fake.calls("cancel")[0]["args"][:2] == ["cancel", "p-1"]

    def test_in_the_worker(self, fake: Fake) -> None:
        """The task failed for good although tries were left, and its run is still live."""
        op = make(results=["work"])
        op._here = True
        self.call(op, try_number=1, max_tries=1)
        assert len(fake.calls("cancel")) == 1

    def test_nothing_is_left(self, fake: Fake) -> None:
        fake.answers("apply", state("failed"))
        op = make()
        with pytest.raises(AirflowException):
            execute(op)
        self.call(op)
        fake.answers("status", state("succeeded"))
        self.call(make())
        fake.answers("runs", "[]")
        self.call(make())
        assert fake.calls("cancel") == []

    def test_the_key_of_somebody_else(self, fake: Fake) -> None:
        fake.answers("apply", 2)
        for key, cancelled in ((None, 1), ("nightly", 1)):
            op = make(key=key)
            with pytest.raises(AirflowFailException):
                execute(op)
            self.call(op)
            assert len(fake.calls("cancel")) == cancelled

    def test_errors_do_not_hide_the_failure(self, fake: Fake) -> None:
        fake.answers("runs", 3)
        self.call(make())
        assert fake.calls("cancel") == []

    def test_callbacks_of_the_user_stay(self) -> None:
        def one(_: Any) -> None: ...

        def two(_: Any) -> None: ...

        assert make().on_failure_callback == [cancel_what_is_left]
        assert make(on_failure_callback=one).on_failure_callback == [cancel_what_is_left, one]
        assert make(on_failure_callback=[one, two]).on_failure_callback == [cancel_what_is_left, one, two]


def test_mapped(run: Fake) -> None:
    with DAG("d"):
        CoiledJobsOperator.partial(task_id="t", file="/p.yaml").expand(pipeline_params=[{"n": 1}, {"n": 2}])


@pytest.mark.parametrize("wrong", [{"logs": "some"}, {"results": "work"}, {"functions": "work"}])
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"write one of|lists of function names"):
        make(**wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_killed_worker_leaves_nobody_waiting(fake: Fake) -> None:
    fake.answers("wait", {"sleep": 60})
    code = (
        "import sys; from coiled_jobs_airflow.cli import CoiledJobs;"
        "p = CoiledJobs(sys.argv[1]).popen('wait', 'p-1', tied=True); print(p.pid, flush=True); p.wait()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, fake.path], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    worker.kill()
    worker.wait()
    worker.stdout.close()
    end = time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < end, "the waiting process is still there"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
