"""The link from a task to the page of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coiled_jobs_airflow._compat import AIRFLOW_3, BaseOperatorLink

if TYPE_CHECKING:
    from airflow.models.taskinstancekey import TaskInstanceKey

XCOM_PAGE = "page"


class CoiledJobsLink(BaseOperatorLink):
    """Link to the run on the page of ``coiled-jobs serve``, whose address the connection has."""

    name = "coiled-jobs"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Give the address: in the worker from the operator, in the web server of Airflow 2 from XCom."""
        page = getattr(operator, "page", None)
        if page is None and not AIRFLOW_3:
            from airflow.models.xcom import XCom

            page = XCom.get_value(key=XCOM_PAGE, ti_key=ti_key)
        return page or ""
