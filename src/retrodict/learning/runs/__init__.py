"""The evaluation store: every run with its parameters, metrics by step, artifacts and tags.

``record``
    What a run is, and how its beginning and end are entered in the ledger.
``store``
    Reading: one run, lists, the best.
``search``, ``comparison``, ``retention``
    Runs by an expression; side by side; removed when nothing needs them.
``tracker``, ``writer``, ``journal``
    Work outside recipes, recorded as it goes.
``mlflow``
    Scripts of MLflow that record here, and runs and models sent to it.
"""

from retrodict.learning.runs.record import Artifact, MetricPoint, Run, fail_run, finish_run, start_run
from retrodict.learning.runs.store import KINDS, LISTED, best_run, get_run, list_runs, tag_run

__all__ = [
    "KINDS",
    "LISTED",
    "Artifact",
    "MetricPoint",
    "Run",
    "best_run",
    "fail_run",
    "finish_run",
    "get_run",
    "list_runs",
    "start_run",
    "tag_run",
]
