"""Lineage of one decision, from the answer back to rows, code, run and approval.

Each step is read from what was kept then; nothing is inferred from what the project looks like now.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import format_time
from retrodict.core.errors import NotFoundError
from retrodict.decisions.facts import read_sources, view_rows
from retrodict.decisions.log import LoggedDecision, find_decision
from retrodict.features.plan import FeatureSet
from retrodict.ledger import prove
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import get_version, history
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Workspace

__all__ = ["trace_decision"]

_SHOWN_KEYS = 3


def trace_decision(workspace: Workspace, ref: str) -> dict[str, Any]:
    """Everything behind one decision.

    Returns
    -------
    dict
        ``decision`` (the answer and its moment), ``log`` (stream, offset, inclusion proof or why there is none yet),
        ``policy`` (revision, who put it in force, why), ``features`` (value, rows it was computed from, table versions
        those rows came with, first keys), ``model``, ``run``, ``data``, ``code``, ``environment``, ``approvals``.
    """
    logged = find_decision(workspace, ref)
    record = logged.record
    revision = next(r for r in history(workspace, record.policy) if r.revision == record.revision)
    trace: dict[str, Any] = {
        "decision": {
            "id": f"decision:{record.id}",
            "time": format_time(record.time),
            **record.answer(),
            "rule": record.rule,
        },
        "log": _log(workspace, logged),
        "policy": {
            "policy": f"policy:{record.policy}#{record.revision}",
            "version": record.policy_version,
            "action": revision.action,
            "by": revision.actor,
            "in_force_since": format_time(revision.time),
            "reason": revision.reason,
        },
    }
    if not record.artifact:
        trace["fallback"] = {"step": record.fallback, "why": record.error}
        return trace
    model = ModelArtifact.load(workspace.objects, record.artifact)
    version = get_version(workspace, record.model)
    trace["features"] = _features(workspace, logged, feature_set_of(workspace, record.model_code, model.name))
    trace["model"] = {
        "model": f"model:{version.ref}",
        "artifact": version.artifact,
        "author": version.author,
        "gates": version.gates,
    }
    made: dict[str, list[str]] = {role: [] for role in ("training data", "code", "environment")}
    for _, role, source in workspace.ledger.upstream(f"run:{version.run}"):
        if role in made:
            made[role].append(source)
    trace["run"] = {"run": f"run:{version.run}"}
    trace["data"], trace["code"], trace["environment"] = made["training data"], made["code"], made["environment"]
    trace["approvals"] = [{**asdict(approval), "time": format_time(approval.time)} for approval in version.approvals]
    return trace


def _log(workspace: Workspace, logged: LoggedDecision) -> dict[str, Any]:
    place: dict[str, Any] = {"stream": logged.stream, "offset": logged.offset}
    try:
        proof = prove(workspace.ledger, workspace.streams, logged.stream, logged.offset)
    except NotFoundError:
        return {**place, "sealed": False}
    return {
        **place,
        "sealed": True,
        "ledger_entry": proof.sequence,
        "leaf": proof.index,
        "of": proof.size,
        "root": proof.root,
    }


def _features(workspace: Workspace, logged: LoggedDecision, features: FeatureSet) -> list[dict[str, Any]]:
    record = logged.record
    versions = {
        source.table.name: workspace.tables.history(source.table.name)[-1].version
        for source in features.sources.values()
    }
    sources = read_sources(workspace, features, versions, record.entities)
    by_batch = {entry.payload["batch"]: entry.object_id for entry in workspace.ledger.entries(action="dataset.version")}
    listed = []
    for view in features.views:
        rows_of = view_rows(view, sources[view.source.name], record.entities, record.time)
        for output in view.outputs:
            rows = rows_of[output.column]
            listed.append(
                {
                    "feature": output.column,
                    "value": record.features.get(output.column),
                    "view": f"view:{view.name}@{view.view.version}",
                    "rows": rows.num_rows,
                    "from": _datasets(rows, by_batch),
                    "keys": _keys(rows, view.source.table),
                }
            )
    for function in features.derived:
        for produced in function.outputs:
            name = f"{function.name}__{produced}"
            listed.append(
                {
                    "feature": name,
                    "value": record.features.get(name),
                    "derived": f"derived:{function.name}@{function.version}",
                    "inputs": list(function.inputs),
                }
            )
    return listed


def _datasets(rows: pa.Table, by_batch: dict[str, str]) -> list[str]:
    return sorted({by_batch.get(batch, f"batch:{batch}") for batch in pc.unique(rows.column("_batch")).to_pylist()})


def _keys(rows: pa.Table, table: Any) -> list[str]:
    """Keys of the newest rows, for a person to look up."""
    names = [name for name in getattr(table, "key", ()) if name in rows.column_names]
    last = rows.select(names).slice(max(0, rows.num_rows - _SHOWN_KEYS)).to_pylist()
    return [" ".join(str(value) for value in row.values()) for row in last]
