"""Lineage of one decision, from the answer back to rows, code, run and approval, and of any object of the ledger.

Each step is read from what was recorded then; nothing is inferred from the present definitions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Grid, Shown, Tree, count, number, shorten, yes
from retrodict.core.errors import IntegrityError, NotFoundError, near
from retrodict.core.identity import Ref
from retrodict.decisions.facts import BATCH, read_facts, view_rows
from retrodict.decisions.log import LoggedDecision, find_decision
from retrodict.features.online import stream_of
from retrodict.features.plan import FeatureSet
from retrodict.ledger import prove
from retrodict.ledger.proofs import check_entries
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import current, get_version, history
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Workspace

__all__ = ["DecisionLineage", "ObjectLineage", "trace_decision", "trace_object"]

_SHOWN_KEYS = 3


def trace_decision(workspace: Workspace, ref: str) -> dict[str, Any]:
    """Everything behind one decision.

    Returns
    -------
    dict
        ``decision`` (the answer and its moment), ``log`` (stream, offset, inclusion proof or why there is none yet),
        ``policy`` (revision, who put it in force, why), ``features`` (value, rows it was computed from, table versions
        those rows came with, first keys), ``model``, ``run``, ``data``, ``code``, ``environment``, ``approvals``,
        ``ledger`` (the entries that this stands on, and whether they hold).
    """
    logged = find_decision(workspace, ref)
    record = logged.record
    revision = next((r for r in history(workspace, record.policy) if r.revision == record.revision), None)
    if revision is None:
        raise IntegrityError("the revision that decided must be in the records",
                             where=f"policy:{record.policy}#{record.revision}", got="none",
                             remedy="See 'retrodict audit verify'")  # fmt: skip
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
        return _proved(workspace, trace, {trace["policy"]["policy"]})
    model = ModelArtifact.load(workspace.objects, record.artifact)
    version = get_version(workspace, record.model)
    features = feature_set_of(workspace, record.model_code, model.name, model.inputs.names)
    trace["features"] = _features(workspace, logged, features)
    trace["model"] = {
        "model": f"model:{version.ref}",
        "artifact": version.artifact,
        "author": version.author,
        "gates": version.gates,
    }
    sources: dict[str, list[str]] = {role: [] for role in ("training data", "code", "environment")}
    for _, role, source in workspace.ledger.upstream(f"run:{version.run}"):
        if role in sources:
            sources[role].append(source)
    trace["run"] = {"run": f"run:{version.run}"}
    trace["data"], trace["code"] = sources["training data"], sources["code"]
    trace["environment"] = sources["environment"]
    trace["approvals"] = [{**asdict(approval), "time": format_time(approval.time)} for approval in version.approvals]
    datasets = {source for feature in trace["features"] for source in feature.get("from", ())}
    names = {trace["policy"]["policy"], f"model:{version.ref}", f"run:{version.run}", *datasets, *trace["data"]}
    return _proved(workspace, trace, names)


def _proved(workspace: Workspace, trace: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The trace, with whether the entries that it stands on lead to the signed root and rows are what they say."""
    sequences, reason = check_entries(workspace.ledger, names)
    return trace | {"ledger": {"entries": sequences, "holds": not reason, "reason": reason or None}}


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
    facts = read_facts(workspace, features, record)
    by_batch = {entry.payload["batch"]: entry.object_id for entry in workspace.ledger.entries(action="dataset.version")}
    listed = []
    for view in features.views:
        rows = next(one for one in facts if view.name in one.views).rows[view.source.name]
        rows_of = view_rows(view, rows, record.entities, record.time)
        for output in view.outputs:
            rows = rows_of[output.column]
            listed.append(
                {
                    "feature": output.column,
                    "value": record.features.get(output.column),
                    "view": f"view:{view.name}@{view.view.version}",
                    "rows": rows.num_rows,
                    "from": _datasets(rows, by_batch, stream_of(view.source.table.name)),
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
    listed += [{"feature": name, "value": record.features.get(name), "inputs": [name]} for name in features.own]
    return listed


def _datasets(rows: pa.Table, by_batch: dict[str, str], stream: str) -> list[str]:
    batches = pc.unique(rows.column(BATCH)).to_pylist()
    return sorted({stream if batch is None else by_batch.get(batch, f"batch:{batch}") for batch in batches})


def _keys(rows: pa.Table, table: Any) -> list[str]:
    """Keys of the last rows in the order of the table, for a person to look up."""
    names = [name for name in getattr(table, "key", ()) if name in rows.column_names]
    last = rows.select(names).slice(max(0, rows.num_rows - _SHOWN_KEYS)).to_pylist()
    return [" ".join(str(value) for value in row.values()) for row in last]


@dataclass(frozen=True, slots=True, repr=False)
class ObjectLineage(Shown):
    """Edges of the ledger (target, role, source) around one object, nearest first.

    Attributes
    ----------
    name : str
        Reference with its version.
    made_from, used_by : sequence of edges
        Everything the object was made from, and everything that was made from it.
    """

    name: str
    made_from: Sequence[tuple[str, str, str]]
    used_by: Sequence[tuple[str, str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        names = ("target", "role", "source")
        return {
            "object": self.name,
            "made_from": [dict(zip(names, edge, strict=True)) for edge in self.made_from],
            "used_by": [dict(zip(names, edge, strict=True)) for edge in self.used_by],
        }

    def blocks(self) -> Sequence[Block | None]:
        """Two trees; each object is unfolded once."""
        sources: dict[str, list[tuple[str, str]]] = {}
        for target, role, source in self.made_from:
            sources.setdefault(target, []).append((role, source))
        users: dict[str, list[tuple[str, str]]] = {}
        for target, role, source in self.used_by:
            users.setdefault(source, []).append((role, target))
        name = shorten(self.name)
        trees: list[Block | None] = [
            _grow(f"{name} {title}", self.name, links)
            for title, links in (("was made from", sources), ("was used by", users))
            if links.get(self.name)
        ]
        return trees or [f"{name} was made from nothing that is recorded, and nothing was made from it."]


def trace_object(workspace: Workspace, ref: str) -> ObjectLineage:
    """Lineage of any object of the ledger; where the reference has no version, the newest or the one in force.

    Raises
    ------
    NotFoundError
        If the ledger does not know the object.
    """
    name = _resolve(workspace, Ref.parse(ref))
    lineage = ObjectLineage(name, workspace.ledger.upstream(name), workspace.ledger.downstream(name))
    if not lineage.made_from and not lineage.used_by and not workspace.ledger.entries(object_id=name):
        names = {entry.object_id for entry in workspace.ledger.entries()}
        raise NotFoundError(
            "the ledger must know the object", where="lineage", got=name, remedy=near(name, names, what="object")
        )
    return lineage


def _resolve(workspace: Workspace, ref: Ref) -> str:
    if ref.version is None and "#" not in ref.name:
        if ref.kind == "model":
            return f"model:{get_version(workspace, ref.name).ref}"
        if ref.kind == "dataset" and (versions := workspace.tables.history(ref.name)):
            return f"dataset:{ref.name}@{versions[-1].version}"
        if ref.kind == "policy" and (revision := current(workspace).get(ref.name)):
            return f"policy:{ref.name}#{revision.revision}"
    return str(ref)


def _grow(title: str, start: str, links: Mapping[str, list[tuple[str, str]]]) -> Tree:
    tree, visited = Tree(title), {start}

    def add(branch: Tree, name: str) -> None:
        for role, other in links.get(name, []):
            again = other in visited and other in links
            child = branch.add(f"{shorten(other)} ({role})" + (" …" if again else ""))
            if other not in visited:
                visited.add(other)
                add(child, other)

    add(tree, start)
    return tree


class DecisionLineage(Shown):
    """Everything behind one decision, from the answer down to rows, run and approval.

    Attributes
    ----------
    facts : dict
        What :func:`trace_decision` gives.
    """

    __slots__ = ("facts",)

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def edges(self) -> list[tuple[str, str, str]]:
        """(target, role, source) of what is behind the decision itself; what those were made from is in the ledger."""
        name = self.facts["decision"]["id"]
        links: list[tuple[str, str, str]] = [
            (name, role, self.facts[role][role]) for role in ("policy", "model") if role in self.facts
        ]
        for feature in self.facts.get("features", ()):
            if (view := feature.get("view") or feature.get("derived")) is not None:
                links.append((name, "features", view))
                links += [(view, "rows", source) for source in feature.get("from", ())]
        return links

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return self.facts

    def blocks(self) -> Sequence[Block | None]:
        """One tree."""
        decision = self.facts["decision"]
        outputs = decision.get("outputs") or {"score": decision.get("score")}
        values = [f"{name} {number(value)}" for name, value in outputs.items()]
        answer = ", ".join([decision["decision"], *values] if "decision" in decision else values)
        tree = Tree(f"{decision['id']}: {answer}, at {decision['time']}")
        for reason in decision.get("reasons", ()):
            tree.add(f"because {reason}")
        _hang(tree, "policy", self.facts.get("policy"))
        _hang(tree, "fallback", self.facts.get("fallback"))
        if "features" in self.facts:
            tree.add("features").branches.append(_feature_rows(self.facts["features"]))
        for name in ("model", "run", "data", "code", "environment", "approvals", "log", "ledger"):
            _hang(tree, name, self.facts.get(name))
        return [tree]


def _feature_rows(features: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        (f["feature"], f["value"], f.get("rows"), f.get("from") or f.get("inputs"), f.get("keys")) for f in features
    ]
    return Grid(("feature", "value>", "rows>", "from?", "newest rows?"), rows)


def _hang(branch: Tree, name: str, value: Any) -> None:
    """Hang a nested value under a branch; what is empty is left out."""
    if isinstance(value, Mapping):
        if value:
            child = branch.add(name)
            for key, inner in value.items():
                _hang(child, str(key), inner)
    elif isinstance(value, list | tuple) and all(type(inner) is int for inner in value):
        branch.add(f"{name}: {', '.join(map(str, value))}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _hang(branch, name, " · ".join(_pairs(inner)) if isinstance(inner, Mapping) else inner)
    elif value is not None:
        branch.add(f"{name.replace('_', ' ')}: {_text(value)}")


def _pairs(value: Mapping[str, Any]) -> list[str]:
    return [f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return yes(value)
    if isinstance(value, float):
        return number(value)
    return count(value) if isinstance(value, int) else shorten(str(value))
