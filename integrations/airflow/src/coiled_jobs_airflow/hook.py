"""The hook: where the program and the store are."""

from __future__ import annotations

import os
import shutil
from typing import Any

from coiled_jobs_airflow._compat import AirflowException, AirflowNotFoundException, BaseHook
from coiled_jobs_airflow.cli import CoiledJobs, CoiledJobsError

PROGRAM = "coiled-jobs"


class CoiledJobsHook(BaseHook):
    """Finds the coiled-jobs program and the store of runs.

    A connection of type ``coiledjobs`` says where they are:

    - host: the store, a folder or ``s3://bucket/prefix``
    - extra: ``binary`` (path of the program), ``store`` (wins over host), ``page`` (address of
      ``coiled-jobs serve``), ``env`` (variables for the program, such as ``AWS_PROFILE``)

    All of it is optional, and the default connection need not exist: then the program is looked up on
    PATH, and it uses its own default store.

    :param coiled_jobs_conn_id: id of the connection
    :param store: the store; wins over the connection
    :param env: variables for the program, on top of those of the connection
    """

    conn_name_attr = "coiled_jobs_conn_id"
    default_conn_name = "coiled_jobs_default"
    conn_type = "coiledjobs"
    hook_name = "coiled-jobs"

    def __init__(
        self,
        coiled_jobs_conn_id: str = default_conn_name,
        store: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.coiled_jobs_conn_id = coiled_jobs_conn_id
        self.store = store
        self.env = env or {}

    def get_conn(self) -> CoiledJobs:
        """Give the program, ready to be called."""
        host, extra = self._settings()
        binary = _find_program(extra.get("binary"))
        env = extra.get("env") or {}
        if not isinstance(env, dict):
            raise AirflowException(
                f"connection {self.coiled_jobs_conn_id}: env in its extra is not a mapping of names to values"
            )
        merged = {str(k): str(v) for k, v in {**env, **self.env}.items()}
        return CoiledJobs(
            binary=binary, store=self.store or extra.get("store") or host, page=extra.get("page"), env=merged
        )

    def _settings(self) -> tuple[str | None, dict[str, Any]]:
        try:
            conn = self.get_connection(self.coiled_jobs_conn_id)
        except AirflowNotFoundException:
            if self.coiled_jobs_conn_id != self.default_conn_name:
                raise
            return None, {}
        return conn.host or None, conn.extra_dejson

    def test_connection(self) -> tuple[bool, str]:
        """Find the program and look into the store."""
        try:
            program = self.get_conn()
            version = program.call("version", timeout=30).split("\n")[0]
            program.find("airflow/test-connection")
        except (AirflowException, CoiledJobsError, OSError) as e:
            return False, str(e)
        return True, f"{version}, store {program.store or 'by default'}"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Say which fields of a connection mean something."""
        return {
            "hidden_fields": ["schema", "login", "password", "port"],
            "relabeling": {"host": "Store"},
            "placeholders": {
                "host": "s3://bucket/prefix or a folder",
                "extra": '{"binary": "/opt/bin/coiled-jobs", "page": "http://jobs:8321"}',
            },
        }


def _find_program(given: str | None) -> str:
    name = given or PROGRAM
    path = shutil.which(os.path.expanduser(name))
    if path is None:
        where = f"{name} of the connection" if given else "coiled-jobs on PATH"
        raise AirflowException(
            f"there is no program {where}; install it on every worker and triggerer, or name it as "
            "`binary` in the extra of the connection"
        )
    return path
