"""Runs a feature set on Spark: the same kernel, distributed by key.

Each share of the keys, with its rows of the spine and its events, goes to one call of the same ``training_frame`` that
runs without Spark, so values are equal by construction. A compilation to Spark SQL was rejected: it computes totals
only, meets every row with every event of a frequent key, and is a second meaning to keep equal; so would be kernels in
Scala.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retrodict.core.errors import InputError, MissingExtraError, check_known
from retrodict.core.kinds import kind_of
from retrodict.features.definitions import FeatureView
from retrodict.features.facts.evaluation import derive_columns
from retrodict.features.offline.frame import training_frame
from retrodict.features.plan import FeatureSet, ViewPlan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["POSITION", "check_installed", "quote", "training_frame_on_spark"]

POSITION = "__position"
"""Column of a source without a sequence that says which of two events at one time came first."""

_SHARE = "__share"
_KEYS = {
    "date": "CAST(unix_date({}) AS BIGINT)",
    "time": "unix_micros({})",
    "int": "CAST({} AS BIGINT)",
    "null": "CAST(NULL AS BIGINT)",
}


def training_frame_on_spark(
    session: SparkSession, spine: DataFrame, at: str, features: FeatureSet, sources: Mapping[str, DataFrame]
) -> DataFrame:
    """Add every feature to the rows of a spine, as :func:`~retrodict.features.offline.training_frame` does.

    Parameters
    ----------
    session : pyspark.sql.SparkSession
        The session of the data frames. Its workers need this package; functions of derived features travel with what
        they name of their own module. The keys are shared out over ``spark.sql.shuffle.partitions`` groups, each of
        which must fit into the memory of a worker.
    spine : pyspark.sql.DataFrame
        One row per decision. Spark keeps no order of rows: give it a column of its own to find them again.
    at : str
        Its time column: ``TIMESTAMP``, never null.
    features : FeatureSet
        What to compute.
    sources : mapping of str to pyspark.sql.DataFrame
        Rows of each source by the source's name; reading one twice must give the same rows. Of a source without a
        sequence, ties break by the column ``__position`` (whole numbers), or where there is none by the position in its
        partitions, so these must be in the order that is meant.

    Returns
    -------
    pyspark.sql.DataFrame
        Each row of the spine once, with one column per feature of ``features.columns``. Lazy: what is wrong with a row
        (a null time) shows when it is read, as an error of Spark with our text in it.

    Raises
    ------
    DefinitionError, InputError
        As ``training_frame``, from the columns alone.
    MissingExtraError
        If pyspark or pandas is not installed.

    Examples
    --------
    >>> frame = training_frame_on_spark(spark, spine, "at", features, {"landed": flights})  # doctest: +SKIP
    """
    check_installed()
    features = FeatureSet(_portable(feature) for feature in features.features)
    job = _Job(session, at, features, dict(sources), _frame_schema(spine, at, features, sources))
    frame = spine
    for plan in features.views:
        frame = job.with_view(frame, plan)
    if features.derived:
        frame = job.with_derived(frame)
    return frame.select(*(quote(name) for name in [*spine.columns, *features.columns]))


def check_installed() -> None:
    """MissingExtraError unless pyspark and pandas are there."""
    for library in ("pyspark", "pandas"):
        if find_spec(library) is None:
            raise MissingExtraError(library, "spark", needed_for="a training frame on Spark")


def quote(name: str) -> str:
    """A column's name as Spark SQL quotes it."""
    return "`" + name.replace("`", "``") + "`"


def _portable(feature: Any) -> Any:
    """A feature without what no worker needs: of a source's table it knows the name."""
    if not isinstance(feature, FeatureView):
        return feature
    return replace(feature, source=replace(feature.source, table=SimpleNamespace(name=feature.source.table.name)))


def _arrow(types: Any) -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(types, timezone="UTC")


def _frame_schema(spine: DataFrame, at: str, features: FeatureSet, sources: Mapping[str, DataFrame]) -> pa.Schema:
    """Types of the frame: those that the kernel gives of no rows, which also checks every column and kind."""
    rule, where = "every source must have a data frame", "training_frame_on_spark"
    for name in features.sources:
        check_known(name, sources, rule, where=where, what="source", error=InputError)
    empty = {name: _arrow(sources[name].schema).empty_table() for name in features.sources}
    return training_frame(_arrow(spine.schema).empty_table(), at, features, empty).schema


@dataclass(frozen=True)
class _Job:
    session: SparkSession
    at: str
    features: FeatureSet
    sources: dict[str, DataFrame]
    schema: pa.Schema

    def _types(self, frame: DataFrame, columns: tuple[str, ...]) -> Any:
        """Spark's types of the columns of a frame and of some features."""
        from pyspark.sql.pandas.types import from_arrow_schema
        from pyspark.sql.types import StructType

        added = from_arrow_schema(pa.schema([self.schema.field(name) for name in columns]))
        return StructType([*frame.schema.fields, *added.fields])

    def with_view(self, frame: DataFrame, plan: ViewPlan) -> DataFrame:
        """Features of a view, group of keys by group of keys."""
        source = self._positioned(plan).select(*(quote(name) for name in [*plan.source_columns, POSITION]))
        types = self._types(frame, tuple(output.column for output in plan.outputs))
        left, right = self._shared(frame, plan.request_keys), self._shared(source, plan.keys)
        compute = _kernel(FeatureSet([plan.view]), self.at, types)
        return left.groupBy(_SHARE).cogroup(right.groupBy(_SHARE)).applyInArrow(compute, types)

    def _shared(self, frame: DataFrame, keys: tuple[str, ...]) -> DataFrame:
        """A column with the group of the row's key."""
        from pyspark.sql import functions

        groups = int(self.session.conf.get("spark.sql.shuffle.partitions") or 1)
        schema = _arrow(frame.schema)
        parts = ", ".join(_canonical_key(schema, key) for key in keys) or "true"
        return frame.withColumn(_SHARE, functions.expr(f"pmod(xxhash64({parts}), {groups})"))

    def _positioned(self, plan: ViewPlan) -> DataFrame:
        from pyspark.sql import functions

        source = self.sources[plan.source.name]
        if POSITION in source.columns:
            return source
        return source.withColumn(POSITION, functions.monotonically_increasing_id())

    def with_derived(self, frame: DataFrame) -> DataFrame:
        """Derived features, batch by batch."""
        features = self.features
        types = self._types(frame, tuple(name for name in features.columns if name not in frame.columns))
        target = _arrow(types)

        def mapped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                rows = pa.Table.from_batches([batch])
                columns: dict[str, Any] = {n: rows.column(n) for n in features.columns if n in rows.column_names}
                derive_columns(features, rows, columns)
                for name in columns.keys() - set(rows.column_names):
                    rows = rows.append_column(name, columns[name])
                yield from rows.select(target.names).cast(target).to_batches()

        with _by_value(features):
            return frame.mapInArrow(mapped, types)


@contextmanager
def _by_value(features: FeatureSet) -> Iterator[None]:
    """Send functions of derived features whole: a definitions module is a file here, which no worker can import."""
    from pyspark import cloudpickle

    modules = {sys.modules[name] for f in features.derived if (name := f.function.__module__) in sys.modules}
    modules = {module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()}
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _canonical_key(schema: pa.Schema, name: str) -> str:
    """SQL of a key column in the form of its kind: equal keys of a spine and a source must hash alike."""
    return _KEYS.get(kind_of(schema.field(name).type), "{}").format(quote(name))


def _kernel(features: FeatureSet, at: str, types: Any) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """What a worker does with the rows and events of one group of keys."""
    target, source = _arrow(types), next(iter(features.sources))

    def compute(rows: pa.Table, events: pa.Table) -> pa.Table:
        events = events.sort_by(POSITION).drop_columns([POSITION, _SHARE])
        frame = training_frame(rows.drop_columns([_SHARE]), at, features, {source: events})
        return frame.select(target.names).cast(target)

    return compute
