"""The project that is served: the flights of the template with 36 features, in the afternoon of 5 September 2013."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import SimulatedClock, format_time, parse_time
from retrodict.core.durations import MINUTE
from retrodict.demo import nycflights
from retrodict.demo.deliveries import LIVE_MONTHS, Deliveries
from retrodict.models.artifact import ModelArtifact
from retrodict.project import Project

POLICY, NOW, REQUESTS = "warn_early", parse_time("2013-09-05T17:00Z"), 100

# Twelve features of each airport and carrier in the place of six, and two of the plane's last flight in that of one.
_EDITS = {
    'agg.mean("arr_delay", over=["6h", "24h", "7d"])': 'agg.mean("arr_delay", over=["1h", "6h", "24h", "7d"])',
    'agg.share("arr_delay > 15", over=["6h", "24h"])':
        'agg.share("arr_delay > 15", over=["1h", "6h", "24h", "7d"]), agg.max("arr_delay", over="6h")',
    'agg.count(over="6h")': 'agg.count(over=["1h", "6h", "24h"])',
    '[latest("arr_delay", max_age="24h")]': '[latest("arr_delay", "distance", max_age="24h")]',
}  # fmt: skip


def known(table: str, rows: pa.Table) -> pa.Table:
    """What is known by now of flights that were due and of hours that began, as live traffic would have brought it."""
    column, delay = {"flights": ("arr_time", 0), "weather": ("hour", 80 * MINUTE)}.get(table, (None, 0))
    if column is None:
        return rows
    return rows.filter(pc.less(rows[column].cast(pa.int64()), NOW - delay))


def make(folder: Path) -> None:
    """Ingest, train, approve, build and deploy; write the requests, and the rows that the model reads of them."""
    Project.write_template(folder)
    definitions = folder / "definitions.py"
    text = definitions.read_text()
    for old, new in _EDITS.items():
        assert old in text, old
        text = text.replace(old, new)
    definitions.write_text(text)
    deliveries = Deliveries(nycflights.prepare(nycflights.read_files()))
    clock = SimulatedClock(NOW)
    with Project(folder, clock=clock, actor="ana") as project:
        for table in ("flights", "weather", "planes"):
            project.data.ingest(table, known(table, deliveries.rows(table, None, NOW)))
        assert project.features.verify().ok
        version = project.train("late_arrival").version
        assert version is not None
        with Project(folder, clock=SimulatedClock(NOW), actor="ben") as other:
            other.models.approve(version.ref, reason="for a measurement")
        project.features.build()
        project.deploy(POLICY, model=version.ref, reason="for a measurement")
        model = ModelArtifact.load(project.workspace.objects, version.artifact)
        assert len(model.inputs) == 36, len(model.inputs)
        cases = [case for case in deliveries.requests(LIVE_MONTHS[0], 1.0) if case[0] >= NOW][:REQUESTS]
        rows = []
        clock.move_to(cases[-1][0])
        for at, case in cases:
            row = project.decide(POLICY, **case["entities"], **case["context"], at=at).record.features
            rows.append([None if x != x else x for x in model.inputs.encode_row(row).tolist()])
    asked = [{"at": format_time(at), "body": case} for at, case in cases]
    (folder / "requests.json").write_text(json.dumps(asked))
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "model.txt").write_text(model.engine.text)  # type: ignore[attr-defined]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
