from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Airflow: it writes its settings there.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


@pytest.fixture(scope="session")
def binary() -> str:
    """The real program; integrations/airflow/test builds it."""
    path = os.environ.get("COILED_JOBS") or shutil.which("coiled-jobs")
    if not path:
        pytest.skip("no coiled-jobs program: set COILED_JOBS, or run integrations/airflow/test")
    return os.path.abspath(path)


FAKE = """#!{python}
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
command = sys.argv[1]
stdin = os.path.realpath("/proc/self/fd/0")
line = json.dumps({{"args": sys.argv[1:], "env": dict(os.environ), "stdin": stdin}})
with open(os.path.join(here, "calls"), "ab", buffering=0) as f:
    f.write(line.encode() + b"\\n")
path = os.path.join(here, command + ".json")
answers = json.load(open(path)) if os.path.exists(path) else [{{}}]
if len(answers) > 1:
    with open(path + ".new", "w") as f:
        json.dump(answers[1:], f)
    os.replace(path + ".new", path)
a = answers[0]
sys.stderr.write(a.get("err", ""))
sys.stderr.flush()
sys.stdout.write(a.get("out", ""))
sys.stdout.flush()
time.sleep(a.get("sleep", 0))
sys.exit(a.get("code", 0))
"""


class Fake:
    """A program that answers as it was told, and records how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "coiled-jobs")
        Path(self.path).write_text(FAKE.format(python=sys.executable))
        os.chmod(self.path, stat.S_IRWXU)

    def answers(self, command: str, *answers: Any) -> None:
        """Say what a command answers, one call after the other; the last answer stays.

        An answer is a state, an exit code, or all of out, err, code and sleep.
        """
        listed = []
        for a in answers:
            if isinstance(a, int):
                a = {"code": a, "err": f"{command} went wrong\n"}
            elif isinstance(a, str):
                a = {"out": a}
            elif "out" not in a and "code" not in a and "sleep" not in a:
                a = {"out": json.dumps(a)}
            listed.append(a)
        (self.folder / f"{command}.json").write_text(json.dumps(listed))

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [c for c in found if not command or c["args"][0] == command]

    def commands(self) -> list[str]:
        return [c["args"][0] for c in self.calls()]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    folder = tmp_path / "fake"
    folder.mkdir()
    f = Fake(folder)
    connect(monkeypatch, f.path, "/store")
    return f


def connect(monkeypatch: pytest.MonkeyPatch, binary: str, host: str, **extra: Any) -> None:
    """Set up the default connection."""
    connection = {"conn_type": "coiledjobs", "host": host, "extra": {"binary": binary, **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_COILED_JOBS_DEFAULT", json.dumps(connection))


class TI:
    """As much of a task instance as the operator looks at."""

    def __init__(self, **kwargs: Any) -> None:
        self.dag_id, self.task_id, self.run_id, self.map_index = "d", "t", "r", -1
        self.try_number, self.max_tries = 1, 0
        self.pushed: list[tuple[str, Any]] = []
        self.__dict__.update(kwargs)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed.append((key, value))

    @property
    def xcom(self) -> dict[str, Any]:
        return dict(self.pushed)


def context(**kwargs: Any) -> dict[str, Any]:
    ti = TI(**kwargs)
    return {"ti": ti, "task_instance": ti, "run_id": ti.run_id}


def state(status: str, run: str = "p-1", **kwargs: Any) -> dict[str, Any]:
    """The state of a run with one function of two tasks."""
    counts = dict.fromkeys(("succeeded", "failed", "skipped", "cancelled", "running", "pending"), 0)
    ended = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled"}.get(status, "pending")
    counts[ended] = 2
    return {
        "run": run,
        "pipeline": "p",
        "status": status,
        "started": "2026-01-01T00:00:00.123456789Z",
        "finished": "2026-01-01T00:01:00.123456789Z",
        "seconds": 60,
        "cost_usd": 1.5,
        "machines": 1,
        "functions": {"work": {"status": status, "tasks": 2, **counts}},
        **kwargs,
    }
