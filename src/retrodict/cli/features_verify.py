"""``features verify`` and ``features parity``: that training, serving and a naive oracle see the same values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._features import source_schemas
from retrodict.cli._text import count, facts, table
from retrodict.cli._types import complete, instant, model_names, policies
from retrodict.cli.features import features

if TYPE_CHECKING:
    from retrodict.features.online import OnlineFeatures
    from retrodict.features.plan import FeatureSet
    from retrodict.features.verify import Mismatch, Report
    from retrodict.workspace import Workspace

_KEPT_MISMATCHES, _SHOWN_MISMATCHES = 100, 5


@command(features, "verify", examples=["retrodict features verify", "retrodict features verify late_arrival --seed 7",
                                       "retrodict features verify --decisions warn_early"])  # fmt: skip
@click.argument("model", required=False, shell_complete=complete(model_names))
@click.option("--samples", type=click.IntRange(1), default=50, show_default=True, metavar="N",
              help="Random requests, and as many on the edges of each view.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Which are drawn.")
@click.option("--show-keys", is_flag=True, help="Show the keys of requests that differ, not digests of them.")
@click.option("--decisions", "policy", metavar="POLICY", shell_complete=complete(policies),
              help="Also recompute every feature value of this policy's logged decisions.")  # fmt: skip
def verify_all(
    session: Session, model: str | None, samples: int, seed: int, show_keys: bool, policy: str | None
) -> Answer:
    """Prove that training, serving, the stream and a naive oracle see the same values.

    The ledger keeps the verdict on every view as it is now; without a pass no model that reads it is deployed. Exit
    code 1 if one value differs, or if there was nothing to compare.
    """
    from retrodict.models.definitions import Model

    project = session.project.workspace
    found: dict[str, Any] = {}
    shown: list[Any] = []
    with session.progress("verify") as progress:
        names = [model] if model is not None else [model.name for model in project.definitions.of(Model)]
        for place, name in enumerate(names):
            progress(f"verify {name}", place, len(names))
            report, views = _verify_model(project, name, samples, seed)
            found[name] = {**_verified(report, show_keys=show_keys), "views": views}
            shown += _explained(report.mismatches, show_keys=show_keys)
        logged = None if policy is None else _verify_log(project, policy)
    columns = ("model", "verdict", "requests>", "with oracle>", "with stream>", "with online state>", "differ>")
    rows = [
        (n, f["verdict"], f["requests"], *(f["by_engine"].get(each, 0) for each in ("oracle", "stream", "online")),
         f["differing"])
        for n, f in found.items()
    ]  # fmt: skip
    parts: list[Any] = [table(columns, rows) if rows else "No model is defined: there is nothing to verify."]
    views_of = {view: passed for each in found.values() for view, passed in each["views"].items()}
    late = {name: each["skipped"] for name, each in found.items() if each["skipped"]}
    if late:
        parts += ["", "Not compared with online state, which ends before them or cannot look back so far: "
                  + ", ".join(f"{count(n)} requests of {name}" for name, n in late.items()) + "."]  # fmt: skip
    unfilled = [name for name, each in found.items() if each["compared"] and "online" not in each["by_engine"]]
    if unfilled:
        parts += ["", f"Online state was not compared ({', '.join(unfilled)}): fill it with retrodict features build."]
    if views_of:
        parts += ["", table(("view", "may serve"), views_of.items())]
    parts += shown
    if logged is not None:
        said = {"decisions": logged["decisions"], "values": logged["values"], "mismatches": logged["mismatches"]}
        parts += ["", facts(said, title=f"logged decisions of {policy}")]
    equal = all(each["verdict"] == "equal" for each in found.values()) and not (logged and logged["mismatches"])
    return Answer({"models": found, "decisions": logged}, parts, passed=bool(found) and equal)


def _verify_model(project: Workspace, name: str, samples: int, seed: int) -> tuple[Report, dict[str, bool]]:
    """Verify the features of a model on the rows it learns from, and record the verdict."""
    from retrodict.features.catalogue.tables import newest_versions
    from retrodict.features.plan import FeatureSet
    from retrodict.features.verify import verify
    from retrodict.features.verify.verdicts import record_verification
    from retrodict.learning.frame import AT, read_spine, tables_of
    from retrodict.models.definitions import Model

    model = project.definitions.get(Model, name)
    wanted = FeatureSet(model.features)
    _check_schemas(project, wanted)
    versions = newest_versions(project.tables, tables_of(model), where=f"model {name}")
    read = {each: project.tables.read(each, version) for each, version in versions.items()}
    spine = read_spine(read[model.label.table.name], model, wanted)
    sources = {each: read[source.table.name] for each, source in wanted.sources.items()}
    report = verify(
        wanted, sources, spine, AT, online=_online(project, wanted), stream=True, samples=samples, seed=seed
    )
    return report, record_verification(project, wanted, report, versions)


def _online(project: Workspace, wanted: FeatureSet) -> OnlineFeatures | None:
    """Online state, unless that of some view was never filled: nothing is no wrong answer."""
    from retrodict.features.online import online_features, online_state
    from retrodict.features.online.write.writer import Meta

    state = online_state(project, wanted)
    filled = all(state.meta(plan) != Meta() for plan in wanted.views)
    return online_features(project, wanted) if filled else None


def _check_schemas(project: Workspace, wanted: FeatureSet) -> None:
    from retrodict.features.catalogue import check_schema

    schemas = source_schemas(project, wanted)
    for plan in wanted.views:
        if plan.source.table.name in schemas:
            check_schema(plan, schemas[plan.source.table.name])


def _verified(report: Report, *, show_keys: bool) -> dict[str, Any]:
    told = [_plain(mismatch, show_keys=show_keys) for mismatch in report.mismatches[:_KEPT_MISMATCHES]]
    return {"verdict": report.verdict, "requests": report.probes, "compared": report.checked, "skipped": report.skipped,
            "left_out": report.left_out, "by_engine": report.compared, "boundaries": report.boundaries,
            "differing": len(report.mismatches), "mismatches": told}  # fmt: skip


def _explained(mismatches: Sequence[Mismatch], *, show_keys: bool) -> list[Any]:
    """The first few mismatches, each with the newest events that its right value is made of."""
    parts = [f"\n{each.describe(show_keys=show_keys)}" for each in mismatches[:_SHOWN_MISMATCHES]]
    if len(mismatches) > _SHOWN_MISMATCHES:
        more = count(len(mismatches) - _SHOWN_MISMATCHES)
        parts += [f"\n{more} more; --json has up to {_KEPT_MISMATCHES}."]
    return list(parts)


def _plain(mismatch: Mismatch, *, show_keys: bool) -> dict[str, Any]:
    from retrodict.core.clock import format_time

    events = [{"event_time": _moment(happened), "known_at": _moment(known), "sequence": sequence, "row": row}
              for happened, known, sequence, row in mismatch.events]  # fmt: skip
    said = {"feature": mismatch.feature, "at": format_time(mismatch.at), "key": mismatch.key, "values": mismatch.values}
    return {**said, **({"request": mismatch.request} if show_keys else {}), "events": events}


def _moment(instant_: int) -> str | None:
    """Time in words; None for a fact without one."""
    from retrodict.core.clock import format_time
    from retrodict.core.errors import InputError

    try:
        return format_time(instant_)
    except InputError:
        return None


def _verify_log(project: Workspace, policy: str) -> dict[str, Any]:
    from retrodict.decisions.parity import check_parity

    return check_parity(project, policy).to_dict()


@command(features, "parity", examples=["retrodict features parity warn_early",
                                       "retrodict features parity warn_early --start 2013-09-01T00:00Z"])  # fmt: skip
@click.argument("policy", shell_complete=complete(policies))
@click.option("--start", metavar="TIME", callback=instant, help="Only decisions from this time on.")
@click.option("--end", metavar="TIME", callback=instant, help="Only decisions before this time.")
def parity(session: Session, policy: str, start: int | None, end: int | None) -> Answer:
    """Recompute every feature value of logged decisions from the tables and compare.

    Exit code 1 if one value differs, or if there was no decision to compare.
    """
    from retrodict.decisions.definitions import Policy
    from retrodict.decisions.parity import check_parity

    session.project.workspace.definitions.get(Policy, policy)  # a name that is not defined has near ones
    with session.progress(f"parity of {policy}"):
        report = check_parity(session.project.workspace, policy, start=start, end=end)
    verdict = "different" if report.mismatches else "equal" if report.values else "not evaluable"
    head = {"policy": policy, "verdict": verdict, "decisions": report.decisions, "values": report.values,
            "differ": report.mismatches, "not compared": report.not_compared or None}  # fmt: skip
    parts: list[Any] = [facts(head)]
    if report.mismatches:
        rows = [(e["decision"], e["feature"], str(e["logged"]), str(e["recomputed"])) for e in report.examples]
        parts += ["", table(("feature", "differ>"), report.by_feature.items()),
                  "", table(("decision", "feature", "logged", "recomputed"), rows)]  # fmt: skip
    return Answer({"policy": policy, "verdict": verdict, **report.to_dict()}, parts, passed=verdict == "equal")
