from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def binary() -> str:
    """The real program; integrations/airflow/test builds it."""
    path = os.environ.get("COILED_JOBS") or shutil.which("coiled-jobs")
    if not path:
        pytest.skip("no coiled-jobs program: set COILED_JOBS, or run integrations/airflow/test")
    return os.path.abspath(path)
