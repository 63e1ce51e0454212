"""What Airflow reads about this package."""

from __future__ import annotations

from typing import Any

from coiled_jobs_airflow import __version__


def get_provider_info() -> dict[str, Any]:
    """Name the connection type and the operator link."""
    return {
        "package-name": "coiled-jobs-airflow",
        "name": "coiled-jobs",
        "description": "Run coiled-jobs pipelines: fan out over files on rented machines.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": "coiledjobs",
                "hook-class-name": "coiled_jobs_airflow.hook.CoiledJobsHook",
            }
        ],
        "extra-links": ["coiled_jobs_airflow.link.CoiledJobsLink"],
    }
