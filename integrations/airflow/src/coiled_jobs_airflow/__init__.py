"""Run coiled-jobs pipelines from Apache Airflow.

Everything here calls the ``coiled-jobs`` program and reads the JSON it promises to keep stable.
"""

from __future__ import annotations

__version__ = "0.1.0"
