"""The training frame: one row per decided thing, what was known at the moment of the decision, and what then happened.

Built only from the model's definition and numbered table versions, so that the same two give the same bytes again,
whether events are read from the tables or through their sorted indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.expressions import parse
from retrodict.core.kinds import kind_of
from retrodict.core.statistics.survival import SHORTEST, censor
from retrodict.core.tasks import Target
from retrodict.features.catalogue import check_schema
from retrodict.features.definitions import FeatureView, RowColumns
from retrodict.features.labels import Label, Outcome
from retrodict.features.offline import training_frame
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.frame import Rows
from retrodict.features.offline.outcomes import check_outcome, outcome_labels
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.models.definitions import Model
from retrodict.models.splits import Splitter, TimeSplit
from retrodict.models.targets import NEVER, encode_days, encode_labels, plain_labels, survival_labels
from retrodict.stores.sql import query, quote
from retrodict.stores.tables.base import TableStore
from retrodict.stores.tables.content import table_digest

__all__ = [
    "EXCLUDED",
    "Frame",
    "build_frame",
    "count_left_out",
    "features_of",
    "follow_up",
    "known_days",
    "parts_of",
    "read_spine",
    "reporting_delay",
    "tables_of",
    "unread_columns",
]

AT = "_decide_at"
_LABEL, _KNOWN, _WEIGHT, _GROUP, _MORE = "_label", "_known_at", "_weight", "_group", "_label_"
EXCLUDED = "left out by the definition"
_READABLE = ("bool", "int", "float", "text")  # kinds of columns that a model reads as they are


@dataclass(frozen=True, eq=False)
class Frame:
    """Rows of one model, in the order of the label's table.

    Attributes
    ----------
    table : pyarrow.Table
        Spine columns and one column per feature.
    features : tuple of str
        Names of the feature columns, in the order of the model.
    at : ndarray of int64, shape (n,)
        Moments of decision, microseconds since 1970-01-01 UTC; all 0 where rows have none (``timed`` says which).
    labels : ndarray of float64, shape (n,)
        As the target says: 0 or 1, code of a class, number; NaN where there is no outcome. Of a time to an event what
        will ever have been seen of it: :func:`parts_of` says what each part of a split can know.
    known_at : ndarray of int64, shape (n,)
        When the outcome became known; the largest int64 where it never did, 0 where labels have no time.
    target : Target
        What the labels are.
    timed : bool, default True
        Whether rows have a moment of decision.
    others : pyarrow.Table, optional
        Columns of text and whole numbers that the label's table has beside, row by row: no part of what is learned from
        or hashed, but a key among them may tie rows together.
    delays : mapping of str to float
        Of a time to an event, and by part: days from an event until it is heard of (:func:`reporting_delay`).
    until_days : ndarray of float64, shape (n,), optional
        Of a time to an event: days until a row was not followed any more, infinite where it is. None: all are.
    """

    table: pa.Table
    features: tuple[str, ...]
    at: NDArray[np.int64]
    labels: NDArray[np.float64]
    known_at: NDArray[np.int64]
    target: Target = Target()  # noqa: RUF009  # immutable
    timed: bool = True
    others: pa.Table | None = None
    delays: Mapping[str, float] = field(default_factory=dict)
    until_days: NDArray[np.float64] | None = None

    @cached_property
    def seen_until(self) -> int:
        """First instant after every decision and every outcome in the rows."""
        outcomes = self.known_at[self.known_at != NEVER]
        return int(max(self.at.max(initial=0), outcomes.max(initial=0))) + 1

    def digest(self) -> str:
        """SHA-256 over all rows and columns: never a sample."""
        return table_digest(self.table)

    def rows(self, start: int, end: int, *, known_before: int | None = None) -> NDArray[np.int64]:
        """Positions of labelled rows with ``start <= at < end`` whose outcome was known before an instant."""
        mask = (self.at >= start) & (self.at < end) & ~np.isnan(self.labels)
        if known_before is not None:
            mask &= self.known_at < known_before
        return np.flatnonzero(mask)

    @cached_property
    def weights(self) -> NDArray[np.float64] | None:
        """How much each row counts, by the recipe's expression; NaN where it is null, None where there is none."""
        if _WEIGHT not in self.table.column_names:
            return None
        return np.asarray(self.table.column(_WEIGHT).cast(pa.float64()).to_numpy(), dtype=np.float64)

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """Code of the group in which each row is ranked, null being a group of its own; None without groups."""
        if _GROUP not in self.table.column_names:
            return None
        encoded = self.table.column(_GROUP).combine_chunks().dictionary_encode(null_encoding="encode")
        return np.asarray(encoded.indices.to_numpy(), dtype=np.int64)

    def column(self, name: str) -> pa.ChunkedArray:
        """Column of the table; the message of an unknown one has near names."""
        rule = "a frame must have the column that a split reads"
        check_known(name, self.table.column_names, rule, where="training frame", what="column", error=InputError)
        return self.table.column(name)

    def columns(self, positions: NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """Feature columns of some rows."""
        rows = self.table.select(list(self.features)).take(pa.array(positions))
        return {name: rows.column(name) for name in self.features}


def parts_of(frame: Frame, split: Splitter, *, now: int) -> tuple[Frame, dict[str, NDArray[np.int64]]]:
    """Positions of the rows of each part, and the frame as each part knows it.

    A time to an event is censored at the end of the row's own part, so that no training row tells what happened while
    others were validated on. An event counts where it happened, and was known, before that end. That of the test rows
    is the newest moment that the rows hold: a table that was not written since does not say that nothing happened. So
    a row whose event came before its decision is left out of a part only if that was known before the part's end.
    """
    if frame.target.task != "survival" or not frame.timed:
        return frame, split.assign(frame, now=now)
    early = np.isnan(frame.labels) & (True if frame.until_days is None else frame.until_days > 0)
    undropped = replace(frame, labels=np.where(early, SHORTEST, frame.labels))
    parts, delays, labels = split.assign(undropped, now=now), {}, frame.labels.copy()
    end = min(now, frame.seen_until)
    spans = split.spans(end) if isinstance(split, TimeSplit) else {}
    for name, places in parts.items():
        limit = spans[name][2] if name in spans else end
        parts[name] = rows = places[~early[places] | (frame.known_at[places] >= limit)]
        delays[name] = reporting_delay(frame, limit) / DAY
        labels[rows] = known_days(undropped.labels[rows], frame, rows, limit)
    return replace(frame, labels=labels, delays=delays), parts


def known_days(
    labels: NDArray[np.float64], frame: Frame, rows: NDArray[np.int64], end: int | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Signed days of some rows of a frame as they are known before an instant, or before one of each row.

    Where events are heard of late, no row is known to be without one up to then: all are followed until that instant,
    or the earliest of them, less :func:`reporting_delay`. A row decided after that is followed for no time.
    """
    unseen = (frame.known_at[rows] >= end) & (labels > 0)
    until_days = np.inf if frame.until_days is None else np.maximum(frame.until_days[rows], SHORTEST)
    limits = (end - frame.at[rows] - reporting_delay(frame, int(np.min(end, initial=NEVER)))) / DAY
    return censor(np.where(unseen, -until_days, labels), np.maximum(limits, SHORTEST))


def reporting_delay(frame: Frame, end: int) -> int:
    """Microseconds from an event until it is heard of: the 99th percentile of the events known before an instant.

    The largest would let one forgotten row take the follow-up of all.
    """
    mask = (frame.labels > 0) & (frame.known_at < end)
    delays = frame.known_at[mask] - frame.at[mask] - np.rint(frame.labels[mask] * DAY).astype(np.int64)
    return max(int(np.quantile(delays, 0.99, method="higher")), 0) if len(delays) else 0


def follow_up(frame: Frame, parts: Mapping[str, NDArray[np.int64]]) -> dict[str, dict[str, float]]:
    """Of each part how many events were seen, the share without one, and days until either."""
    days = {name: frame.labels[rows] for name, rows in parts.items() if len(rows)}
    return {
        name: {"events": int((part > 0).sum()), "censored": float((part < 0).mean()),
               "median_days": float(np.median(np.abs(part))), "longest_days": float(np.abs(part).max()),
               "delay_days": frame.delays.get(name, 0.0)}
        for name, part in days.items()
    }  # fmt: skip


def tables_of(model: Model) -> list[str]:
    """Names of the tables a model is made from."""
    names = {model.label.table.name}
    names |= {view.source.table.name for view in model.features if isinstance(view, FeatureView)}
    if isinstance(model.label, Outcome):
        names.add(model.label.source.table.name)
    return sorted(names)


def features_of(model: Model, schema: pa.Schema) -> FeatureSet:
    """Feature set of a model whose label's table has a schema: ``columns(exclude=...)`` means columns of that.

    Raises
    ------
    DefinitionError
        If a column is named that the table does not have; the message has near names. If no column is left.
    """
    where = f"model {model.name}, columns of table {model.label.table.name!r}"
    for feature in model.features:
        for name in (feature.exclude or feature.names) if isinstance(feature, RowColumns) else ():
            rule = "the label's table must have the columns that a model names"
            check_known(name, schema.names, rule, where=where, what="column", error=DefinitionError)
    hidden = {*model.label.table.key, *_label_columns(model)}
    readable = [f.name for f in schema if kind_of(f.type) in _READABLE and f.name not in hidden]
    explicit = {name for f in model.features if isinstance(f, RowColumns) for name in f.names}
    features = FeatureSet(
        model.features, row_columns=[n for n in readable if not n.startswith("_") and n not in explicit]
    )
    if not features.columns:
        raise DefinitionError("a model must read a column that is neither the key nor read by the label",
                              where=where, got=schema.names,
                              remedy="Ingest what is known of a row at the decision, too")  # fmt: skip
    return features


def unread_columns(model: Model, schema: pa.Schema) -> dict[str, str]:
    """Columns of the label's table that are neither its key, nor of the label, nor features; each with the reason."""
    read = {*features_of(model, schema).request_columns, *model.label.table.key, *_label_columns(model)}
    moments = set(model.parsed_decide_at.columns) if model.timed else set()
    reasons = {}
    for name, form in zip(schema.names, schema.types, strict=True):
        kind = kind_of(form)
        if name in read or name.startswith("_"):
            continue
        other = EXCLUDED if kind in _READABLE else f"a {kind or form}, which no model reads as it is"
        reasons[name] = "moment of the decision" if name in moments else other
    return reasons


def read_spine(rows: pa.Table, model: Model, features: FeatureSet) -> pa.Table:
    """Rows of the label's table as a spine: keys, request columns, moment of decision.

    A :class:`Label` is read from the same row, with the time at which it was known; an outcome is added by
    :func:`build_frame`.

    Raises
    ------
    DefinitionError
        If a column does not exist, or a derived feature reads a column that the label is made of.
    """
    label, where = model.label, f"model {model.name}"
    expressions = {"decide_at": model.parsed_decide_at} if model.timed else {}
    if isinstance(label, Label):
        clock = {} if label.parsed_known_at is None else {"known_at": label.parsed_known_at}
        expressions = {"label": label.parsed, **clock, **label.more, **expressions}
    if model.recipe.weights is not None:
        expressions["weights"] = parse(model.recipe.weights, where=f"{where}, recipe, weights")
    for what, expression in expressions.items():
        expression.check_columns(rows.column_names, where=f"{where}, {what} (table {label.table.name!r})")
    leaks = sorted(_label_columns(model) & set(features.request_columns))
    if leaks:
        raise DefinitionError(
            "a feature must not read what the label is made of", where=f"{where}, label {label.name!r}", got=leaks,
            remedy="At the moment of the decision it is not known; use a view with known_at",
        )  # fmt: skip
    columns_read = _spine_columns(rows, model, features)
    # Without a moment no feature depends on one: a constant, which the frame does not keep, stands for it.
    moment = model.parsed_decide_at.to_sql() if model.timed else "make_timestamptz(0)"
    columns = [*(quote(name) for name in columns_read), f"{moment} AS {AT}"]
    if isinstance(label, Label):
        columns.append(f"{label.parsed.to_sql()} AS {_LABEL}")
        if label.parsed_known_at is not None:
            columns.append(f"{label.parsed_known_at.to_sql()} AS {_KNOWN}")
        columns += [f"{expression.to_sql()} AS {_MORE}{name}" for name, expression in label.more.items()]
    if "weights" in expressions:
        columns.append(f"CAST({expressions['weights'].to_sql()} AS DOUBLE) AS {_WEIGHT}")
    if model.group is not None:
        columns.append(f"{quote(model.group)} AS {_GROUP}")
    try:
        spine = query(f"SELECT {', '.join(columns)} FROM rows", rows=rows)
    except duckdb.Error as error:
        # DuckDB's own words may hold values of the data: only its kind of error is passed on.
        read = sorted({column for expression in expressions.values() for column in expression.columns})
        raise DefinitionError(
            f"{_enumerate_names(expressions)} must fit the types of their columns ({type(error).__name__})",
            where=where, got={name: str(rows.schema.field(name).type) for name in read},
            remedy="Say what a column holds with Table(columns={'amount': 'float', …}) and ingest again",
        ) from error  # fmt: skip
    return spine if label.horizons else _plain_label(spine)


def _plain_label(spine: pa.Table) -> pa.Table:
    place = spine.schema.get_field_index(_LABEL)
    return spine if place < 0 else spine.set_column(place, _LABEL, plain_labels(spine.column(place)))


def _label_columns(model: Model) -> set[str]:
    """Columns of the label's table that tell the label, which no row of the decision has yet."""
    label = model.label
    if isinstance(label, Label):
        expressions = (label.parsed, label.parsed_known_at, *label.more.values())
        return {name for expression in expressions if expression is not None for name in expression.columns}
    if label.source.table.name != label.table.name:
        return set()
    # The row itself may be a fact of the outcome. What decide_at reads is known at the decision.
    read = set(ViewPlan(label.view).source_columns)
    return read - {*label.entity.keys, label.source.sequence, *model.parsed_decide_at.columns}


def _spine_columns(rows: pa.Table, model: Model, features: FeatureSet) -> list[str]:
    """Columns of the label's table that a frame begins with."""
    label = model.label
    entity_keys = label.entity.keys if isinstance(label, Outcome) else ()
    columns = list(
        dict.fromkeys(
            [
                *label.table.key,
                *features.request_keys,
                *features.request_columns,
                *entity_keys,
                *model.recipe.split.columns,
            ]
        )
    )
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise DefinitionError("the label's table must have its key, and the columns that features and the label read",
                              where=f"model {model.name}, label {label.name!r}, table {label.table.name!r}",
                              got=missing, remedy="Rename the input, or map the key with view.keyed(...)")  # fmt: skip
    return columns


def _enumerate_names(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def build_frame(
    tables: TableStore,
    model: Model,
    versions: Mapping[str, int],
    *,
    indexes: EventIndexes | None = None,
    ignore_known_at: bool = False,
    bare: bool = False,
) -> Frame:
    """Training frame of a model from numbered table versions.

    Parameters
    ----------
    tables : TableStore
    model : Model
    versions : mapping of str to int
        Version of every table of :func:`tables_of`.
    indexes : EventIndexes, optional
        Where sorted events of the same tables are kept. None: they are read from the tables and sorted, which gives
        the same bytes.
    ignore_known_at : bool, default False
        True joins by event time alone, as a tool with one clock would: only to show what that leaks. An outcome stays
        what it is.
    bare : bool, default False
        True leaves the features out: only to see which rows a split takes.
    """
    label = model.label
    features = features_of(model, tables.schema(label.table.name, versions[label.table.name]))
    for plan in features.views:
        check_schema(plan, tables.schema(plan.source.table.name, versions[plan.source.table.name]))
    rows = tables.read(label.table.name, versions[label.table.name])
    spine = _moments_checked(read_spine(rows, model, features), model)

    def gather(make: Callable[[Mapping[str, Rows]], pa.Table], feature_set: FeatureSet) -> pa.Table:
        if indexes is not None:
            return indexes.gather(make, feature_set, versions)
        names = {source.table.name for source in feature_set.sources.values()}
        read = {name: tables.read(name, versions[name]) for name in names}
        return make({name: read[source.table.name] for name, source in feature_set.sources.items()})

    if isinstance(label, Outcome):
        check_outcome(label, tables.schema(label.source.table.name, versions[label.source.table.name]))
        outcomes = gather(lambda rows: outcome_labels(spine, AT, label, rows), FeatureSet([label.view]))
        spine = spine.append_column(_LABEL, plain_labels(outcomes.column("label")))
        spine = spine.append_column(_KNOWN, outcomes.column("known_at"))
    table = spine if bare else gather(
        lambda rows: training_frame(spine, AT, features, rows, ignore_known_at=ignore_known_at), features
    )  # fmt: skip
    at = table.column(AT).cast(pa.int64()).to_numpy()
    if not model.timed:
        table = table.drop_columns([AT])
    known_at = np.zeros_like(at)
    if _KNOWN in table.column_names:
        known_at = _moments(table, _KNOWN, model)
    until_days = None
    if model.known_target is not None and model.known_target.task == "survival":
        target, (labels, until_days) = model.known_target, _days(table, model, at)
    else:
        # An outcome without a time at which it became known is no outcome yet.
        target, labels = encode_labels(model, table.column(_LABEL), is_known=known_at != NEVER)
    hidden = {*table.column_names, *_label_columns(model)}
    others = [f.name for f in rows.schema if kind_of(f.type) in ("int", "text") and f.name not in hidden]
    return Frame(
        table, features.columns, at, labels, known_at, target, model.timed, rows.select(others), until_days=until_days
    )  # fmt: skip


def _moments(table: pa.Table, name: str, model: Model) -> NDArray[np.int64]:
    """Instants of a column of times; :data:`NEVER` where there is none."""
    column = table.column(name)
    if not (pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise DefinitionError(
            "the times of a label must be times", where=f"model {model.name}, label {model.label.name!r}",
            got=str(column.type), remedy="Name a time column, or declare it with Table(columns={'…': 'time'}) and "
            "ingest again",
        )  # fmt: skip
    return np.asarray(column.cast(pa.int64()).fill_null(NEVER).to_numpy())


def _days(
    table: pa.Table, model: Model, at: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Signed days of each row, as far as they will ever be seen, and days until it was not followed any more."""
    if model.timed:
        happened = _moments(table, _LABEL, model)
        if f"{_MORE}until" not in table.column_names:
            return survival_labels(at, happened, np.full_like(at, NEVER)), None
        until = _moments(table, f"{_MORE}until", model)
        return survival_labels(at, happened, until), np.where(until == NEVER, np.inf, (until - at) / DAY)
    where, event = f"model {model.name}, label {model.label.name!r}", table.column(f"{_MORE}event")
    if event.null_count:
        raise InputError("every row must say whether its event came", where=f"{where}, event",
                         got=f"{event.null_count} rows that do not",
                         remedy="Write an expression like 'coalesce(died, false)'")  # fmt: skip
    days = plain_labels(table.column(_LABEL)).to_numpy()
    return encode_days(np.asarray(days, np.float64), plain_labels(event).to_numpy() != 0, where=where), None


def _moments_checked(spine: pa.Table, model: Model) -> pa.Table:
    """Return the spine, whose every row has a moment of decision."""
    where, moments = f"model {model.name}, decide_at", spine.column(AT)
    if not (pa.types.is_timestamp(moments.type) or pa.types.is_integer(moments.type) or pa.types.is_null(moments.type)):
        raise DefinitionError(
            "decide_at must be a time", where=f"{where} (table {model.label.table.name!r})",
            got={model.decide_at: str(moments.type)},
            remedy="Name a time column, or declare it with Table(columns={'asked_at': 'time'}) and ingest again",
        )  # fmt: skip
    if moments.null_count:
        raise InputError("every row must have a moment of decision", where=where,
                         got=f"{moments.null_count} rows without one",
                         remedy="Quarantine such rows with Check.not_null")  # fmt: skip
    return spine


def count_left_out(frame: Frame, model: Model, *, now: int) -> dict[str, int]:
    """Rows of the split that were neither trained nor evaluated on, by why.

    Returns
    -------
    dict of str to int
        ``pending``: the outcome is not known yet. ``void``: it is known that there is none, or it has matured and
        nothing is known. ``purged_train``, ``purged_validate``, of a split in time: it became known only after the next
        part had begun. Of a time to an event only ``before_decision``: its event, or its follow-up, ended before.
    """
    split = model.recipe.split
    inside, purged = np.ones(len(frame.at), dtype=np.bool_), {}
    if isinstance(split, TimeSplit):
        spans = split.spans(now)
        inside = (frame.at >= spans["train"][0]) & (frame.at < spans["test"][1])
        purged = {
            f"purged_{name}": len(frame.rows(start, end, known_before=now))
            - len(frame.rows(start, end, known_before=bound))
            for name, (start, end, bound) in spans.items()
            if name != "test"
        }
    if frame.target.task == "survival":
        return {"before_decision" if frame.timed else "void": int((inside & np.isnan(frame.labels)).sum())}
    # An outcome is known at the moment it matures, hence seen one microsecond later, and pending until then.
    matures = model.label.maturity + isinstance(model.label, Outcome)
    pending = inside & (frame.known_at >= now)
    if frame.timed:
        pending &= frame.at + matures > now
    labelled = inside & (frame.known_at < now) & ~np.isnan(frame.labels)
    return {"pending": int(pending.sum()), "void": int((inside & ~pending & ~labelled).sum()), **purged}
