"""``features list, show, build, stream``: what there is, and the online state that serves it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._features import defined_features, feature_names, find_feature, models_reading
from retrodict.cli._root import cli
from retrodict.cli._text import count, facts, short_hash, table, when
from retrodict.cli._types import complete

if TYPE_CHECKING:
    from retrodict.features.definitions import FeatureView
    from retrodict.features.derived import Derived
    from retrodict.features.plan import FeatureSet
    from retrodict.workspace import Workspace

features = group(cli, "features", "Features: what they read, that they are right, their values, their online state.")


@command(features, "list", examples=["retrodict features list", "retrodict features list --search 'delay 24h'",
                                     "retrodict features list --owner ops --tag weather"])  # fmt: skip
@click.option("--search", metavar="TEXT", help="Words that all occur: names, description, tags, source, columns.")
@click.option("--owner", help="Only views of this owner.")
@click.option("--tag", help="Only views with this tag.")
def list_all(session: Session, search: str | None, owner: str | None, tag: str | None) -> Answer:
    """List the defined views and derived functions with what they read."""
    from retrodict.features import catalogue

    every = defined_features(session.project.workspace)
    found = catalogue.search(every, search, owner=owner, tag=tag)
    rows = [_listed(session.project.workspace, each) for each in found]
    shown = [
        (r["name"], r["kind"], short_hash(r["version"]), r["reads"], r["source"], len(r["features"]), r["owner"])
        for r in rows
    ]
    if not rows:
        text = "Nothing fits." if every else "No view is defined yet."
        return Answer({"features": []}, text)
    names = [(row["name"] if place == 0 else "", name) for row in rows for place, name in enumerate(row["features"])]
    listed = table(("name", "kind", "version", "reads", "source", "features>", "owner"), shown)
    return Answer({"features": rows}, [listed, "", table(("", "feature"), names)])


def _listed(project: Workspace, each: FeatureView | Derived) -> dict[str, Any]:
    from retrodict.features.derived import Derived
    from retrodict.features.plan import column_name

    models = models_reading(project, each.name)
    if isinstance(each, Derived):
        columns = [column_name(each.name, output) for output in each.outputs]
        return {"name": each.name, "kind": "derived", "version": each.version, "entity": None,
                "reads": list(each.inputs), "source": None, "features": columns, "owner": None, "tags": [],
                "description": None, "models": models}  # fmt: skip
    columns = [column_name(each.name, name) for name in each.feature_names]
    return {"name": each.name, "kind": "view", "version": each.version, "entity": each.entity.name,
            "reads": list(each.request_keys), "source": each.source.name, "features": columns,
            "owner": each.owner or None, "tags": list(each.tags), "description": each.description or None,
            "models": models}  # fmt: skip


@command(features, "show", examples=["retrodict features show origin_delays",
                                     "retrodict features show origin_delays.count_6h"])  # fmt: skip
@click.argument("name", metavar="VIEW[.FEATURE]", shell_complete=complete(feature_names))
def show(session: Session, name: str) -> Answer:
    """Show a view or one of its features: definition, version, columns read, models, verdict."""
    from retrodict.features.derived import Derived

    project = session.project.workspace
    view, _, feature = name.partition("." if "." in name else "__")
    found = find_feature(project, view)
    told = _listed(project, found)
    if isinstance(found, Derived):
        return _show_derived(project, found, told)
    return _show_view(project, found, feature or None, told)


def _show_view(project: Workspace, view: FeatureView, feature: str | None, told: dict[str, Any]) -> Answer:
    from retrodict.cli._heat import said_of, slow_features
    from retrodict.core.clock import format_time
    from retrodict.features.catalogue import describe, lineage
    from retrodict.features.verify.verdicts import last_verdict

    uses = lineage(view, feature)
    shown = [each for each in describe(view) if feature in (None, each.name)]
    verdict, source = last_verdict(project, view), view.source
    slow = [each for each in slow_features(project, [view]) if feature in (None, each.feature)]
    verified = None
    if verdict is not None:
        verified = {"passed": verdict.passed, "time": format_time(verdict.time), "by": verdict.actor, **verdict.facts}
    data = {
        **told,
        "features": [{"name": each.name, "column": f"{view.name}__{each.name}", **each.fields} for each in shown],
        "keys": list(view.entity.keys),
        "table": source.table.name,
        "event_time": source.event_time,
        "known_at": source.known_at,
        "delay": source.delay,
        "columns": [{"column": f"{source.table.name}.{use.column}", "roles": list(use.roles)} for use in uses],
        "verified": verified,
        "slow": [each.to_dict() for each in slow],
    }
    head = facts({
        "view": view.name, "version": short_hash(view.version), "owner": view.owner or None, "tags": view.tags or None,
        "about": view.description or None, "entity": view.entity.name, "asked by": list(view.request_keys),
        "source": f"{source.name}, rows of {source.table.name}", "known": _known(view),
        "read by models": told["models"], "verified": _verified(verdict),
    })  # fmt: skip
    listed = table(("feature", "is"), [(each.name, str(each)) for each in shown])
    read = table(("reads column", "as"), [(f"{source.table.name}.{use.column}", use.roles) for use in uses])
    return Answer(data, [head, "", listed, "", read, *said_of(slow)])


def _known(view: FeatureView) -> str:
    source = view.source
    if source.timeless:
        return "always: its facts have no time"
    if source.known_at is not None:
        return f"from {source.known_at} on"
    return f"{source.delay} after {source.event_time}" if source.delay else f"from {source.event_time} on"


def _verified(verdict: Any) -> str:
    if verdict is None:
        return "no, never as it is now"
    said = f"{count(verdict.facts['probes'])} requests, {when(verdict.time)}, by {verdict.actor}"
    if verdict.passed:
        return f"yes: {said}"
    return f"NO: {count(verdict.facts['mismatches'])} values differ; {said}"


def _show_derived(project: Workspace, function: Derived, told: dict[str, Any]) -> Answer:
    """Inputs that are features are followed to the columns behind them; the others come with the request."""
    from retrodict.features.catalogue import lineage
    from retrodict.features.definitions import FeatureView

    known = {each.name: each for each in defined_features(project)}
    columns: list[dict[str, Any]] = []
    for name in function.inputs:
        view, joined, feature = name.partition("__")
        behind = known.get(view) if joined else None
        if isinstance(behind, FeatureView):
            table_name = behind.source.table.name
            reads = [f"{table_name}.{use.column}" for use in lineage(behind, feature)]
        else:
            reads = [] if behind is None else list(behind.inputs)
        columns.append({"input": name, "from": "request" if behind is None else view, "columns": reads})
    head = facts({"derived": function.name, "version": short_hash(function.version), "outputs": list(function.outputs),
                  "read by models": told["models"]})  # fmt: skip
    rows = [(each["input"], each["from"], each["columns"]) for each in columns]
    return Answer({**told, "inputs": columns}, [head, "", table(("input", "from", "columns"), rows)])


def _defined_sets(project: Workspace) -> list[FeatureSet]:
    """Feature sets of the defined models."""
    from retrodict.features.plan import FeatureSet
    from retrodict.models.definitions import Model

    return [FeatureSet(model.features) for model in project.definitions.of(Model)]


@command(features, "build", examples=["retrodict features build"])
def build(session: Session) -> Answer:
    """Fill the online state of all models from the newest table versions.

    Doing it again changes nothing: every event is recognised.
    """
    from dataclasses import asdict

    from retrodict.cli._heat import said_of, slow_features
    from retrodict.features.online import build_online

    with session.progress("build") as progress:
        done = build_online(session.project.workspace, _defined_sets(session.project.workspace), progress=progress)
    columns = ("source", "events>", "stored>", "known before>", "too old>", "never visible>")
    rows = [(name, d.events, d.stored, d.duplicates, d.too_old, d.never_visible) for name, d in done.items()]
    shown: Any = table(columns, rows) if rows else "No model is defined: there is nothing to build."
    slow = slow_features(session.project.workspace, defined_features(session.project.workspace)) if rows else []
    sources = {name: asdict(applied) for name, applied in done.items()}
    return Answer({"sources": sources, "slow": [each.to_dict() for each in slow]}, [shown, *said_of(slow)])


@command(
    features,
    "stream",
    examples=[
        "retrodict features stream",
        "retrodict features stream --once",
        "retrodict features stream --processes 4",
        "retrodict features stream --partition 2 --partition 3",
    ],
    log_level=logging.INFO,
)
@click.option("--parent", type=int, metavar="PID", help="End when this process has ended.")
@click.option("--once", is_flag=True, help="Apply what is in the streams now, and end.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Share the partitions among so many processes.")
@click.option("--partition", "own", type=click.IntRange(0), metavar="I", multiple=True,
              help="Feed only this partition; may be repeated.  [default: all]")  # fmt: skip
def stream(session: Session, *, parent: int | None, once: bool, processes: int | None, own: tuple[int, ...]) -> Answer:
    """Keep the online state of what is deployed current, until Ctrl-C.

    Applies the events of the streams as they arrive, and follows every change of a deployment. `serve` starts one.
    State that is cut into partitions (features.partitions) can be fed by several processes, here or on many machines.
    """
    from retrodict.serving.consumer import consume

    lags = consume(session.project.workspace, parent=parent, once=once, partitions=own or None, processes=processes)
    rows = [(source, each["offset"], each["lag"]) for source, each in lags.items()]
    shown: Any = (
        table(("source", "applied>", "behind>"), rows) if rows else "Nothing is deployed: no state to keep current."
    )
    total = sum(each["lag"] for each in lags.values())
    return Answer(
        {"sources": lags, "lag": total}, [shown, f"\n{count(total)} events behind." if rows and total else None]
    )
