"""``features plan`` and ``features status``: what an edit would cost, and how fresh what serves is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._features import defined_features
from retrodict.cli._text import count, number, short_hash, table
from retrodict.cli.features import features

if TYPE_CHECKING:
    from retrodict.decisions.records import DecisionRecord
    from retrodict.features.catalogue.changes import Change
    from retrodict.features.definitions import FeatureView
    from retrodict.features.derived import Derived
    from retrodict.features.plan import FeatureSet, ViewPlan
    from retrodict.workspace import Workspace

_RECENT = 1_000  # decisions of each log stream that null rates and unseen keys are taken from


@command(features, "plan", examples=["retrodict features plan", "retrodict features plan --json"])
def plan_changes(session: Session) -> Answer:
    """Show how the defined features differ from what is deployed, and what that costs.

    Changes nothing. Exit code 1 if a view that a deciding model reads was changed without a new name, or if a table
    lacks what a view reads. Models in force keep the code they were trained with: old and new serve side by side.
    """
    from retrodict.cli._heat import said_of, slow_features
    from retrodict.features.catalogue.changes import compare
    from retrodict.registry.feature_sets import readers_in_force

    project = session.project.workspace
    defined = defined_features(project)
    problems = _schema_problems(project, defined)
    changes = compare(defined, readers_in_force(project), _rows(project, defined))
    differing = [change for change in changes if change.status != "same"]
    refused = [change.name for change in changes if change.refused]
    parts: list[Any] = [_changes_table(changes) if changes else "No feature is defined yet."]
    for change in differing:
        if change.differences:
            rows = [(each.field, each.before, each.after) for each in change.differences]
            parts += ["", table(("field", "deployed", "defined"), rows, title=f"{change.name} differs")]
    if changes and not differing:
        parts += ["", "Everything that is deployed is as it is defined."]
    for change in changes:
        if change.refused:
            said = f"REFUSED: {change.name} was changed while {', '.join(change.readers)} reads it."
            parts += ["", f"{said} Give the new view a name of its own, or go back to the deployed definition."]
    parts += [f"\nPROBLEM: {problem}" for problem in problems]
    slow = slow_features(project, defined)
    parts += said_of(slow)
    data = {"changes": [change.to_dict() for change in changes], "refused": refused, "problems": problems,
            "slow": [each.to_dict() for each in slow]}  # fmt: skip
    return Answer(data, parts, passed=not refused and not problems)


def _changes_table(changes: Iterable[Change]) -> Any:
    rows = [
        (c.name, c.kind, c.status, short_hash(c.version), [short_hash(version) for version in c.deployed], c.readers,
         f"yes, from {count(c.rows)} rows of {c.table}" if c.rebuild else "no")
        for c in changes
    ]  # fmt: skip
    columns = ("name", "kind", "status", "defined", "deployed", "models that read another", "fill online state")
    return table(columns, rows)


def _rows(project: Workspace, defined: Iterable[FeatureView | Derived]) -> dict[str, int]:
    from retrodict.features.definitions import FeatureView

    names = {each.source.table.name for each in defined if isinstance(each, FeatureView)}
    known = [name for name in names if project.tables.history(name)]
    return {name: sum(file.rows for file in project.tables.files(name)) for name in known}


def _schema_problems(project: Workspace, defined: Iterable[FeatureView | Derived]) -> list[str]:
    from retrodict.core.errors import DefinitionError
    from retrodict.features.catalogue import check_schema
    from retrodict.features.definitions import FeatureView
    from retrodict.features.plan import ViewPlan

    found = []
    for view in defined:
        if isinstance(view, FeatureView) and project.tables.history(view.source.table.name):
            try:
                check_schema(ViewPlan(view), project.tables.schema(view.source.table.name))
            except DefinitionError as error:
                found.append(str(error))
    return found


@command(features, "status", examples=["retrodict features status", "retrodict features status --json"])
def status(session: Session) -> Answer:
    """Show how each view serves: verified, lag, staleness, state size, nulls, unseen keys.

    Of every version that a model in force or a defined model reads. Null rates are those of recent decisions; unseen
    keys are the share of their keys that online state holds no events of.
    """
    project = session.project.workspace
    rows = _statuses(project)
    if not rows:
        return Answer({"views": []}, "No model is defined: no view serves.")
    shown = [
        (r["view"], short_hash(r["version"]), r["read_by"], r["verified"], r["lag"], _ago(r["staleness_s"]),
         r["entities"], _size(r["bytes"]), number(r["null_rate"]), number(r["unseen_keys"]))
        for r in rows
    ]  # fmt: skip
    columns = ("view", "version", "read by", "verified", "lag>", "newest fact>", "entities>", "state>", "null rate>",
               "unseen keys>")  # fmt: skip
    return Answer({"views": rows}, table(columns, shown))


def _statuses(project: Workspace) -> list[dict[str, Any]]:
    from retrodict.features.online import Upkeep
    from retrodict.features.verify.verdicts import last_verdict
    from retrodict.registry.feature_sets import served_feature_sets

    now, lags = project.clock.now(), Upkeep(project, served_feature_sets).lags()
    decided = _recent(project)
    nulls = _null_rates(decided)
    rows: list[dict[str, Any]] = []
    for features_, readers in _served(project):
        for plan in features_.views:
            known = next((row for row in rows if row["version"] == plan.view.version), None)
            if known is not None:
                known["read_by"] += [reader for reader in readers if reader not in known["read_by"]]
                continue
            verdict = last_verdict(project, plan.view)
            flow = lags.get(plan.source.name)
            rows.append({
                "view": plan.name, "version": plan.view.version, "read_by": list(readers), "source": plan.source.name,
                "verified": None if verdict is None else verdict.passed,
                "offset": None if flow is None else flow["offset"], "lag": None if flow is None else flow["lag"],
                **_state(project, plan, now, decided), **nulls.get(plan.name, {"null_rate": None, "decisions": 0}),
            })  # fmt: skip
    return rows


def _served(project: Workspace) -> list[tuple[FeatureSet, list[str]]]:
    """Feature sets of models in force and of defined models, with who reads each."""
    from retrodict.features.plan import FeatureSet
    from retrodict.models.definitions import Model
    from retrodict.registry.feature_sets import readers_in_force

    found = [(reader.features, [reader.model]) for reader in readers_in_force(project)]
    return found + [(FeatureSet(model.features), [model.name]) for model in project.definitions.of(Model)]


def _state(project: Workspace, plan: ViewPlan, now: int, decided: Sequence[DecisionRecord]) -> dict[str, Any]:
    """What the online state of a view says of itself; every entry of it is read."""
    from retrodict.core.clock import format_time
    from retrodict.features.online import online_state
    from retrodict.features.plan import FeatureSet

    state = online_state(project, FeatureSet([plan.view]))
    (health,) = state.health()
    asked = {tuple(record.entities.get(key) for key in plan.request_keys) for record in decided}
    asked = {key for key in asked if None not in key}
    return {
        "unseen_keys": state.unseen(plan, list(asked)) / len(asked) if asked else None,
        "watermark": None if health.watermark is None else format_time(health.watermark),
        "staleness_s": None if health.watermark is None else (now - health.watermark) / 1e6,
        "answers_from": None if health.floor is None else format_time(health.floor),
        "entities": health.entities,
        "bytes": health.bytes,
        "stored": health.stored,
        "duplicates": health.duplicates,
        "too_old": health.too_old,
    }


def _recent(project: Workspace) -> list[DecisionRecord]:
    """Newest decisions of every log stream."""
    from retrodict.decisions.log import STREAM_PREFIX
    from retrodict.decisions.records import decode_record

    found = []
    for stream in project.streams.names(STREAM_PREFIX):
        start = max(0, project.streams.end(stream) - _RECENT)
        found += [decode_record(data) for _, data in islice(project.streams.read(stream, start), _RECENT)]
    return found


def _null_rates(decided: Sequence[DecisionRecord]) -> dict[str, dict[str, Any]]:
    """By view: share of null values among decisions, and how many were looked at."""
    asked: dict[str, list[int]] = {}
    for record in decided:
        seen: set[str] = set()
        for name, value in record.features.items():
            view = name.partition("__")[0]
            sums = asked.setdefault(view, [0, 0, 0])
            sums[0] += value is None
            sums[1] += 1
            sums[2] += view not in seen
            seen.add(view)
    return {
        view: {"null_rate": nulls / values, "decisions": decisions}
        for view, (nulls, values, decisions) in asked.items()
    }


def _ago(seconds_: float | None) -> str | None:
    if seconds_ is None:
        return None
    if seconds_ < 0:
        return f"in {-seconds_:,.0f} s"
    return f"{seconds_:,.0f} s ago" if seconds_ < 172_800 else f"{seconds_ / 86_400:,.0f} days ago"


def _size(value: int | None) -> str | None:
    return None if value is None else f"{value / 1e6:,.2f} MB"
