"""The gate before features may serve: every view of a model has passed verification as it is.

A pass belongs to the content hash of a view, so an edit takes it away by itself. It is an entry of the ledger, not a
flag on the side: who let which view serve on which evidence can be read, and ``audit verify`` finds it altered. The
newest verdict counts; a later failure takes an earlier pass back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import RefusedError
from retrodict.features.definitions import FeatureView
from retrodict.features.plan import FeatureSet
from retrodict.workspace import Workspace

if TYPE_CHECKING:  # reading a verdict loads no engine
    import pyarrow as pa

    from retrodict.features.online.read.features import OnlineFeatures
    from retrodict.features.verify.verification import Report

__all__ = [
    "ViewVerdict",
    "check_verified",
    "last_verdict",
    "record_override",
    "record_verification",
    "unverified_views",
    "verify_features",
    "verify_service",
    "view_ref",
]

_PASSED, _FAILED, _OVERRIDDEN = "features.verified", "features.refuted", "features.unverified"
_VERDICTS = (_PASSED, _FAILED)


@dataclass(frozen=True, slots=True)
class ViewVerdict:
    """Newest verdict on a view as it is.

    Attributes
    ----------
    passed : bool
    time : int
        Microseconds since 1970-01-01 UTC.
    actor : str
    facts : dict
        ``probes``, ``checked`` and ``mismatches``.
    """

    passed: bool
    time: int
    actor: str
    facts: dict[str, Any]


def view_ref(view: FeatureView) -> str:
    """Reference of a view in the ledger: ``view:name@version``."""
    return f"view:{view.name}@{view.version}"


def verify_features(
    workspace: Workspace,
    features: FeatureSet,
    spine: pa.Table,
    at: str,
    versions: Mapping[str, int],
    *,
    samples: int = 50,
    seed: int = 0,
) -> tuple[Report, dict[str, bool]]:
    """Verify features on the rows of a spine, with online state where that is filled, and record the verdict.

    Parameters
    ----------
    workspace : Workspace
    features : FeatureSet
    spine : pyarrow.Table
        Requests to draw from.
    at : str
        Its time column.
    versions : mapping of str to int
        Version of every table that is read, by table.
    samples, seed : int
        As for :func:`~retrodict.features.verify.verify`.

    Returns
    -------
    tuple of Report and dict
        What came of it, and by view whether it may serve.

    Raises
    ------
    DefinitionError
        If a table lacks what a view reads.
    """
    from retrodict.features.catalogue.tables import check_sources
    from retrodict.features.verify.verification import verify

    check_sources(workspace, features)
    tables = {name: workspace.tables.read(name, versions[name]) for name in features.tables}
    sources = {
        name: _with_stream(workspace, features, name, tables[s.table.name]) for name, s in features.sources.items()
    }
    online = _filled_online(workspace, features)
    report = verify(features, sources, spine, at, online=online, stream=True, samples=samples, seed=seed)
    return report, record_verification(workspace, features, report, versions)


def _with_stream(workspace: Workspace, features: FeatureSet, source: str, rows: pa.Table) -> pa.Table:
    """Rows of a source's table, and the events that its stream brought and no table has yet."""
    import pyarrow as pa

    from retrodict.features.online import online_state, streamed_rows

    metas = [meta for plan in features.views if plan.source.name == source
             for meta in online_state(workspace, features).metas(plan).values()]  # fmt: skip
    records = min((meta.offset or 0 for meta in metas), default=0)
    if not records:
        return rows
    columns = {name for plan in features.views if plan.source.name == source for name in plan.source_columns}
    events = streamed_rows(workspace.events, features.sources[source], columns, rows.schema, records)
    return pa.concat_tables([rows, events], promote_options="permissive")


def verify_service(
    workspace: Workspace, name: str, features: FeatureSet, *, samples: int = 50, seed: int = 0
) -> tuple[Report, dict[str, bool]]:
    """Verify features that no model asks for, on requests drawn from their sources, as :func:`verify_features` does.

    Raises
    ------
    InputError
        If a table holds no rows yet.
    DefinitionError
        If a table lacks what a view reads.
    """
    from retrodict.features.catalogue.tables import check_sources, newest_versions
    from retrodict.features.verify.requests import AT, draw_requests

    check_sources(workspace, features)
    versions = newest_versions(workspace.tables, features.tables, where=f"service {name}")
    tables = {table: workspace.tables.read(table, version) for table, version in versions.items()}
    spine = draw_requests(features, tables, now=workspace.clock.now(), seed=seed)
    return verify_features(workspace, features, spine, AT, versions, samples=samples, seed=seed)


def _filled_online(workspace: Workspace, features: FeatureSet) -> OnlineFeatures | None:
    """Reader of online state, unless the state of some view was never filled: nothing is no wrong answer."""
    from retrodict.features.online.state.entries import Meta
    from retrodict.features.online.stream.upkeep import online_features, online_state

    state = online_state(workspace, features)
    filled = all(state.meta(plan) != Meta() for plan in features.views)
    return online_features(workspace, features) if filled else None


def record_verification(
    workspace: Workspace, features: FeatureSet, report: Report, tables: Mapping[str, int]
) -> dict[str, bool]:
    """Record what a verification said of every view it asked, in one transaction; by view, whether it passed.

    ``tables`` has the version of every table that was read. A report that compared nothing says nothing: no view
    passes, and none fails.
    """
    wrong = [mismatch.feature.partition("__")[0] for mismatch in report.mismatches]
    passed = {plan.name: bool(report.checked) and plan.name not in wrong for plan in features.views}
    if not report.checked:
        return passed
    with workspace.ledger.transaction() as tx:
        for plan in features.views:
            table = plan.source.table.name
            # The table is named here and not as lineage: an edge would keep its version from ever being vacuumed.
            facts = {"view": plan.name, "version": plan.view.version, "table": f"{table}@{tables[table]}",
                     "probes": report.probes, "checked": report.probes * len(plan.outputs), "compared": report.compared,
                     "mismatches": wrong.count(plan.name)}  # fmt: skip
            tx.append(_PASSED if passed[plan.name] else _FAILED, view_ref(plan.view), facts)
    return passed


def last_verdict(workspace: Workspace, view: FeatureView) -> ViewVerdict | None:
    """Newest verdict on a view as it is; None if it was never verified."""
    reference = view_ref(view)
    entries = [e for e in workspace.ledger.vouched(reference) if e.object_id == reference and e.action in _VERDICTS]
    if not entries:
        return None
    last = entries[-1]
    facts = {name: last.payload[name] for name in ("probes", "checked", "mismatches")}
    return ViewVerdict(last.action == _PASSED, last.time, last.actor, facts)


def unverified_views(workspace: Workspace, features: FeatureSet) -> list[FeatureView]:
    """Views of a set that have not passed as they are."""
    verdicts = [(plan.view, last_verdict(workspace, plan.view)) for plan in features.views]
    return [view for view, verdict in verdicts if verdict is None or not verdict.passed]


def check_verified(workspace: Workspace, features: FeatureSet, model: str, *, force: str | None) -> list[FeatureView]:
    """Refuse a model whose views have not passed, unless there is a reason to let them serve all the same.

    Parameters
    ----------
    workspace : Workspace
    features : FeatureSet
        What the model reads, as it was trained.
    model : str
        ``name@version``.
    force : str, optional
        Why its views may serve all the same; None or blank: they may not.

    Returns
    -------
    list of FeatureView
        Those that a reason lets pass; empty where nothing had to be overridden.

    Raises
    ------
    RefusedError
        If a view has not passed and there is no reason.
    """
    refused = unverified_views(workspace, features)
    if refused and not (force or "").strip():
        raise RefusedError(
            "every view of a deployed model must have passed verification as it was when the model was trained",
            where=f"model:{model}",
            got=[view.name for view in refused],
            remedy=f"{_way_to_pass(workspace, refused, model.partition('@')[0])}; or say why not: --force REASON",
        )
    return refused


def _way_to_pass(workspace: Workspace, refused: list[FeatureView], model: str) -> str:
    """Verify, or train again where a view is no longer what the model was trained with."""
    listed = [feature for definition in workspace.definitions for feature in getattr(definition, "features", ())]
    views = [view for view in [*workspace.definitions, *listed] if isinstance(view, FeatureView)]
    defined = {view.name: view.version for view in views}
    edited = [view.name for view in refused if defined.get(view.name, view.version) != view.version]
    if edited:
        return f"Edited since: {', '.join(edited)}. Run: retrodict train {model}"
    return f"Run: retrodict features verify {model}"


def record_override(
    workspace: Workspace, views: list[FeatureView], model: str, reason: str, *, action: str = _OVERRIDDEN
) -> None:
    """Record that views serve without having passed, or without a state, and why."""
    with workspace.ledger.transaction() as tx:
        for view in views:
            facts = {"view": view.name, "version": view.version, "model": model, "reason": reason.strip()}
            tx.append(action, view_ref(view), facts)
