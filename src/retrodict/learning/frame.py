"""The training frame: one row per decided thing, what was known at the moment of the decision, and what then happened.

Built only from the model's definition and numbered table versions, so that the same two give the same bytes again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.errors import DefinitionError, InputError
from retrodict.features.catalogue import check_schema
from retrodict.features.definitions import FeatureView
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model, Split
from retrodict.stores.sql import query, quote
from retrodict.stores.tables.base import TableStore
from retrodict.stores.tables.content import table_digest

__all__ = ["Frame", "build_frame", "newest_versions", "read_spine", "tables_of"]

AT = "_decide_at"
_LABEL, _KNOWN = "_label", "_known_at"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Rows of one model, in the order of the label's table.

    Attributes
    ----------
    table : pyarrow.Table
        Spine columns and one column per feature.
    features : tuple of str
        Names of the feature columns, in the order of the model.
    at : ndarray of int64, shape (n,)
        Moments of decision, microseconds since 1970-01-01 UTC.
    labels : ndarray of float64, shape (n,)
        0, 1, or NaN where there is no outcome.
    known_at : ndarray of int64, shape (n,)
        When the outcome became known; the largest int64 where it never did.
    """

    table: pa.Table
    features: tuple[str, ...]
    at: NDArray[np.int64]
    labels: NDArray[np.float64]
    known_at: NDArray[np.int64]

    def digest(self) -> str:
        """SHA-256 over all rows and columns: never a sample."""
        return table_digest(self.table)

    def rows(self, start: int, end: int, *, known_before: int | None = None) -> NDArray[np.int64]:
        """Positions of labelled rows with ``start <= at < end`` whose outcome was known before an instant."""
        mask = (self.at >= start) & (self.at < end) & ~np.isnan(self.labels)
        if known_before is not None:
            mask &= self.known_at < known_before
        return np.flatnonzero(mask)

    def columns(self, positions: NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """Feature columns of some rows."""
        taken = self.table.select(list(self.features)).take(pa.array(positions))
        return {name: taken.column(name) for name in self.features}


def tables_of(model: Model) -> list[str]:
    """Names of the tables a model is made from."""
    names = {model.label.table.name}
    names |= {view.source.table.name for view in model.features if isinstance(view, FeatureView)}
    return sorted(names)


def newest_versions(tables: TableStore, model: Model) -> dict[str, int]:
    """Newest version of every table of a model; InputError names a table that holds nothing yet."""
    versions = {}
    for name in tables_of(model):
        history = tables.history(name)
        if not history:
            raise InputError(
                "every table of the model holds rows",
                where=f"model {model.name}",
                got=name,
                remedy=f"Fill it with: retrodict ingest {name} FILE",
            )
        versions[name] = history[-1].version
    return versions


def read_spine(rows: pa.Table, model: Model, features: FeatureSet) -> pa.Table:
    """Rows of the label's table as a spine: keys, request columns, moment of decision, label and when it was known.

    Raises
    ------
    DefinitionError
        If a column does not exist, or a derived feature reads a column that the label is made of.
    """
    label = model.label
    where = f"model {model.name}"
    for what, expression in (
        ("label", label.parsed),
        ("known_at", label.parsed_known_at),
        ("decide_at", model.parsed_decide_at),
    ):
        expression.check_columns(rows.column_names, where=f"{where}, {what}")
    told = set(label.parsed.columns) | set(label.parsed_known_at.columns)
    leaks = sorted(told & set(features.request_columns))
    if leaks:
        raise DefinitionError(
            "no feature reads what the label is made of",
            where=where,
            got=leaks,
            remedy="At the moment of the decision it is not known; use a view with known_at",
        )
    key = tuple(label.table.key)
    wanted = dict.fromkeys([*key, *features.request_keys, *features.request_columns])
    missing = [name for name in wanted if name not in rows.column_names]
    if missing:
        raise DefinitionError(
            "the label's table has the columns that features ask for",
            where=where,
            got=missing,
            remedy="Rename the input, or map the key with view.keyed(...)",
        )
    sql = (
        f"SELECT {', '.join(quote(name) for name in wanted)}, {model.parsed_decide_at.to_sql()} AS {AT}, "
        f"CAST({label.parsed.to_sql()} AS DOUBLE) AS {_LABEL}, {label.parsed_known_at.to_sql()} AS {_KNOWN} FROM rows"
    )
    try:
        return query(sql, rows=rows)
    except duckdb.Error as error:
        # DuckDB's own words may hold values of the data: only its kind of error is passed on.
        types = {name: str(rows.schema.field(name).type) for name in sorted(told | set(model.parsed_decide_at.columns))}
        raise DefinitionError(
            f"label, known_at and decide_at fit the types of their columns ({type(error).__name__})",
            where=where,
            got=types,
            remedy="Say what a column holds with Table(columns={'amount': 'float', …}) and ingest again",
        ) from error


def build_frame(
    tables: TableStore, model: Model, versions: Mapping[str, int], *, ignore_known_at: bool = False
) -> Frame:
    """Training frame of a model from numbered table versions.

    Parameters
    ----------
    tables : TableStore
    model : Model
    versions : mapping of str to int
        Version of every table of :func:`tables_of`.
    ignore_known_at : bool, default False
        True joins by event time alone, as a tool with one clock would: only to show what that leaks.
    """
    features = FeatureSet(model.features)
    read = {name: tables.read(name, versions[name]) for name in tables_of(model)}
    for plan in features.views:
        check_schema(plan, read[plan.source.table.name].schema)
    spine = read_spine(read[model.label.table.name], model, features)
    missing = spine.column(AT).null_count
    if missing:
        raise InputError(
            "every row has a moment of decision",
            where=f"model {model.name}, decide_at",
            got=f"{missing} rows without one",
            remedy="Quarantine such rows with Check.not_null",
        )
    sources = {name: read[source.table.name] for name, source in features.sources.items()}
    table = training_frame(spine, AT, features, sources, ignore_known_at=ignore_known_at)
    never = np.iinfo(np.int64).max
    known = table.column(_KNOWN).cast(pa.int64()).fill_null(never).to_numpy()
    labels = table.column(_LABEL).to_numpy()
    # An outcome without a time at which it became known is no outcome yet.
    labels = np.where(known == never, np.nan, np.asarray(labels, dtype=np.float64))
    return Frame(table, features.columns, table.column(AT).cast(pa.int64()).to_numpy(), labels, known)


def split_rows(frame: Frame, split: Split, *, now: int) -> dict[str, NDArray[np.int64]]:
    """Positions of the rows of each part; only outcomes that are known now take part."""
    edges = (split.train_start, split.train_end, split.validate_end, split.test_end)
    names = ("train", "validate", "test")
    return {
        name: frame.rows(start, end, known_before=now)
        for name, start, end in zip(names, edges[:-1], edges[1:], strict=True)
    }
