"""GET /metrics: what all processes of this instance counted, for Prometheus.

Only operators may look, or who is on this machine where no keys are asked for.
"""

from flask import Blueprint, Response

from api.problems import Problem
from shared import metrics_folder

metrics = Blueprint("metrics", __name__)


@metrics.get("/metrics")
def show() -> Response:
    """Show the metrics, or 404 where nothing is counted (a server other than ours)."""
    if not metrics_folder.is_made():
        raise Problem(404, "NOT_FOUND", "No metrics are kept here.")
    # Imported by whoever made the folder known; else it would not find it.
    from shared import metrics_export

    return Response(metrics_export.exposition(), content_type=metrics_export.CONTENT_TYPE)
