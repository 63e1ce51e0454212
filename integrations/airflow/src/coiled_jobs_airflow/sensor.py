"""The sensor: waits for a run that something else has started."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from coiled_jobs_airflow._compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from coiled_jobs_airflow.cli import FINAL, CoiledJobsError, State
from coiled_jobs_airflow.hook import CoiledJobsHook
from coiled_jobs_airflow.trigger import CoiledJobsTrigger, progress


class CoiledJobsSensor(BaseSensorOperator):
    """Waits until a run has succeeded; fails when it has ended otherwise.

    A key need not have been used yet: then the run is waited for, too. A run without a coordinator is
    waited for as well: somebody may resume it. The return value is the final state of the run.

    :param run: id of the run, or (templated)
    :param key: the key it was or will be started with (templated)
    :param store: the store of runs; wins over the connection (templated)
    :param env: variables for the program; only those of the connection while deferred (templated)
    :param deferrable: wait in the triggerer
    :param coiled_jobs_conn_id: id of the connection
    """

    template_fields: Sequence[str] = ("run", "key", "store", "env")
    ui_color = "#e8f1e4"

    def __init__(
        self,
        *,
        run: str | None = None,
        key: str | None = None,
        store: str | None = None,
        env: dict[str, str] | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        coiled_jobs_conn_id: str = CoiledJobsHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (run is None) == (key is None):
            raise ValueError("a CoiledJobsSensor waits for a run or a key: give one of them")
        self.run = run
        self.key = key
        self.store = store
        self.env = env
        self.deferrable = deferrable
        self.coiled_jobs_conn_id = coiled_jobs_conn_id
        self._shown = ""

    def execute(self, context: Any) -> Any:
        """Wait here, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=CoiledJobsTrigger(
                run=self.run,
                key=self.key,
                coiled_jobs_conn_id=self.coiled_jobs_conn_id,
                store=self.store,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def poke(self, context: Any) -> PokeReturnValue:
        """Look at the run once."""
        program = CoiledJobsHook(self.coiled_jobs_conn_id, store=self.store, env=self.env).get_conn()
        try:
            run = self.run or program.find(self.key or "")
            if run is None:
                return PokeReturnValue(is_done=False)
            state = program.status(run)
        except subprocess.TimeoutExpired as e:
            self.log.warning("%s", e)
            return PokeReturnValue(is_done=False)
        except CoiledJobsError as e:
            if e.refused:
                raise AirflowFailException(str(e)) from e
            self.log.warning("%s", e)
            return PokeReturnValue(is_done=False)
        if (line := progress(state)) != self._shown:
            self._shown = line
            self.log.info("%s", line)
        if state["status"] not in FINAL:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._judge(state))

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> State:
        """Take over from the triggerer."""
        try:
            if "error" in event:
                raise AirflowException(
                    f"the triggerer cannot follow run {event['run'] or self.key}: {event['error']}"
                )
            hook = CoiledJobsHook(self.coiled_jobs_conn_id, store=self.store, env=self.env)
            return self._judge(hook.get_conn().status(event["run"]))
        except (AirflowException, CoiledJobsError) as e:
            if self.soft_fail:
                raise AirflowSkipException(str(e)) from e
            raise

    def _judge(self, state: State) -> State:
        if state["status"] == "succeeded":
            return state
        raise AirflowFailException(
            f"run {state['run']} {state['status']}; see `coiled-jobs status {state['run']}`"
        )
