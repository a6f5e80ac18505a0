"""The project that is served: the flights of the template with 36 features, its state as of 1 September 2013."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from retrodict.core.clock import SimulatedClock, format_time
from retrodict.demo import nycflights
from retrodict.demo.deliveries import LIVE_MONTHS, Deliveries
from retrodict.models.artifact import ModelArtifact
from retrodict.project import Project

POLICY, REQUESTS = "warn_early", 600

# Twelve features of each airport and carrier in the place of six, and two of the plane's last flight in that of one.
_EDITS = {
    'agg.mean("arr_delay", over=["6h", "24h", "7d"])': 'agg.mean("arr_delay", over=["1h", "6h", "24h", "7d"])',
    'agg.share("arr_delay > 15", over=["6h", "24h"])':
        'agg.share("arr_delay > 15", over=["1h", "6h", "24h", "7d"]), agg.max("arr_delay", over="6h")',
    'agg.count(over="6h")': 'agg.count(over=["1h", "6h", "24h"])',
    '[latest("arr_delay", max_age="24h")]': '[latest("arr_delay", "distance", max_age="24h")]',
}  # fmt: skip


def make(folder: Path) -> None:
    """Ingest, train, approve, build and deploy; write the requests, and the rows that the model reads of them."""
    Project.write_template(folder)
    definitions = folder / "definitions.py"
    text = definitions.read_text()
    for old, new in _EDITS.items():
        assert old in text, old
        text = text.replace(old, new)
    definitions.write_text(text)
    month = LIVE_MONTHS[0]
    deliveries = Deliveries(nycflights.prepare(nycflights.read_files()))
    with Project(folder, clock=SimulatedClock(month.start), actor="ana") as project:
        for table in ("flights", "weather", "planes"):
            project.data.ingest(table, deliveries.rows(table, None, month.start))
        assert project.features.verify().ok
        version = project.train("late_arrival").version
        assert version is not None
        with Project(folder, clock=SimulatedClock(month.start), actor="ben") as other:
            other.models.approve(version.ref, reason="for a measurement")
        project.features.build()
        project.deploy(POLICY, model=version.ref, reason="for a measurement")
        model = ModelArtifact.load(project.workspace.objects, version.artifact)
        assert len(model.inputs) == 36, len(model.inputs)
        cases = deliveries.requests(month, 1.0)[:REQUESTS]
        rows = []
        for at, case in cases:
            row = project.decide(POLICY, **case["entities"], **case["context"], at=at).record.features
            rows.append([None if x != x else x for x in model.inputs.encode_row(row).tolist()])
    asked = [{"at": format_time(at), "body": case} for at, case in cases]
    (folder / "requests.json").write_text(json.dumps(asked))
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "model.txt").write_text(model.engine.text)  # type: ignore[attr-defined]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
