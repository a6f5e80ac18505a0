"""Lineage for other tools: flowcharts that Mermaid draws, run events that OpenLineage takes."""

import json
import re

import jsonschema
import pytest

from retrodict import Project
from retrodict.core.errors import InputError
from retrodict.decisions.lineage import ObjectLineage
from retrodict.decisions.lineage_graph import lineage_graph

URI = {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*:\S+$"}
# What https://openlineage.io/spec/2-0-2/OpenLineage.json asks of a run event, in our words.
BASE = {"_producer": URI, "_schemaURL": URI}
FACETS = {"additionalProperties": {"type": "object", "required": [*BASE], "properties": BASE}}
DATASETS = {"type": "array", "items": {
    "type": "object", "required": ["namespace", "name"], "additionalProperties": False,
    "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS}}}  # fmt: skip
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "additionalProperties": False,
    "properties": {
        "eventTime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "producer": URI,
        "schemaURL": {**URI, "const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {"type": "object", "required": ["runId"], "properties": {
            "runId": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}, "facets": FACETS}},
        "job": {"type": "object", "required": ["namespace", "name"], "properties": {"facets": FACETS}},
        "inputs": DATASETS, "outputs": DATASETS,
    },
}  # fmt: skip


def events_of(project: Project, ref: str) -> list[dict]:
    """Events as the lines of the text say them, each checked."""
    events = [json.loads(line) for line in str(project.lineage(ref, format="openlineage")).splitlines()]
    for event in events:
        jsonschema.validate(event, RUN_EVENT)
    return events


def named(datasets: list[dict]) -> set[str]:
    """Names with their versions."""
    return {"@".join([d["name"], d["facets"].get("version", {}).get("datasetVersion", "")]) for d in datasets}


def test_every_run_begins_and_ends_once_with_what_it_read_and_made(p: Project) -> None:
    """A training's inputs are its table versions, code and environment; its output is the version it registered."""
    model = p.models.list()[0]
    events = events_of(p, f"model:{model.ref}")
    kinds: dict[str, list[str]] = {}
    for event in events:
        kinds.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert kinds
    assert all(kind == ["START", "COMPLETE"] for kind in kinds.values())
    end = next(event for event in events if event["job"]["name"].startswith("train.") and event["outputs"])
    assert named(end["outputs"]) == {f"model:{model.ref}"}
    sources = p.lineage(f"run:{model.run}").made_from
    assert named(end["inputs"]) == {
        source.replace(":", "@") if source.startswith(("code:", "environment:")) else source
        for target, _, source in sources if target == f"run:{model.run}"
    }  # fmt: skip
    assert [event["eventTime"] for event in events] == sorted(event["eventTime"] for event in events)


def test_a_decision_names_the_revision_and_version_that_made_it(p: Project) -> None:
    """And goes on to the run, the tables and the code behind them."""
    decision = p.decide("promise", depot="north", weight=10.0, express=False, sent="2024-02-20T00:00Z")
    p.close()
    with Project(p.folder, actor="ana") as again:
        events = events_of(again, decision.ref)
        last = [event for event in events if event["job"]["name"] == "decision.record"]
        assert [event["eventType"] for event in last] == ["START", "COMPLETE"]
        assert {name.partition(":")[0] for name in named(last[1]["inputs"])} >= {"policy", "model", "view"}
        assert any(event["job"]["name"].startswith("train.") for event in events)
        text = str(again.lineage(decision.ref, format="mermaid"))
    assert decision.ref in text


def test_a_flowchart_has_every_edge_once_between_boxes_that_it_names(p: Project) -> None:
    """From sources to what was made of them; a box for every name, none without one."""
    model = p.models.list()[0]
    lineage = p.lineage(f"model:{model.ref}")
    lines = str(p.lineage(f"model:{model.ref}", format="mermaid")).splitlines()
    assert lines[0] == "flowchart LR"
    boxes = dict(match.groups() for line in lines if (match := re.fullmatch(r'  (n\d+)\["(.*)"\]', line)))
    arrows = [match.groups() for line in lines if (match := re.fullmatch(r'  (n\d+) -->\|"(.*)"\| (n\d+)', line))]
    edges = {*lineage.made_from, *lineage.used_by}
    assert len(arrows) == len(set(arrows)) == len(edges)
    assert len(set(boxes.values())) == len(boxes) == len({name for edge in edges for name in (edge[0], edge[2])})
    assert all(source in boxes and target in boxes for source, _, target in arrows)
    assert sorted(role for _, role, _ in edges) == sorted(role for _, role, _ in arrows)


def test_a_failed_run_fails_and_an_edge_that_is_behind_and_ahead_is_drawn_once(p: Project) -> None:
    """Two paths may name one edge: it is one arrow, and one output."""
    with p.workspace.ledger.transaction() as tx:
        tx.append("run.start", "run:x", {"kind": "train", "model": "m"}, actor="ana")
        tx.append("run.finish", "run:x", {"kind": "train", "model": "m", "status": "failed"}, actor="ana")
    edge = ("run:x", "data", "dataset:parcels@1")
    graph = lineage_graph(p.workspace, ObjectLineage("run:x", [edge, edge], [edge]), "openlineage")
    assert graph.edges == [edge]
    assert [event["eventType"] for event in graph.events()] == ["START", "FAIL"]


def test_a_format_that_does_not_exist_is_refused_with_those_that_do(p: Project) -> None:
    """Before anything is read."""
    with pytest.raises(InputError, match=r"known format.*mermaid"):
        p.lineage("model:late@1", format="mermeid")
