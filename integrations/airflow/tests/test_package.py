"""The hook, and what Airflow reads about the package."""

from __future__ import annotations

import json
import os
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from coiled_jobs_airflow._compat import AirflowException, AirflowNotFoundException
from coiled_jobs_airflow.get_provider_info import get_provider_info
from coiled_jobs_airflow.hook import CoiledJobsHook
from tests.conftest import Fake, connect


def test_connection(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, fake.path, "s3://bucket/prefix", page="http://jobs", env={"A": "1", "B": 2})
    program = CoiledJobsHook(env={"A": "3"}).get_conn()
    assert (program.binary, program.store, program.page) == (fake.path, "s3://bucket/prefix", "http://jobs")
    assert program.env == {"A": "3", "B": "2"}
    assert CoiledJobsHook(store="/mine").get_conn().store == "/mine"
    connect(monkeypatch, fake.path, "/host", store="/extra")
    assert CoiledJobsHook().get_conn().store == "/extra"


def test_no_connection(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(conn_id: str) -> None:
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setattr(CoiledJobsHook, "get_connection", staticmethod(none))
    monkeypatch.setenv("PATH", os.path.dirname(fake.path) + os.pathsep + os.environ["PATH"])
    program = CoiledJobsHook().get_conn()
    assert (program.binary, program.store, program.page, program.env) == (fake.path, None, None, {})
    assert program.command("runs") == [fake.path, "runs"]
    with pytest.raises(AirflowNotFoundException):
        CoiledJobsHook("other").get_conn()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AirflowException, match="no program coiled-jobs on PATH; install it"):
        CoiledJobsHook().get_conn()


def test_wrong_env(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, fake.path, "/store", env=["A=1"])
    with pytest.raises(AirflowException, match="not a mapping"):
        CoiledJobsHook().get_conn()


def test_secrets_are_not_shown(fake: Fake) -> None:
    assert "hunter2" not in repr(CoiledJobsHook(env={"PASSWORD": "hunter2"}).get_conn())


def test_test_connection(fake: Fake) -> None:
    fake.answers("version", "coiled-jobs 1.2.3\n")
    fake.answers("runs", "[]")
    assert CoiledJobsHook().test_connection() == (True, "coiled-jobs 1.2.3, store /store")
    fake.answers("runs", 3)
    ok, why = CoiledJobsHook().test_connection()
    assert not ok
    assert "exit code 3" in why


def test_provider_info() -> None:
    """What the package says about itself is found by Airflow, valid, and true."""
    import airflow
    import jsonschema
    from airflow.providers_manager import ProvidersManager

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    found = [e for e in entry_points(group="apache_airflow_provider") if "coiled_jobs" in e.value]
    assert [e.load() for e in found] == [get_provider_info]
    hook = ProvidersManager().hooks["coiledjobs"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("coiled-jobs", "coiled_jobs_conn_id")
    assert "coiled_jobs_airflow.link.CoiledJobsLink" in ProvidersManager().extra_links_class_names


def examples() -> Any:
    """Load the example DAGs."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models import DagBag
    # Airflow's own examples; newer versions of it do not mix them in.
    without = {"include_examples": False} if "include_examples" in signature(DagBag).parameters else {}
    return DagBag(str(Path(__file__).parent.parent / "examples"), **without)


def test_examples() -> None:
    """They load, and can be stored as Airflow stores DAGs."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Stored
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Stored

    bag = examples()
    assert not bag.import_errors
    assert sorted(bag.dags) == ["coiled_jobs_example", "coiled_jobs_mapped", "coiled_jobs_plain"]
    for dag in bag.dags.values():
        Stored.from_dict(Stored.to_dict(dag))
