"""``outcomes``, ``monitor`` and ``compare``: what became of the decisions."""

from __future__ import annotations

import click

from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli

outcomes = group(cli, "outcomes", "Take in what actually happened, and see which decisions have an outcome.")

expose(outcomes, "ingest", "outcomes.ingest", rows=Parameter("FILE", type=click.Path(exists=True, dir_okay=False)),
       examples=["retrodict outcomes ingest warn_early outcomes.csv"])  # fmt: skip
expose(outcomes, "show", "outcomes.show", limit=Parameter(type=click.IntRange(0)), examples=[
    "retrodict outcomes show warn_early", "retrodict outcomes show warn_early --now 2013-10-01T00:00Z",
])  # fmt: skip
expose(cli, "monitor", "monitor", examples=[
    "retrodict monitor", "retrodict monitor warn_early --now 2013-10-01T00:00Z --html report.html",
])  # fmt: skip
expose(cli, "compare", "compare", examples=[
    "retrodict compare warn_early late_arrival@2 --start 2013-09-01T00:00Z --end 2013-10-01T00:00Z",
])  # fmt: skip
