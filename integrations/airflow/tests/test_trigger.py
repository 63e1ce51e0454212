"""The trigger and the sensor, with a program that only records how it is called."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from coiled_jobs_airflow import trigger as module
from coiled_jobs_airflow._compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    PokeReturnValue,
)
from coiled_jobs_airflow.sensor import CoiledJobsSensor
from coiled_jobs_airflow.trigger import CoiledJobsTrigger, progress
from tests.conftest import TI, Fake, context, state

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:
    from airflow.exceptions import TaskDeferred


def make(**kwargs: Any) -> CoiledJobsTrigger:
    return CoiledJobsTrigger(**{"run": "p-1", "poll_interval": 0.01, **kwargs})


def fire(trigger: CoiledJobsTrigger) -> dict[str, Any]:
    """Run a trigger to its event, after a way through the database."""
    path, kwargs = trigger.serialize()
    assert path == f"{CoiledJobsTrigger.__module__}.{CoiledJobsTrigger.__qualname__}"

    async def first() -> Any:
        async for event in CoiledJobsTrigger(**kwargs).run():
            return event.payload
        raise AssertionError("no event")

    return asyncio.run(first())


def test_fires_at_the_end(fake: Fake) -> None:
    fake.answers("status", state("running"), state("interrupted"), state("succeeded"))
    assert fire(make()) == {"run": "p-1", "status": "succeeded"}
    assert fake.calls("status")[0]["args"] == ["status", "p-1", "--json", "--store=/store"]
    assert fake.commands() == ["status"] * 3


def test_fires_when_interrupted(fake: Fake) -> None:
    fake.answers("status", state("running"), state("interrupted"))
    assert fire(make(interrupted=True)) == {"run": "p-1", "status": "interrupted"}


def test_waits_for_a_key(fake: Fake) -> None:
    fake.answers("runs", "[]", "[]", '[{"run": "p-9"}]')
    fake.answers("status", state("succeeded", run="p-9"))
    assert fire(make(run=None, key="k", store="/other")) == {"run": "p-9", "status": "succeeded"}
    assert fake.calls("runs")[0]["args"] == ["runs", "--key=k", "--json", "--store=/other"]


def test_bears_a_store_that_is_away(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAUSE", 0.01)
    fake.answers("status", *[3] * (module.LOOKS - 1), state("running"), 3, state("failed"))
    assert fire(make())["status"] == "failed"
    fake.answers("status", 3)
    assert "exit code 3" in fire(make())["error"]


def test_gives_up_on_an_unknown_run(fake: Fake) -> None:
    fake.answers("status", 2)
    event = fire(make())
    assert event["run"] == "p-1"
    assert "exit code 2: status went wrong" in event["error"]
    assert len(fake.calls()) == module.LOOKS_REFUSED


def test_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_COILED_JOBS_DEFAULT", '{"conn_type": "x", "extra": {"binary": "/nowhere"}}'
    )
    assert "there is no program /nowhere" in fire(make())["error"]


@pytest.mark.parametrize(
    ("states", "kwargs", "cancelled"),
    [
        ({"t": "deferred"}, {}, 0),  # the triggerer stops
        ({"t": "failed"}, {}, 1),
        ({"t": "success"}, {}, 1),
        ({"t": None}, {}, 1),  # cleared
        ({"t_3": "queued"}, {}, 1),
        ({}, {}, 1),  # the DAG run was deleted
        (OSError("no connection"), {}, 0),
        ({"t": "failed"}, {"cancel": False}, 0),
        ({"t": "scheduled"}, {"over": True}, 0),  # its time is over: perhaps there is another try
    ],
)
def test_ended_by_the_triggerer(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, states: Any, kwargs: dict[str, Any], cancelled: int
) -> None:
    fake.answers("status", state("running"))

    def task_states(ti: Any) -> Any:
        assert ti.task_id == "t"
        time.sleep(0.1)
        if isinstance(states, Exception):
            raise states
        return states

    monkeypatch.setattr(module, "task_states", task_states)

    async def end() -> None:
        trigger = make(
            poll_interval=60, **{"cancel": True, **{k: v for k, v in kwargs.items() if k != "over"}}
        )
        trigger.task_instance = TI()
        away = timedelta(seconds=-1 if "over" in kwargs else 60)
        trigger.timeout_after = datetime.now(timezone.utc) + away

        async def run() -> None:
            async for _ in trigger.run():
                raise AssertionError("an event")

        task = asyncio.create_task(run())
        while not fake.calls("status"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        while not task.done():  # it is told again and again
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(end())
    assert [c["args"][:2] for c in fake.calls("cancel")] == [["cancel", "p-1"]] * cancelled


def test_questions_are_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when the trigger is ended meanwhile nor when Airflow is slow."""
    asked, answered = threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        time.sleep(0.3)
        answered.set()
        return "yes"

    async def ended() -> None:
        task = asyncio.create_task(module._ask(slow))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not answered.is_set()
        (question,) = module._kept
        assert await question == "yes"

    async def late() -> None:
        monkeypatch.setattr(module, "ANSWER", 0.05)
        with pytest.raises(TimeoutError, match="no answer from Airflow"):
            await module._ask(slow)
        (question,) = module._kept
        assert await question == "yes"

    asyncio.run(ended())
    asyncio.run(late())
    assert not module._kept


def test_progress() -> None:
    s = state("running")
    s["functions"]["work"].update(succeeded=1, failed=1)
    assert progress(s) == "run p-1 running: work 2/2, 1 failed, $1.50"
    assert progress({**s, "functions": {}, "cost_usd": 0}) == "run p-1 running: planning"


def sensor(**kwargs: Any) -> CoiledJobsSensor:
    return CoiledJobsSensor(**{"task_id": "s", "deferrable": False, "poke_interval": 0.01, **kwargs})


def test_sensor_waits(fake: Fake) -> None:
    fake.answers("runs", "[]", 3, '[{"run": "p-1"}]')
    fake.answers("status", state("running"), 3, state("interrupted"), state("succeeded"))
    s = sensor(key="k")
    pokes = [s.poke(context()) for _ in range(6)]
    assert all(isinstance(p, PokeReturnValue) for p in pokes)
    assert [bool(p) for p in pokes] == [False] * 5 + [True]
    assert pokes[-1].xcom_value == state("succeeded")
    assert sensor(run="p-1").execute(context()) == state("succeeded")


@pytest.mark.parametrize("status", ["failed", "stopped", "cancelled"])
def test_sensor_fails(fake: Fake, status: str) -> None:
    fake.answers("status", state(status))
    with pytest.raises(AirflowFailException, match=f"run p-1 {status}"):
        sensor(run="p-1").execute(context())
    with pytest.raises(AirflowSkipException):
        sensor(run="p-1", soft_fail=True).execute(context())
    with pytest.raises(AirflowSkipException):
        sensor(run="p-1", soft_fail=True).execute_complete(context(), {"run": "p-1", "status": status})


def test_sensor_of_an_unknown_run(fake: Fake) -> None:
    fake.answers("status", 2)
    with pytest.raises(AirflowFailException, match="exit code 2"):
        sensor(run="p-1").execute(context())


def test_sensor_deferred(fake: Fake) -> None:
    s = sensor(key="k", deferrable=True, poke_interval=5, timeout=30)
    with pytest.raises(TaskDeferred) as e:
        s.execute(context())
    _, kwargs = e.value.trigger.serialize()
    assert (kwargs["key"], kwargs["cancel"], kwargs["interrupted"]) == ("k", False, False)
    assert kwargs["poll_interval"] == 5
    fake.answers("status", state("succeeded"))
    assert s.execute_complete(context(), {"run": "p-1", "status": "succeeded"}) == state("succeeded")
    with pytest.raises(AirflowException, match="cannot follow run k: gone"):
        s.execute_complete(context(), {"run": None, "error": "gone"})


@pytest.mark.parametrize("wrong", [{}, {"run": "a", "key": "b"}])
def test_sensor_of_what(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        sensor(**wrong)
