"""The trigger: follows a run in the triggerer while its task is deferred."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timezone
from typing import Any

from asgiref.sync import sync_to_async

from coiled_jobs_airflow._compat import BaseTrigger, TriggerEvent, task_states
from coiled_jobs_airflow.cli import FINAL, INTERRUPTED, CoiledJobs, CoiledJobsError, State
from coiled_jobs_airflow.hook import CoiledJobsHook

# A look at a run may fail this often in a row, with longer and longer pauses; an unknown run is soon final.
LOOKS, LOOKS_REFUSED = 20, 3
MAX_PAUSE = 60.0
# How long Airflow may take for an answer.
ANSWER = 60.0


class CoiledJobsTrigger(BaseTrigger):
    """Fires when a run has ended, or has no coordinator any more.

    It holds nothing but the run's id, so a triggerer may be restarted at any time. With ``cancel`` it
    cancels the run when its task was cleared or marked in the meantime; a triggerer that merely stops
    leaves the run alone.

    :param run: id of the run, or
    :param key: the key it was or will be started with
    :param coiled_jobs_conn_id: id of the connection
    :param store: the store; wins over the connection
    :param poll_interval: seconds between two looks
    :param cancel: whether the run ends with its task
    :param interrupted: whether it also fires when the run has no coordinator
    """

    def __init__(
        self,
        run: str | None = None,
        key: str | None = None,
        coiled_jobs_conn_id: str = CoiledJobsHook.default_conn_name,
        store: str | None = None,
        poll_interval: float = 15.0,
        cancel: bool = False,
        interrupted: bool = False,
    ) -> None:
        super().__init__()
        self.run_ref = run
        self.key = key
        self.coiled_jobs_conn_id = coiled_jobs_conn_id
        self.store = store
        self.poll_interval = poll_interval
        self.cancel = cancel
        self.interrupted = interrupted

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what the triggerer needs to make this trigger again."""
        return (
            "coiled_jobs_airflow.trigger.CoiledJobsTrigger",
            {
                "run": self.run_ref,
                "key": self.key,
                "coiled_jobs_conn_id": self.coiled_jobs_conn_id,
                "store": self.store,
                "poll_interval": self.poll_interval,
                "cancel": self.cancel,
                "interrupted": self.interrupted,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the run until there is something to tell."""
        try:
            yield TriggerEvent(await self._follow(await self._program()))
        except asyncio.CancelledError:
            if self.cancel and self.run_ref:
                await _to_its_end(self._cancel_with_task(self.run_ref))
            raise
        except Exception as e:
            self.log.exception("cannot follow run %s", self.run_ref or self.key)
            yield TriggerEvent({"run": self.run_ref, "error": f"{type(e).__name__}: {e}"})

    async def _cancel_with_task(self, run: str) -> None:
        try:
            if await self._left_by_task():
                self.log.info("the task is not waiting any more: cancelling run %s", run)
                program = await self._program()
                # Waiting for the end of the run is not this process's business.
                await asyncio.get_running_loop().run_in_executor(None, program.cancel, run, 4.0)
        except Exception:
            self.log.exception("cannot cancel run %s", run)

    async def _program(self) -> CoiledJobs:
        return await _ask(CoiledJobsHook(self.coiled_jobs_conn_id, store=self.store).get_conn)

    async def _follow(self, program: CoiledJobs) -> dict[str, Any]:
        failures, shown = 0, ""
        while True:
            pause = self.poll_interval
            try:
                state = await self._look(program)
            except (CoiledJobsError, asyncio.TimeoutError) as e:
                failures += 1
                refused = isinstance(e, CoiledJobsError) and e.refused
                if failures >= (LOOKS_REFUSED if refused else LOOKS):
                    raise
                pause = min(MAX_PAUSE, self.poll_interval * 2 ** (failures - 1))
                self.log.warning("%s; looking again in %.0f s", e, pause)
            else:
                failures = 0
                if state is not None:
                    if (line := progress(state)) != shown:
                        shown = line
                        self.log.info("%s", line)
                    if state["status"] in FINAL or (self.interrupted and state["status"] == INTERRUPTED):
                        return {"run": state["run"], "status": state["status"]}
            await asyncio.sleep(pause)

    async def _look(self, program: CoiledJobs) -> State | None:
        if self.run_ref is None:
            assert self.key is not None
            self.run_ref = await program.afind(self.key)
            if self.run_ref is None:
                return None
        return await program.astatus(self.run_ref)

    async def _left_by_task(self) -> bool:
        """Say whether this trigger was ended because its task does not wait any more.

        A triggerer that stops, or hands over to another, leaves the task deferred. A task whose time
        is over decides by itself: it may be tried again. In doubt the run goes on.
        """
        over = getattr(self, "timeout_after", None)
        if over is not None:
            over = over if over.tzinfo else over.replace(tzinfo=timezone.utc)
            if over <= datetime.now(timezone.utc):
                return False
        ti = getattr(self, "task_instance", None)
        if ti is None:
            return False
        with contextlib.suppress(Exception):
            states = await _ask(task_states, ti)
            return all(state != "deferred" for state in states.values())
        return False


async def _ask(ask: Callable[..., Any], *args: Any) -> Any:
    """Ask Airflow for something.

    A question is never given up half-way: the triggerer would take the answer for that of the next
    question, and end.
    """
    question = _keep(sync_to_async(ask)(*args))
    done, _ = await asyncio.wait({question}, timeout=ANSWER)
    if not done:
        raise TimeoutError(f"no answer from Airflow within {ANSWER:.0f} s")
    return question.result()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do something in a trigger that is being ended: it is told so again every second."""
    task = _keep(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})


# The event loop itself does not hold on to tasks.
_kept: set[asyncio.Task[Any]] = set()


def _keep(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(work)
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    return task


def progress(state: State) -> str:
    """Say in a line how far a run is."""
    parts = []
    for name, fn in state["functions"].items():
        done = fn["succeeded"] + fn["failed"] + fn["skipped"] + fn["cancelled"]
        failed = f", {fn['failed']} failed" if fn["failed"] else ""
        parts.append(f"{name} {done}/{fn['tasks']}{failed}")
    cost = f", ${state['cost_usd']:.2f}" if state.get("cost_usd") else ""
    return f"run {state['run']} {state['status']}: {'; '.join(parts) or 'planning'}{cost}"
