"""A real Airflow: its four processes on SQLite, with the LocalExecutor, in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coiled_jobs_airflow.cli import _end_with_parent, _prctl

HERE = Path(__file__).resolve().parent


# Their log servers have fixed ports, and are not needed on one machine.
SERVES_LOGS = ("scheduler", "triggerer")


def until(what: str, look: Callable[[], Any], seconds: float = 180) -> Any:
    """Look until there is something to see."""
    end = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)


class Airflow:
    """Starts and asks an Airflow. Its processes live in sessions that end with close."""

    def __init__(self, home: Path, binary: str) -> None:
        self.home, self.binary = home, binary
        self.runs = home / "runs"
        self.store = home / "store"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        connection = {
            "conn_type": "coiledjobs",
            "host": str(self.store),
            "extra": {"binary": binary, "page": "http://jobs.example:8321"},
        }
        self.env = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "COILED_JOBS_TEST_DIR": str(self.runs),
            "AIRFLOW_CONN_COILED_JOBS_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": "of these tests",
            "AIRFLOW__API__WORKERS": "1",
            # Needed with newer pyjwt than this Airflow was made for.
            "AIRFLOW__API_AUTH__JWT_ISSUER": "tests",
            "AIRFLOW__API_AUTH__JWT_SECRET": "of these tests, and long enough for a signature",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PYTHONWARNINGS": "ignore",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.token = ""

    def start(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"], env=self.env, check=True, capture_output=True
        )
        for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
            self.spawn(name)
        until("the API server answers", self._log_in, 150)

    def spawn(self, name: str) -> None:
        log = (self.home / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "airflow", name, *(["--skip-serve-logs"] if name in SERVES_LOGS else [])],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent if _prctl is not None else None,  # when the tests are killed
        )

    def kill(self, name: str) -> None:
        """Kill a process and all it has started, as a lost machine would."""
        process = self.processes.pop(name)
        for pid in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def _log_in(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = (self.home / f"{name}.log").read_text()
                raise AssertionError(f"{name} has ended:\n{log[-4000:]}")
        with contextlib.suppress(OSError):
            self.token = self.ask("GET", "/auth/token")["access_token"]
        return bool(self.token)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as e:
            if e.code == 404 and method == "GET":
                return None
            raise AssertionError(f"{method} {path}: {e.code} {e.read()!r}") from e

    def trigger(self, dag: str) -> DagRun:
        (self.runs / dag).mkdir(parents=True)
        until(f"DAG {dag} is known", lambda: self.ask("GET", f"/api/v2/dags/{dag}"), 120)
        answer = self.ask("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None})
        return DagRun(self, dag, answer["dag_run_id"])

    def cli(self, *args: str) -> str:
        env = {**self.env, "CI": "true"}
        done = subprocess.run(
            [self.binary, *args, f"--store={self.store}"], env=env, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise AssertionError(f"{args}: {done.stderr}")
        return done.stdout


class DagRun:
    """A run of one of the DAGs."""

    def __init__(self, airflow: Airflow, dag: str, run: str) -> None:
        self.airflow, self.dag = airflow, dag
        self.path = f"/api/v2/dags/{dag}/dagRuns/{run}"
        self.run = run
        self.dir = airflow.runs / dag

    def ti(self, task: str = "run") -> dict[str, Any]:
        return self.airflow.ask("GET", f"{self.path}/taskInstances/{task}")

    def reaches(self, state: str, task: str = "run", seconds: float = 180) -> dict[str, Any]:
        """Wait for a state of a task."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.update(self.ti(task))
            ended = last["state"] in ("failed", "upstream_failed") and state != last["state"]
            if ended:
                raise AssertionError(f"{self.dag}.{task} is {last['state']}:\n{self.log(task)}")
            return last["state"] == state

        try:
            until(f"{self.dag}.{task} is {state}", look, seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {last.get('state')}:\n{self.log(task)}") from e
        return last

    def xcom(self, key: str, task: str = "run") -> Any:
        entry = self.airflow.ask(
            "GET", f"{self.path}/taskInstances/{task}/xcomEntries/{key}?deserialize=true"
        )
        return None if entry is None else entry["value"]

    def log(self, task: str = "run", attempt: int = 0) -> str:
        attempt = attempt or self.ti(task)["try_number"]
        answer = self.airflow.ask("GET", f"{self.path}/taskInstances/{task}/logs/{attempt}?full_content=true")
        lines = (answer or {}).get("content") or []
        return "\n".join(_line(line) for line in lines)

    def mark(self, state: str, task: str = "run") -> None:
        """Mark a task as a person does in the UI."""
        self.airflow.ask("PATCH", f"{self.path}/taskInstances/{task}", {"new_state": state})

    def clear(self, task: str = "run") -> None:
        """Clear a task as a person does in the UI."""
        self.airflow.ask(
            "POST",
            f"/api/v2/dags/{self.dag}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": self.run, "task_ids": [task], "only_failed": False},
        )

    def begun(self) -> list[int]:
        """The items that have begun, as often as they did."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(int(line.split()[0]) for line in (self.dir / "began").read_text().splitlines())
        return []

    def all_begin(self) -> None:
        try:
            until(f"the items of {self.dag} begin", lambda: self.begun() == [0, 1, 2])
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log()}") from e

    def is_followed(self) -> None:
        """Wait until the triggerer has looked at the run."""
        logs = self.airflow.home / "logs" / f"dag_id={self.dag}"

        def looked() -> bool:
            return any(" running: " in log.read_text() for log in logs.rglob("*.trigger.*"))

        until(f"the triggerer follows {self.dag}", looked)

    def go(self) -> None:
        """Let the items end."""
        (self.dir / "go").touch()

    def jobs(self) -> list[dict[str, Any]]:
        """The coiled-jobs runs of this DAG run: one, if all is well."""
        runs = json.loads(self.airflow.cli("runs", "--all", "--json"))
        return [r for r in runs if r["key"].startswith(f"airflow/{self.dag}/")]

    def status(self) -> str:
        (job,) = self.jobs()
        return json.loads(self.airflow.cli("status", job["run"], "--json"))["status"]

    def left(self) -> list[int]:
        """Processes of the run that are still there: tasks, coordinator, whoever waits."""
        names = [f"{self.dir}\0".encode(), *(job["run"].encode() for job in self.jobs())]
        return [pid for pid, text in processes() if any(n in text for n in names)]

    def leaves_nothing(self) -> None:
        until(f"nothing is left of {self.dag}", lambda: not self.left(), 60)


def _line(line: Any) -> str:
    if not isinstance(line, dict):
        return str(line)
    errors = [f"{e.get('exc_type')}: {e.get('exc_value')}" for e in line.get("error_detail") or []]
    return "\n".join([str(line.get("event")), *errors])


def processes() -> list[tuple[int, bytes]]:
    """All processes with their arguments and environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_bytes().rsplit(b")", 1)[1].split()[0]
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if state != b"Z":
                    found.append((int(entry.name), text))
    return found


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_bytes().rsplit(b")", 1)[1].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found
