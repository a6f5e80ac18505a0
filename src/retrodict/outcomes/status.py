"""Outcomes join decisions when they are known: known, pending, or void, as of a time and never as of today.

A pure function of facts with ``known_at < now``: the same call with the same ``now`` gives the same answer after more
rows have arrived that were known later. Every decision stays exactly one row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, NotFoundError
from retrodict.core.statistics.survival import SHORTEST
from retrodict.core.tasks import Target
from retrodict.decisions.definitions import find_policy
from retrodict.decisions.log import decisions_table
from retrodict.features.labels import Label, Outcome
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.outcomes import check_outcome, outcome_labels
from retrodict.features.plan import FeatureSet
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.models.targets import encode_labels, plain_labels
from retrodict.outcomes.arrivals import ARRIVED, outcomes_name
from retrodict.outcomes.keys import join_key_sql
from retrodict.registry import in_force
from retrodict.stores.sql import query, quote
from retrodict.workspace import Workspace

__all__ = ["UNKNOWN_TIME", "Outcomes", "outcomes"]

# Viewed as datetime64[us] it is NaT.
UNKNOWN_TIME = -(2**63)

# Of the label's table: without the id of a decision, and labels as numbers.
_FACTS = pa.schema([pa.field("label", pa.float64()) if f.name == "label" else f for f in list(ARRIVED)[1:]])


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Decisions of a policy with what is known of their outcomes at one time; all arrays are aligned.

    Attributes
    ----------
    policy : str
    now : int
        As of when: microseconds since 1970-01-01 UTC.
    decisions : pyarrow.Table
        :func:`~retrodict.decisions.log.decisions_table`, one row per decision, in order of time.
    status : ndarray of str, shape (n,)
        ``"known"``; ``"pending"``: not known and not matured; ``"void"``: known that there will be none, or matured
        without one. A void decision becomes known if its outcome arrives after all.
    label : ndarray of float64, shape (n,)
        As the target says (1.0 or 0.0, code of a class, number) where known, NaN elsewhere. Of a time to an event the
        signed days as far as they were followed by ``now``, of pending decisions too.
    known_at : ndarray of int64, shape (n,)
        When the outcome (or that there is none) was known, ``UNKNOWN_TIME`` elsewhere.
    revised : int
        Decisions with outcomes that disagree; the last known one counts.
    without_key : int
        Decisions that carry no key: only an outcome ingested by decision id reaches them.
    matured_with_key, unmatched : int
        Decisions with a key that have matured, and those of them whose key neither an outcome known by then has nor a
        row of the label's table that never got one.
    inputs : tuple of (str, str)
        Lineage: the table versions that were read, and as what.
    target : Target
        What the version in force at ``now`` predicts; without one, what the definitions tell.
    followed : ndarray of float64, shape (n,), optional
        Of a time to an event: days for which the table of its label can tell of each decision, zero or less for none.
    """

    policy: str
    now: int
    decisions: pa.Table
    status: NDArray[np.str_]
    label: NDArray[np.float64]
    known_at: NDArray[np.int64]
    revised: int
    without_key: int
    matured_with_key: int
    unmatched: int
    inputs: tuple[tuple[str, str], ...]
    target: Target = field(default_factory=Target)
    followed: NDArray[np.float64] | None = None

    @property
    def countable(self) -> NDArray[np.bool_]:
        """Decisions whose outcome counts in metrics: known ones, and of a time to an event those that are followed."""
        return self.status == "known" if self.followed is None else ~np.isnan(self.label)

    def __len__(self) -> int:
        return int(self.decisions.num_rows)

    @property
    def unreachable(self) -> int:
        """Decisions without a key that no outcome has reached by id either."""
        return int((self.decisions.column("key").is_null().to_numpy() & (self.status != "known")).sum())

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the decisions as NumPy; null numbers are NaN."""
        return np.asarray(self.decisions.column(name).to_numpy())

    def outputs(self) -> NDArray[np.float64]:
        """What the model gave, shape (n,) or (n, outputs); NaN where none scored."""
        if self.target.outputs == ("score",):
            return self.column("score").astype(np.float64)
        columns = [
            self.column(name).astype(np.float64) if name in self.decisions.column_names else np.full(len(self), np.nan)
            for name in (f"output__{output}" for output in self.target.outputs)
        ]
        return columns[0] if len(columns) == 1 else np.column_stack(columns)

    def select(self, rows: NDArray[np.bool_]) -> Outcomes:
        """Return the outcomes of some of the decisions; counts of revised and keyless ones stay those of all."""
        return replace(
            self,
            decisions=self.decisions.filter(pa.array(rows)),
            status=self.status[rows],
            label=self.label[rows],
            known_at=self.known_at[rows],
            followed=None if self.followed is None else self.followed[rows],
        )


def outcomes(
    workspace: Workspace,
    policy: str,
    *,
    now: int,
    start: int | None = None,
    end: int | None = None,
    version: int | None = None,
) -> Outcomes:
    """Outcomes of a policy's decisions as they were known at a time.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of the policy.
    now : int
        Facts with ``known_at >= now`` and decisions at or after it do not exist yet.
    start, end : int, optional
        Decisions with ``start <= time < end``; all by default. Instants are microseconds since 1970-01-01 UTC.
    version : int, optional
        Version of the label's table; the newest one by default.

    Returns
    -------
    Outcomes

    Raises
    ------
    DefinitionError
        If the label does not fit its table, or an outcome that of its source.
    """
    model = find_policy(workspace.definitions, policy).model
    target = _target(workspace, policy, model, now)
    decisions = decisions_table(workspace, policy, start=start, end=now if end is None else min(end, now))
    if isinstance(model.label, Outcome):
        facts, edges = _outcome_facts(workspace, model, model.label, target, version)
    else:
        facts, edges = label_facts(workspace, model, model.label, target, version, now)
    arrived, more = _arrived_facts(workspace, policy, model, target)
    events = model.timed and target.task == "survival"
    visible = visible_facts(decisions, facts, arrived, now, label=_DAYS if events else "label")
    at = visible.column("position").to_numpy()
    size = decisions.num_rows
    label_values, known_at = np.full(size, np.nan), np.full(size, UNKNOWN_TIME, dtype=np.int64)
    label_values[at] = visible.column("label").to_numpy()
    known_at[at] = visible.column("known_at").to_numpy()
    # An outcome is known at the moment it matures, hence seen one microsecond later, and pending until then.
    matures = model.label.maturity + isinstance(model.label, Outcome)
    matured = decisions.column("time").to_numpy() + matures <= now
    came = known_at != UNKNOWN_TIME
    status = np.where(matured | came, "void", "pending")
    status[~np.isnan(label_values)] = "known"
    followed = None
    if target.task == "survival":
        until = _seen_until(workspace, model, version, now)
        followed = (until - decisions.column("time").to_numpy()) / DAY
        label_values, status = _followed_days(label_values, came, followed, target)
    keyed = decisions.column("key").is_valid().to_numpy() & matured
    # Of a time to an event a row of the table that is heard of later says that there was no event yet.
    waiting = pc.is_null(facts.column("known_at")) if followed is None else pc.is_valid(facts.column("key"))
    without_outcome = facts.column("key").filter(waiting)
    in_table = pc.is_in(decisions.column("key"), value_set=without_outcome.combine_chunks()).to_numpy()
    return Outcomes(
        policy=policy,
        now=now,
        decisions=decisions,
        status=status,
        label=label_values,
        known_at=known_at,
        revised=int(visible.column("revised").to_numpy().sum()),
        without_key=decisions.column("key").null_count,
        matured_with_key=int(keyed.sum()),
        unmatched=int((keyed & ~came & ~in_table).sum()),
        inputs=(*edges, *more),
        target=target,
        followed=followed,
    )


def _followed_days(
    labels: NDArray[np.float64], came: NDArray[np.bool_], followed: NDArray[np.float64], target: Target
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Signed days of every decision, and its status: known where its event or the last horizon is over.

    Void are those whose event came before the decision, or that were lost before the last horizon.
    """
    open_ones = ~came & (followed > 0)
    days = np.where(open_ones, -followed, labels)
    days[days == 0] = SHORTEST
    over = (days > 0) | (days <= -target.days[-1])
    return days, np.where(over, "known", np.where(came, "void", "pending"))


def _seen_until(workspace: Workspace, model: Model, version: int | None, now: int) -> int:
    """First instant after everything that the label's table held of the past at ``now``; 0 where it tells no times.

    A table that was not written since does not say that nothing happened.
    """
    label = model.label
    pinned = _newest(workspace, label.table.name) if version is None else version
    if not isinstance(label, Label) or not model.timed or pinned is None or label.parsed_known_at is None:
        return 0
    expressions = {expression.text: expression for expression in (model.parsed_decide_at, label.parsed_known_at)}
    columns = sorted({name for expression in expressions.values() for name in expression.columns})
    rows = workspace.tables.read(label.table.name, pinned, columns=columns)
    moments = " UNION ALL ".join(f"SELECT epoch_us({one.to_sql()}) AS moment FROM rows" for one in expressions.values())
    newest = query(f"SELECT max(moment) FROM ({moments}) WHERE moment < {int(now)}", rows=rows).column(0)[0].as_py()
    return 0 if newest is None else min(int(newest) + 1, now)


def _target(workspace: Workspace, policy: str, model: Model, now: int) -> Target:
    """What the version in force predicts: it names the classes."""
    try:
        artifact = in_force(workspace, policy, now).deployment.artifact
    except NotFoundError:
        return model.known_target or Target()
    return ModelArtifact.target_of(workspace.objects, artifact)


def _facts(model: Model, target: Target, facts: pa.Table) -> pa.Table:
    """Facts with their labels as numbers of the target; a class that it does not have is no outcome of it."""
    return coded_facts(model, target, facts).cast(_FACTS)


def coded_facts(model: Model, target: Target, facts: pa.Table) -> pa.Table:
    column = plain_labels(facts.column("label"))
    if target.classes and not len(column):  # of no kind yet
        column = pa.chunked_array([[]], pa.float64())
        return facts.set_column(facts.schema.get_field_index("label"), "label", column)
    _, labels = encode_labels(model, column, is_known=np.ones(len(column), dtype=np.bool_), target=target)
    place = facts.schema.get_field_index("label")
    return facts.set_column(place, "label", pa.array(labels, from_pandas=True))


def _newest(workspace: Workspace, table: str) -> int | None:
    versions = workspace.tables.history(table)
    return versions[-1].version if versions else None


def label_facts(
    workspace: Workspace, model: Model, label: Label, target: Target, version: int | None, now: int
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Key, label and known_at of every row of the label's table; empty if it has no version yet.

    A label that does not say when it is known was known when the version of the table was written that is read: the
    newest one before now.
    """
    name, clock = label.table.name, label.parsed_known_at
    history = [past for past in workspace.tables.history(name) if clock is not None or past.time < now]
    pinned = (history[-1].version if history else None) if version is None else version
    if pinned is None:
        return _FACTS.empty_table(), []
    schema = workspace.tables.schema(name, pinned)
    for expression, what in ((label.parsed, "label"), (clock, "known_at")):
        if expression is not None:
            expression.check_columns(schema.names, where=f"label {label.name}, {what}")
    read = (label.parsed, clock, *label.more.values())
    columns = sorted({*label.table.key, *(name for one in read if one is not None for name in one.columns)})
    rows = workspace.tables.read(name, pinned, columns=columns)
    key, value, source = join_key_sql(label.table, rows.schema), label.parsed.to_sql(), "rows"
    if clock is not None:
        known_at = clock.to_sql()
    if clock is not None and label.horizons:
        value, known_at, source = _event_sql(label, value, known_at)
    elif label.horizons:
        value = f"CASE WHEN {label.more['event'].to_sql()} THEN {value} ELSE -({value}) END"
    if clock is None:
        written = next(past.time for past in workspace.tables.history(name) if past.version == pinned)
        known_at = f"CASE WHEN ({value}) IS NULL THEN NULL ELSE make_timestamptz({written}) END"
    facts = query(f"SELECT {key} AS key, ({value}) AS label, ({known_at}) AS known_at FROM {source}", rows=rows)
    kind = facts.schema.field("known_at").type
    if not (pa.types.is_timestamp(kind) or pa.types.is_null(kind)):
        raise DefinitionError(
            "known_at must be a time",
            where=f"label {label.name}",
            got=str(kind),
            remedy="Write it like 'arr_delay > 15', known_at='arr_time'",
        )
    return _facts(model, target, facts), [(f"dataset:{name}@{pinned}", "labels")]


def _event_sql(label: Label, event: str, known_at: str) -> tuple[str, str, str]:
    """Moment of the event, or less the end of follow-up, in microseconds; when that was known; and of what rows.

    Until an event is heard of, all that is known of a row is that it was lost: one that is heard of after the end of
    follow-up gives both.
    """
    value = f"CAST(greatest(epoch_us({event}), 0) AS DOUBLE)"
    if "until" not in label.more:
        return value, f"CASE WHEN ({event}) IS NOT NULL THEN {known_at} END", "rows"
    until = label.more["until"].to_sql()
    seen = f"({event}) IS NOT NULL AND (({until}) IS NULL OR ({event}) <= ({until}))"
    late = f"{seen} AND ({until}) IS NOT NULL AND (({known_at}) IS NULL OR ({known_at}) > ({until}))"
    return (
        f"CASE WHEN _seen THEN {value} ELSE -CAST(epoch_us({until}) AS DOUBLE) END",
        f"CASE WHEN _seen THEN {known_at} ELSE {until} END",
        f"(SELECT *, coalesce({seen}, false) AS _seen FROM rows UNION ALL SELECT *, false FROM rows WHERE {late})",
    )


def _outcome_facts(
    workspace: Workspace, model: Model, label: Outcome, target: Target, version: int | None
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """The same of an outcome: what happened to the entity of each row from its ``decide_at`` on."""
    name, source = label.table.name, label.source.table.name
    pinned = _newest(workspace, name) if version is None else version
    happened = pinned if source == name else _newest(workspace, source)
    if pinned is None or happened is None:
        return _FACTS.empty_table(), []
    check_outcome(label, workspace.tables.schema(source, happened))
    schema, decide_at = workspace.tables.schema(name, pinned), model.parsed_decide_at
    decide_at.check_columns(schema.names, where=f"model {model.name}, decide_at (table {name!r})")
    columns = sorted({*label.table.key, *label.entity.keys, *decide_at.columns})
    rows = workspace.tables.read(name, pinned, columns=columns)
    spine = query(
        f"SELECT {join_key_sql(label.table, rows.schema)} AS _key, {decide_at.to_sql()} AS _at, "
        f"{', '.join(map(quote, label.entity.keys))} FROM rows WHERE _at IS NOT NULL",
        rows=rows,
    )
    labels = EventIndexes.of(workspace).gather(
        lambda rows: outcome_labels(spine, "_at", label, rows), FeatureSet([label.view]), {source: happened}
    )
    facts = pa.table(
        {"key": spine.column("_key"), "label": labels.column("label"), "known_at": labels.column("known_at")}
    )
    return _facts(model, target, facts), [
        (f"dataset:{table}@{at}", "labels") for table, at in {name: pinned, source: happened}.items()
    ]


def _arrived_facts(
    workspace: Workspace, policy: str, model: Model, target: Target
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Outcomes that were ingested, their labels as numbers of the target."""
    name = outcomes_name(policy)
    version = _newest(workspace, name)
    if version is None:
        return coded_facts(model, target, ARRIVED.empty_table()), []
    try:
        rows = workspace.tables.read(name, version, columns=ARRIVED.names)
    except NotFoundError:  # pragma: no cover  # removed by hand between the two calls
        return coded_facts(model, target, ARRIVED.empty_table()), []
    return coded_facts(model, target, rows), [(f"dataset:{name}@{version}", "outcomes")]


# From the moments of ``_event_sql`` to signed days of a decision; null where they lie before it.
_DAYS = (
    "CASE WHEN label >= keys.time THEN greatest(label - keys.time, 1) / 86400e6 "
    "WHEN -label > keys.time THEN (keys.time + label) / 86400e6 END"
)


def visible_facts(
    decisions: pa.Table, facts: pa.Table, arrived: pa.Table, now: int, *, label: str = "label"
) -> pa.Table:
    """Position, label (null: none ever), known_at and "labels disagree", for decisions of which something is known.

    The last known outcome counts; of several known at one instant an ingested one, and of those the last that came.
    """
    keys = decisions.select(["id", "key", "time"]).append_column("position", pa.array(np.arange(decisions.num_rows)))
    came = arrived.append_column("turn", pa.array(np.arange(1, arrived.num_rows + 1)))
    sql = (
        "WITH facts AS ("
        f"SELECT position, {label} AS label, known_at, 0 AS turn FROM keys JOIN labels ON keys.key = labels.key "
        "UNION ALL "
        "SELECT position, label, known_at, turn FROM keys JOIN came ON keys.id = came.decision_id UNION ALL "
        "SELECT position, label, known_at, turn FROM keys JOIN came ON keys.key = came.key "
        "WHERE came.decision_id IS NULL), visible AS ("
        "SELECT position, label, epoch_us(known_at) AS known_at, turn "
        f"FROM facts WHERE known_at IS NOT NULL AND epoch_us(known_at) < {int(now)}) "
        "SELECT position, label, known_at, "
        "(COALESCE(min(label) OVER same <> max(label) OVER same, false) "
        "OR count(label) OVER same NOT IN (0, count(*) OVER same)) AS revised FROM visible "
        "WINDOW same AS (PARTITION BY position) "
        "QUALIFY row_number() OVER (PARTITION BY position ORDER BY known_at DESC, turn DESC) = 1 ORDER BY position"
    )
    return query(sql, keys=keys, labels=facts, came=came)
