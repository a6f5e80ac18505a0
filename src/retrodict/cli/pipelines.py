"""``pipelines``: all of a project's work in order, by hand, by cron or from CI."""

from __future__ import annotations

from retrodict.cli import _types
from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli

pipelines = group(cli, "pipelines", "Run steps in order: what is unchanged is skipped, what was killed goes on.")

_NAME = Parameter("NAME", _types.pipelines)

expose(
    pipelines, "run", "pipelines.run",
    name=_NAME, only=Parameter("STEPS", callback=_types.names), force=Parameter(more={"metavar": None}),
    examples=[
        "retrodict pipelines run nightly", "retrodict pipelines run nightly --only train_late_arrival --force",
        "retrodict pipelines run monthly --backfill 2013-01..2013-06 --parallel 2",
    ],
)  # fmt: skip
expose(pipelines, "list", "pipelines.list", examples=["retrodict pipelines list", "retrodict pipelines list --json"])
expose(pipelines, "status", "pipelines.status", name=_NAME, examples=["retrodict pipelines status nightly"])
expose(
    pipelines, "history", "pipelines.history", name=_NAME, examples=["retrodict pipelines history nightly --limit 5"]
)
expose(pipelines, "show", "pipelines.show", name=_NAME, examples=[
    "retrodict pipelines show nightly", "retrodict pipelines show nightly --mermaid",
    "retrodict pipelines show nightly --dot | dot -Tsvg > nightly.svg",
])  # fmt: skip
expose(pipelines, "manifest", "pipelines.manifest", name=_NAME, examples=[
    "retrodict pipelines manifest nightly --schedule '0 3 * * *' --image flights:7 | kubectl apply -f -",
])  # fmt: skip
