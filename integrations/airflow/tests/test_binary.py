"""The operator with the real program, without Airflow's processes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coiled_jobs_airflow._compat import AirflowException, AirflowFailException
from coiled_jobs_airflow.hook import CoiledJobsHook
from coiled_jobs_airflow.operator import cancel_what_is_left
from tests.conftest import connect, context
from tests.real import processes, until
from tests.test_operator import execute, make
from tests.test_package import examples
from tests.test_trigger import fire, sensor
from tests.test_trigger import make as make_trigger

PIPELINE = """
name: real
params: {text: "", seconds: 0}
functions:
  work:
    map: {range: 3}
    env: {SECONDS_LONG: "${{ params.seconds }}"}
    hardware: {threads_per_worker: 3}
    run: |
      echo "$COILED_JOBS_INDEX" >> began
      echo "item $COILED_JOBS_INDEX" ${{ params.text }}
      [ ! -e broken ] || [ "$COILED_JOBS_INDEX" != 1 ] || exit 3
      sleep "$SECONDS_LONG"
      echo "$COILED_JOBS_INDEX" > "$COILED_JOBS_RESULT"
  text:
    needs: work
    run: printf '"%s"' "$(printf %s ${{ params.text }} | base64 -w0)" > "$COILED_JOBS_RESULT"
"""


class Place:
    """A pipeline file, and what its runs leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = str(folder / "p.yaml")
        Path(self.file).write_text(PIPELINE)

    def begun(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(map(int, (self.folder / "began").read_text().split()))
        return []

    def runs(self) -> list[dict[str, Any]]:
        return json.loads(CoiledJobsHook().get_conn().call("runs", "--all", "--json"))


@pytest.fixture
def place(tmp_path: Path, binary: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    connect(monkeypatch, binary, str(tmp_path / "store"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "pipeline").mkdir()
    p = Place(tmp_path / "pipeline")
    yield p
    for r in p.runs():
        CoiledJobsHook().get_conn().cancel(r["run"], 10)


def test_success(place: Place) -> None:
    odd = 'it\'s "odd" $(touch x) `y` \\ é\n* ${HOME} {{ ds }}'
    op = make(file=place.file, pipeline_params={"text": odd}, results=["work", "text"])
    value, ti = execute(op)
    assert value["status"] == "succeeded"
    assert ti.xcom["results_work"] == [0, 1, 2]
    assert base64.b64decode(ti.xcom["results_text"][0]).decode() == odd
    # Another try finds that all is done.
    again, ti = execute(make(file=place.file, pipeline_params={"text": odd}), try_number=2)
    assert again["run"] == value["run"]
    assert place.begun() == [0, 1, 2]
    # Other parameters under the same key are a mistake, and stay one.
    with pytest.raises(AirflowFailException, match=r"(?s)text was .* and is now"):
        execute(make(file=place.file, pipeline_params={"text": "other"}), try_number=3)


def test_failure_is_continued(place: Place) -> None:
    (place.folder / "broken").touch()
    with pytest.raises(AirflowException, match="work: 1 of 3 tasks failed"):
        execute(make(file=place.file, logs="failed"))
    (place.folder / "broken").unlink()
    value, _ = execute(make(file=place.file), try_number=2)
    assert value["status"] == "succeeded"
    assert place.begun() == [0, 1, 1, 2]
    assert len(place.runs()) == 1


def test_wrong_file(place: Place) -> None:
    Path(place.file).write_text("name: real\nfunctons: {}\n")
    with pytest.raises(AirflowFailException, match=r"p\.yaml:2:1: .*did you mean"):
        execute(make(file=place.file))
    assert place.runs() == []


def test_kill(place: Place) -> None:
    """The run is cancelled, its processes end, and another try goes on with it."""
    op = make(file=place.file, pipeline_params={"seconds": 60})

    def kill() -> None:
        until("all items have begun", lambda: len(place.begun()) == 3)
        op.on_kill()

    t = threading.Thread(target=kill)
    t.start()
    with pytest.raises(AirflowException, match="stopped waiting"):
        execute(op)
    t.join()
    (r,) = place.runs()
    assert r["status"] == "cancelled"
    until("nothing is left", lambda: not [p for p, text in processes() if r["run"].encode() in text], 15)


def test_interrupted(place: Place) -> None:
    """The coordinator of the run is killed: the waiting task takes the run up again."""
    op = make(file=place.file, pipeline_params={"seconds": 3}, logs="none")

    def kill() -> None:
        until("all items have begun", lambda: len(place.begun()) == 3)
        (r,) = place.runs()
        for pid, text in processes():
            if b"\0__coordinate\0" + r["run"].encode() in text:
                os.kill(pid, signal.SIGKILL)

    t = threading.Thread(target=kill)
    t.start()
    value, _ = execute(op)
    t.join()
    assert value["status"] == "succeeded"
    assert len(place.runs()) == 1
    assert place.begun() == [0, 0, 1, 1, 2, 2]


def test_others_wait(place: Place) -> None:
    """A sensor and a trigger find the run by its key, also before it exists."""
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.append(fire(make_trigger(run=None, key="nightly", poll_interval=0.1)))
    )
    waiting.start()
    s = sensor(key="nightly")
    assert not s.poke(context())
    time.sleep(0.3)
    value, _ = execute(make(file=place.file, key="nightly"))
    waiting.join()
    assert found == [{"run": value["run"], "status": "succeeded"}]
    assert s.execute(context())["run"] == value["run"]
    assert sensor(run=value["run"]).execute(context()) == value


def test_lost_for_good(place: Place) -> None:
    """Nobody but the failure callback knows of the run, and that only by its key."""
    program = CoiledJobsHook().get_conn()
    key = "airflow/d/t/r/-1"
    program.call(*program.apply_args(place.file, key, {"seconds": 60}))
    until("all items have begun", lambda: len(place.begun()) == 3)
    op = make(file=place.file)
    cancel_what_is_left({**context(try_number=1, max_tries=1), "task": op})
    assert place.runs()[0]["status"] == "running"
    cancel_what_is_left({**context(try_number=2, max_tries=1), "task": op})
    assert place.runs()[0]["status"] == "cancelled"


def test_without_the_package(place: Place, binary: str, tmp_path: Path) -> None:
    """The recipe with a BashOperator, as the examples have it: a second try repeats nothing."""
    bag = examples()
    recipe = bag.dags["coiled_jobs_plain"].get_task("count")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "coiled-jobs").symlink_to(binary)
    day = "it's $(touch x)"
    env = {
        **os.environ,
        **recipe.env,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "COILED_JOBS_STORE": str(tmp_path / "store"),
        "FILE": str(Path(bag.dag_folder) / "pipeline.yaml"),
        "DAY": day,
    }
    for _ in range(2):
        out = subprocess.run(["bash", "-c", recipe.bash_command], env=env, check=True, stdout=subprocess.PIPE)
        assert json.loads(out.stdout)["status"] == "succeeded"
    (r,) = place.runs()
    program = CoiledJobsHook().get_conn()
    assert f"counting shard 3 of {day}" in program.call("logs", r["run"])
    assert program.results(r["run"], "report", 100) == ["60"]
