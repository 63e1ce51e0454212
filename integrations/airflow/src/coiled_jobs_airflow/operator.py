"""The operator: runs a pipeline file as a task."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NoReturn

from coiled_jobs_airflow._compat import (
    AIRFLOW_3,
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)
from coiled_jobs_airflow.cli import FINAL, INTERRUPTED, CoiledJobs, CoiledJobsError, State, page_url
from coiled_jobs_airflow.follow import Follower, logged, show
from coiled_jobs_airflow.hook import CoiledJobsHook
from coiled_jobs_airflow.link import XCOM_PAGE, CoiledJobsLink
from coiled_jobs_airflow.trigger import CoiledJobsTrigger

LOGS = ("all", "failed", "none")

# How often a run that lost its coordinator is taken up again within one try.
AGAIN = 3
# A run that is found live and ends cancelled this soon was cancelled with an earlier try.
TAIL = 60.0
# Airflow gives a killed task five seconds.
KILL_PATIENCE = 3.0


class CoiledJobsOperator(BaseOperator):
    """Runs a pipeline file and waits for its end.

    The file is submitted under a key made of the DAG, the task, the DAG run and the map index. So there
    is one run, however often the task is tried: a retry joins the run if it is live, continues it if
    it failed, and takes its results if it has succeeded. The run itself goes on in a process of its own
    (with ``cloud: aws`` on a machine of its own), and outlives a lost worker.

    The run is cancelled when the task is killed, cleared or marked, and when it has failed for good;
    not when the task will be tried again.

    XCom gets ``run`` (its id) as soon as it is known, then ``status``, ``cost_usd``, ``summary`` (the
    counts of each function) and ``results_<function>`` for the functions in ``results``; the return
    value is what ``coiled-jobs status --json`` prints.

    :param file: the pipeline file; relative to the folder of the DAG's file (templated)
    :param pipeline_params: parameters of the pipeline; None leaves the default (templated)
    :param key: another key (templated)
    :param store: the store of runs; wins over the connection (templated)
    :param env: variables for the program, and on this machine for the pipeline: its secrets are taken
        from there (templated)
    :param results: functions whose results go to XCom, as a list in the order of the items
    :param logs: what the log shows of what the pipeline's tasks print: ``all``, ``failed`` or ``none``
    :param max_log_lines: how many of these lines
    :param cloud: ``local`` or ``aws``, whatever the file says
    :param functions: only these functions and what they need
    :param max_cost: dollars at which the run stops
    :param apply_args: more arguments for ``coiled-jobs apply`` (templated)
    :param max_xcom_bytes: more results than this are an error
    :param deferrable: wait in the triggerer instead of a worker
    :param poll_interval: seconds between two looks while deferred
    :param coiled_jobs_conn_id: id of the connection
    """

    template_fields: Sequence[str] = ("file", "pipeline_params", "key", "store", "env", "apply_args")
    template_fields_renderers = {"pipeline_params": "json", "env": "json"}  # noqa: RUF012
    operator_extra_links = (CoiledJobsLink(),)
    ui_color = "#e8f1e4"

    def __init__(
        self,
        *,
        file: str,
        pipeline_params: dict[str, Any] | None = None,
        key: str | None = None,
        store: str | None = None,
        env: dict[str, str] | None = None,
        results: Sequence[str] = (),
        logs: str = "all",
        max_log_lines: int = 10_000,
        cloud: str | None = None,
        functions: Sequence[str] = (),
        max_cost: float | None = None,
        apply_args: Sequence[str] = (),
        max_xcom_bytes: int = 1 << 20,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 15.0,
        coiled_jobs_conn_id: str = CoiledJobsHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if logs not in LOGS:
            raise ValueError(f"logs={logs!r}: write one of {', '.join(LOGS)}")
        if isinstance(results, str) or isinstance(functions, str):
            raise ValueError("results and functions are lists of function names")
        self.file = file
        self.pipeline_params = pipeline_params
        self.key = key
        self.store = store
        self.env = env
        self.results = list(results)
        self.logs = logs
        self.max_log_lines = max_log_lines
        self.cloud = cloud
        self.functions = list(functions)
        self.max_cost = max_cost
        self.apply_args = apply_args
        self.max_xcom_bytes = max_xcom_bytes
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.coiled_jobs_conn_id = coiled_jobs_conn_id
        # A worker that is lost cannot cancel anything: this is called elsewhere then.
        self.on_failure_callback = [cancel_what_is_left, *_as_list(self.on_failure_callback)]

        self.page: str | None = None
        self._program: CoiledJobs | None = None
        self._run_id: str | None = None
        self._full_key: str | None = None
        self._applying: subprocess.Popen[bytes] | None = None
        self._follower: Follower | None = None
        self._here = False  # this object executes the task: its templates are rendered
        self._ended = False  # the run is over
        self._refused = False  # the program would refuse the same call again
        self._timed_out = False
        self._tried_again = False

    def execute(self, context: Any) -> State:
        """Submit the file and wait, here or in the triggerer."""
        self._here = True
        try:
            return self._attempt(context, 0)
        except AirflowTaskTimeout:
            self._timed_out = True
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Go on after the triggerer, also where waiting has failed."""
        self._here = True
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(
        self, context: Any, event: Mapping[str, Any], again: int = 0, submitted: float = 0.0
    ) -> State:
        """Take over from the triggerer when the run has ended."""
        program, run = self._prepare(context), event["run"]
        self._found(context, run)
        try:
            state = program.status(run)
        except CoiledJobsError as e:
            raise AirflowException(f"run {run}: {e}") from e
        if state["status"] not in FINAL and "error" in event:
            raise AirflowException(f"the triggerer cannot follow run {run}: {event['error']}")
        if self.logs == "all":
            show(program, self.log, self.max_log_lines, "logs", run)
        show(program, self.log, None, "status", run)
        return self._conclude(context, state, submitted, again)

    def on_kill(self) -> None:
        """Cancel the run. Called in a signal handler: nothing here asks Airflow for anything."""
        if self._follower is not None:
            self._follower.stop()
        if self._timed_out and self._tried_again:
            return  # the next try joins the run
        if self._program is None or self._full_key is None or self._ended:
            return
        if self._applying is not None and self._applying.poll() is None:
            self._applying.terminate()
            _wait(self._applying, 1.0)
        run = self._run_id or self._program.find(self._full_key)
        if run is not None:
            done = self._program.cancel(run, KILL_PATIENCE)
            self.log.info("run %s %s", run, "is cancelled" if done else "was asked to end")

    def _attempt(self, context: Any, again: int) -> State:
        program, submitted = self._prepare(context), time.time()
        state = self._submit(context, program)
        if state["status"] not in FINAL:
            if self.deferrable:
                self._defer(state["run"], again, submitted)
            self._follower = Follower(program, self.log, self.logs == "all", self.max_log_lines)
            try:
                state = self._follower.follow(state["run"])
            except (InterruptedError, CoiledJobsError) as e:
                raise AirflowException(str(e)) from e
        elif self.logs == "all" and _ended_since(state, submitted):  # sooner than anybody could follow it
            show(program, self.log, self.max_log_lines, "logs", state["run"])
        return self._conclude(context, state, submitted, again)

    def _prepare(self, context: Any) -> CoiledJobs:
        ti = context["ti"]
        self._tried_again = ti.try_number <= ti.max_tries
        self._full_key = self.key or default_key(ti)
        hook = CoiledJobsHook(self.coiled_jobs_conn_id, store=self.store, env=self.env)
        self._program = hook.get_conn()
        return self._program

    def _submit(self, context: Any, program: CoiledJobs) -> State:
        assert self._full_key is not None
        more = [f"--function={fn}" for fn in self.functions]
        if self.cloud is not None:
            more.append(f"--cloud={self.cloud}")
        if self.max_cost is not None:
            more.append(f"--max-cost={self.max_cost}")
        args = program.apply_args(
            self._path(), self._full_key, self.pipeline_params, [*more, *map(str, self.apply_args)]
        )
        self.log.info("submitting %s under the key %s", self.file, self._full_key)
        try:
            state = json.loads(logged(program, self.log, self._started, *args))
        except CoiledJobsError as e:
            if e.refused:
                self._refused = True
                raise AirflowFailException(str(e)) from e
            raise AirflowException(str(e)) from e
        except ValueError as e:
            raise AirflowException(f"coiled-jobs apply gave no JSON: {e}") from e
        self._found(context, state["run"])
        return state

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        self._applying = process

    def _path(self) -> str:
        dag = self.get_dag()
        folder = os.path.dirname(dag.fileloc) if dag is not None else os.getcwd()
        return os.path.join(folder, self.file)

    def _found(self, context: Any, run: str) -> None:
        """Tell the id of the run, while it is going on."""
        assert self._program is not None
        self._run_id = run
        self.page = page_url(self._program.page, run)
        self._push(context, "run", run)
        if self.page is not None:
            self.log.info("run %s: %s", run, self.page)
            self._push(context, XCOM_PAGE, self.page)
            if AIRFLOW_3:
                # Airflow itself stores the link only when the task ends.
                self._push(context, CoiledJobsLink().xcom_key, self.page)

    def _defer(self, run: str, again: int, submitted: float) -> NoReturn:
        self.defer(
            trigger=CoiledJobsTrigger(
                run=run,
                coiled_jobs_conn_id=self.coiled_jobs_conn_id,
                store=self.store,
                poll_interval=self.poll_interval,
                cancel=True,
                interrupted=True,
            ),
            method_name="execute_complete",
            kwargs={"again": again, "submitted": submitted},
            timeout=self.execution_timeout,
        )
        raise AssertionError("defer has returned")

    def _conclude(self, context: Any, state: State, submitted: float, again: int) -> State:
        """Take a run that does not go on: succeed, fail, or take it up again."""
        run, status = state["run"], state["status"]
        if status == INTERRUPTED and again < AGAIN:
            self.log.warning("run %s has lost its coordinator; taking it up again", run)
            return self._attempt(context, again + 1)
        if again == 0 and _cancelled_before(state, submitted):
            self.log.info("run %s was cancelled with an earlier try; going on with it", run)
            return self._attempt(context, again + 1)
        self._ended = status in FINAL
        for name, value in (
            ("status", status),
            ("cost_usd", state["cost_usd"]),
            ("summary", state["functions"]),
        ):
            self._push(context, name, value)
        if status == "succeeded":
            self._push_results(context, run)
            return state
        assert self._program is not None
        if self.logs == "failed" and status == "failed":
            show(self._program, self.log, self.max_log_lines, "logs", run, "--failed")
        if status == "failed" or status not in FINAL:
            raise AirflowException(_explain(state))
        # Trying again would spend what a limit forbids, or undo somebody's cancel.
        raise AirflowFailException(_explain(state))

    def _push_results(self, context: Any, run: str) -> None:
        assert self._program is not None
        for fn in self.results:
            try:
                values = self._program.results(run, fn, self.max_xcom_bytes)
            except OverflowError as e:
                raise AirflowFailException(
                    f"run {run} has succeeded, but {e}, too much for XCom: read them with "
                    f"`coiled-jobs results {run} {fn}`, or raise max_xcom_bytes"
                ) from e
            except CoiledJobsError as e:
                raise (AirflowFailException if e.refused else AirflowException)(f"run {run}: {e}") from e
            self._push(context, f"results_{fn}", values)

    def _push(self, context: Any, name: str, value: Any) -> None:
        if self.do_xcom_push:
            context["ti"].xcom_push(key=name, value=value)

    def _cancel_what_is_left(self, context: Any) -> None:
        """Cancel the run after the last try, in the worker or, where that is lost, elsewhere."""
        if self._ended or (self._refused and self.key):
            return  # a key that was refused can be somebody else's
        ti = context["ti"]
        if not self._here and ti.try_number <= ti.max_tries:
            return  # Airflow calls this for every worker that is lost; there will be another try
        key, store, env = self.key, self.store, self.env
        if not self._here:
            key, store, env = (self.render_template(v, context) for v in (key, store, env))
        program = CoiledJobsHook(self.coiled_jobs_conn_id, store=store, env=env).get_conn()
        run = program.find(key or default_key(ti))
        if run is not None and program.status(run)["status"] not in FINAL:
            done = program.cancel(run, KILL_PATIENCE)
            self.log.info(
                "the task has failed: run %s %s", run, "is cancelled" if done else "was asked to end"
            )


def cancel_what_is_left(context: Any) -> None:
    """Cancel the run of a task that has failed for good; the operator's own failure callback."""
    task = context["task"]
    if isinstance(task, CoiledJobsOperator):
        try:
            task._cancel_what_is_left(context)
        except Exception as e:
            # The task has failed already, and other callbacks are to follow.
            task.log.warning("cannot cancel what may be left of the run: %s", e)


def default_key(ti: Any) -> str:
    """Give the key of a task instance: the same for all its tries."""
    return f"airflow/{ti.dag_id}/{ti.task_id}/{ti.run_id}/{ti.map_index}"


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return [callbacks] if callable(callbacks) else list(callbacks)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


def _cancelled_before(state: State, submitted: float) -> bool:
    """Say whether a run was live when it was joined and ended cancelled soon after."""
    if state["status"] != "cancelled" or not state.get("started") or not state.get("finished"):
        return False
    return _seconds(state["started"]) < int(submitted) and _seconds(state["finished"]) < submitted + TAIL


def _ended_since(state: State, submitted: float) -> bool:
    return bool(state.get("finished")) and _seconds(state["finished"]) >= int(submitted)


def _seconds(text: str) -> float:
    return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


def _explain(state: State) -> str:
    run, status = state["run"], state["status"]
    what = [
        f"{name}: {fn['failed']} of {fn['tasks']} tasks failed"
        for name, fn in state["functions"].items()
        if fn["failed"]
    ]
    advice = {
        "failed": f"see `coiled-jobs logs {run} --failed`; the next try runs only what has not succeeded",
        "stopped": "a limit stopped it: raise `limits` in the file, then clear the task",
        "cancelled": "somebody cancelled it; clear the task to go on with it",
        INTERRUPTED: f"it lost its coordinator {AGAIN + 1} times; see `coiled-jobs status {run}`",
    }
    return f"run {run} {status}{': ' + ', '.join(what) if what else ''}; {advice.get(status, '')}"
