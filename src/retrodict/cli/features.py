"""``features``: list them, build their online state, verify it, and keep it current."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import count, facts, short_hash, table
from retrodict.cli._types import complete, model_names, policies

if TYPE_CHECKING:
    from retrodict.features.verify import Report
    from retrodict.project import Project

_SHOWN_MISMATCHES = 100

features = group(cli, "features", "List features, build and verify their online state.")


@command(features, "list", examples=["retrodict features list"])
def list_all(session: Session) -> Answer:
    """List the defined views and derived functions with what they read."""
    from retrodict.features.definitions import FeatureView
    from retrodict.features.derived import Derived

    rows: list[dict[str, Any]] = []
    for view in session.project.definitions.of(FeatureView):
        columns = [f"{view.name}__{name}" for name in view.feature_names]
        rows.append({"name": view.name, "kind": "view", "version": view.version, "entity": view.entity.name,
                     "reads": list(view.request_keys), "source": view.source.name, "features": columns})  # fmt: skip
    for function in session.project.definitions.of(Derived):
        columns = [f"{function.name}__{output}" for output in function.outputs]
        rows.append({"name": function.name, "kind": "derived", "version": function.version, "entity": None,
                     "reads": list(function.inputs), "source": None, "features": columns})  # fmt: skip
    shown = [
        (r["name"], r["kind"], short_hash(r["version"]), r["reads"], r["source"], len(r["features"])) for r in rows
    ]
    names = [(row["name"] if first else "", name) for row in rows for first, name in _marked(row["features"])]
    listed = table(("name", "kind", "version", "reads", "source", "features>"), shown)
    return Answer({"features": rows}, [listed, "", table(("", "feature"), names)])


def _marked(names: list[str]) -> list[tuple[bool, str]]:
    return [(place == 0, name) for place, name in enumerate(names)]


@command(features, "build", examples=["retrodict features build"])
def build(session: Session) -> Answer:
    """Fill the online state of all models from the newest table versions.

    Doing it again changes nothing: every event is recognised.
    """
    from dataclasses import asdict

    from retrodict.serving.upkeep import build_online

    with session.progress("build") as progress:
        done = build_online(session.project, progress=progress)
    columns = ("source", "events>", "stored>", "known before>", "too old>", "never visible>")
    rows = [(name, d.events, d.stored, d.duplicates, d.too_old, d.never_visible) for name, d in done.items()]
    shown: Any = table(columns, rows) if rows else "No model is defined: there is nothing to build."
    return Answer({"sources": {name: asdict(applied) for name, applied in done.items()}}, shown)


@command(features, "verify", examples=["retrodict features verify", "retrodict features verify --decisions warn_early"])
@click.argument("model", required=False, shell_complete=complete(model_names))
@click.option("--samples", type=click.IntRange(1), default=50, show_default=True, metavar="N",
              help="Random requests, and as many on the edges of each view.")  # fmt: skip
@click.option("--decisions", "policy", metavar="POLICY", shell_complete=complete(policies),
              help="Also recompute every feature value of this policy's logged decisions.")  # fmt: skip
def verify_all(session: Session, model: str | None, samples: int, policy: str | None) -> Answer:
    """Prove that training, serving and a naive oracle see the same values.

    Exit code 1 if one value differs, or if there was nothing to compare.
    """
    project = session.project
    found: dict[str, Any] = {}
    with session.progress("verify"):
        for name in [model] if model is not None else model_names(project):
            found[name] = _verified(_verify_model(project, name, samples))
        logged = None if policy is None else _verify_log(project, policy)
    columns = ("model", "verdict", "requests>", "values compared>", "differ>", "beyond the online horizon>")
    rows = [(n, f["verdict"], f["requests"], f["compared"], f["differing"], f["skipped"]) for n, f in found.items()]
    parts: list[Any] = [table(columns, rows) if rows else "No model is defined: there is nothing to verify."]
    worst = [
        (m["feature"], m["at"], *map(str, m["values"].values())) for f in found.values() for m in f["mismatches"][:5]
    ]
    if worst:
        parts += ["", table(("feature that differs", "at", "values"), [(*w[:2], ", ".join(w[2:])) for w in worst])]
    if logged is not None:
        said = {"decisions": logged["decisions"], "values": logged["values"], "mismatches": logged["mismatches"]}
        parts += ["", facts(said, title=f"logged decisions of {policy}")]
    equal = all(each["verdict"] == "equal" for each in found.values()) and not (logged and logged["mismatches"])
    return Answer({"models": found, "decisions": logged}, parts, ok=bool(found) and equal)


def _verify_model(project: Project, name: str, samples: int) -> Report:
    from retrodict.features.online import OnlineFeatures
    from retrodict.features.plan import FeatureSet
    from retrodict.features.verify import verify
    from retrodict.learning.frame import AT, newest_versions, read_spine
    from retrodict.models.definitions import Model

    model = project.definitions.get(Model, name)
    wanted = FeatureSet(model.features)
    read = {each: project.tables.read(each, v) for each, v in newest_versions(project.tables, model).items()}
    spine = read_spine(read[model.label.table.name], model, wanted)
    sources = {each: read[source.table.name] for each, source in wanted.sources.items()}
    return verify(wanted, sources, spine, AT, online=OnlineFeatures(wanted, project.keys), samples=samples)


def _verified(report: Report) -> dict[str, Any]:
    from retrodict.core.clock import format_time

    shown = [
        {"feature": m.feature, "at": format_time(m.at), "values": m.values}
        for m in report.mismatches[:_SHOWN_MISMATCHES]
    ]
    return {"verdict": report.verdict, "requests": report.probes, "compared": report.checked, "skipped": report.skipped,
            "differing": len(report.mismatches), "mismatches": shown}  # fmt: skip


def _verify_log(project: Project, policy: str) -> dict[str, Any]:
    from retrodict.serving.parity import check_parity

    return check_parity(project, policy).to_dict()


@command(
    features,
    "stream",
    examples=["retrodict features stream", "retrodict features stream --once"],
    log_level=logging.INFO,
)
@click.option("--parent", type=int, metavar="PID", help="End when this process has ended.")
@click.option("--once", is_flag=True, help="Apply what is in the streams now, and end.")
def stream(session: Session, parent: int | None, once: bool) -> Answer:
    """Keep the online state of what is deployed current, until Ctrl-C.

    Applies the events of the streams as they arrive, and follows every change of a deployment. `serve` starts one.
    """
    from retrodict.cli._consumer import consume

    lags = consume(session.project, parent=parent, once=once)
    rows = [(source, each["offset"], each["lag"]) for source, each in lags.items()]
    shown: Any = (
        table(("source", "applied>", "behind>"), rows) if rows else "Nothing is deployed: no state to keep current."
    )
    total = sum(each["lag"] for each in lags.values())
    return Answer(
        {"sources": lags, "lag": total}, [shown, f"\n{count(total)} events behind." if rows and total else None]
    )
