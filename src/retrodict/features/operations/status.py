"""How each view serves: verified or not, how far behind its streams, how fresh, how large, how often null or unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from retrodict.core.clock import format_time
from retrodict.features.catalogue.changes import Reader
from retrodict.features.online.state.entries import NEVER
from retrodict.features.online.stream.table_feeder import TableFeeder, TableLag
from retrodict.features.online.stream.upkeep import Upkeep, online_state
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.features.verify.verdicts import last_verdict
from retrodict.workspace import Workspace

__all__ = ["Decided", "ViewStatus", "feature_status"]


class Decided(Protocol):
    """What is read of the record of a decision."""

    @property
    def entities(self) -> Mapping[str, Any]:
        """Entity columns of the request."""
        ...

    @property
    def features(self) -> Mapping[str, Any]:
        """Feature values by full name, null where there was none."""
        ...


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """One version of a view that some model or service reads.

    Attributes
    ----------
    view, version : str
    read_by : list of str
        Models, those in force as ``name@version``, and services as ``service:name``.
    source : str
    verified : bool or None
        Newest verdict on this version; None: never verified.
    offset, lag : int or None
        How far its stream is applied, and events after that; None where no deployed model and no service has it fed.
    table : TableLag
        How far its online state is behind its table.
    unseen_keys : float or None
        Share of the keys of recent decisions that online state holds no event of; None without decisions.
    watermark : int or None
        Newest fact of its online state, in microseconds.
    staleness_s : float or None
        Seconds since then.
    answers_from : int or None
        Earliest time that online state answers for, in microseconds.
    entities, bytes, stored, duplicates, too_old : int or None
        As in :class:`~retrodict.features.online.state.entries.Meta`.
    null_rate : float or None
        Share of null values in recent decisions; None without decisions.
    decisions : int
        Recent decisions that read the view, by its name.
    """

    view: str
    version: str
    read_by: list[str]
    source: str
    verified: bool | None
    offset: int | None
    lag: int | None
    table: TableLag
    unseen_keys: float | None
    watermark: int | None
    staleness_s: float | None
    answers_from: int | None
    entities: int | None
    bytes: int | None
    stored: int | None
    duplicates: int | None
    too_old: int | None
    null_rate: float | None
    decisions: int

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``: times as ISO 8601."""
        times = {name: getattr(self, name) for name in ("watermark", "answers_from")}
        return asdict(self) | {name: None if t is None else format_time(t) for name, t in times.items()}


def feature_status(
    workspace: Workspace,
    readers: Sequence[Reader],
    defined: Mapping[str, FeatureSet],
    services: Mapping[str, FeatureSet],
    decided: Sequence[Decided],
) -> list[ViewStatus]:
    """Status of every version of a view that a model in force, a defined model or a service reads.

    Sizes are those that writers count: no entry of the state is scanned.

    Parameters
    ----------
    workspace : Workspace
    readers : sequence of Reader
        Models in force: what the streams feed.
    defined, services : mapping of str to FeatureSet
        Feature sets of the defined models, by model, and of the services, which the streams feed, too.
    decided : sequence of Decided
        Recent decisions, from which null rates and unseen keys are taken.
    """
    fed = [*(reader.features for reader in readers), *services.values()]
    served = list({features.version: features for features in fed}.values())
    lags = Upkeep(workspace, lambda _: served).lags()
    nulls, now = _null_counts(decided), workspace.clock.now()
    plans: dict[str, ViewPlan] = {}
    models: dict[str, dict[str, None]] = {}
    in_force = [(reader.model, reader.features) for reader in readers]
    serving = [(f"service:{name}", features) for name, features in services.items()]
    for name, features in [*in_force, *defined.items(), *serving]:
        for plan in features.views:
            plans.setdefault(plan.view.version, plan)
            models.setdefault(plan.view.version, {})[name] = None
    return [
        _view_status(workspace, plan, list(models[version]), lags.get(plan.source.name, {}), decided, nulls, now)
        for version, plan in plans.items()
    ]


def _view_status(
    workspace: Workspace,
    plan: ViewPlan,
    models: list[str],
    flow: Mapping[str, Any],
    decided: Sequence[Decided],
    nulls: Mapping[str, tuple[float, int]],
    now: int,
) -> ViewStatus:
    verdict = last_verdict(workspace, plan.view)
    state = online_state(workspace, FeatureSet([plan.view]))
    meta = state.meta(plan)
    watermark, answers_from = (None if time == NEVER else time for time in (meta.watermark, meta.floor))
    keys = {tuple(record.entities.get(key) for key in plan.request_keys) for record in decided}
    keys = {key for key in keys if None not in key}
    null_rate, decisions = nulls.get(plan.name, (None, 0))
    return ViewStatus(
        view=plan.name,
        version=plan.view.version,
        read_by=models,
        source=plan.source.name,
        verified=None if verdict is None else verdict.passed,
        offset=flow.get("offset"),
        lag=flow.get("lag"),
        table=TableFeeder(workspace, state, plan.source).lag(),
        unseen_keys=state.unseen(plan, list(keys)) / len(keys) if keys else None,
        watermark=watermark,
        staleness_s=None if watermark is None else (now - watermark) / 1e6,
        answers_from=answers_from,
        entities=meta.entities,
        bytes=meta.total_size,
        stored=meta.stored,
        duplicates=meta.duplicates,
        too_old=meta.too_old,
        null_rate=null_rate,
        decisions=decisions,
    )


def _null_counts(decided: Sequence[Decided]) -> dict[str, tuple[float, int]]:
    """By view: share of null values among decisions, and how many decisions have some."""
    values: dict[str, list[bool]] = {}
    decisions: dict[str, int] = {}
    for record in decided:
        names = [name.partition("__")[0] for name in record.features]
        for view, value in zip(names, record.features.values(), strict=True):
            values.setdefault(view, []).append(value is None)
        for view in set(names):
            decisions[view] = decisions.get(view, 0) + 1
    return {view: (sum(missing) / len(missing), decisions[view]) for view, missing in values.items()}
