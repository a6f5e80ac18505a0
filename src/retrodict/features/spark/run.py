"""Runs a feature set on Spark: by the kernel, distributed by key, or as compiled SQL.

``kernel`` sends each share of the keys, with its rows of the spine and its events, to one call of the same
``training_frame`` that runs without Spark, so values are equal by construction. ``sql`` merges totals inside Spark and
finishes them by the table of aggregates. A second implementation of the kernels in Scala was rejected: a third meaning
to keep equal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from retrodict.core.errors import InputError, MissingExtraError, near
from retrodict.features.definitions import FeatureView
from retrodict.features.facts.evaluation import derive_columns
from retrodict.features.offline.frame import training_frame
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.features.spark.dialects import SPARK
from retrodict.features.spark.finish import finish_view
from retrodict.features.spark.sql import POSITION, ROW, ViewQuery, canonical_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Engine", "training_frame_on_spark"]

Engine = Literal["kernel", "sql"]
_SHARE = "__share"


def training_frame_on_spark(
    session: SparkSession,
    spine: DataFrame,
    at: str,
    features: FeatureSet,
    sources: Mapping[str, DataFrame],
    *,
    engine: Engine = "kernel",
) -> DataFrame:
    """Add every feature to the rows of a spine, as :func:`~retrodict.features.offline.training_frame` does.

    Parameters
    ----------
    session : pyspark.sql.SparkSession
        The session of the data frames. Its workers need this package; functions of derived features travel with what
        they name of their own module.
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
    engine : {"kernel", "sql"}, default "kernel"
        ``kernel`` computes every feature; the keys are shared out over ``spark.sql.shuffle.partitions`` groups, each of
        which must fit into the memory of a worker. ``sql`` computes totals and latest values and meets each row of the
        spine with each event of its key inside the longest window; it keeps nothing but totals, and starts with a scan
        of its own.

    Returns
    -------
    pyspark.sql.DataFrame
        Each row of the spine once, with one column per feature of ``features.columns``. Lazy, so that what is wrong
        with a row (a null time) is said when it is read, as an error of Spark with our text in it.

    Raises
    ------
    DefinitionError, InputError
        As ``training_frame``, from the columns alone; and if ``sql`` cannot compute a feature.
    MissingExtraError
        If pyspark or pandas is not installed.

    Examples
    --------
    >>> frame = training_frame_on_spark(spark, spine, "at", features, {"landed": flights})  # doctest: +SKIP
    """
    for library in ("pyspark", "pandas"):
        if find_spec(library) is None:
            raise MissingExtraError(library, "spark", needed_for="a training frame on Spark")
    if engine not in {"kernel", "sql"}:
        raise InputError(
            "there is such an engine",
            where="training_frame_on_spark",
            got=engine,
            remedy=near(engine, ["kernel", "sql"], what="engine"),
        )
    features = FeatureSet(_portable(feature) for feature in features.features)
    job = _Job(session, at, features, dict(sources), _result_schema(spine, at, features, sources))
    return job.by_kernel(spine) if engine == "kernel" else job.by_sql(spine)


@dataclass(frozen=True)
class _Named:
    """All that a source says of its table on a worker."""

    name: str


def _portable(feature: Any) -> Any:
    if not isinstance(feature, FeatureView):
        return feature
    return replace(feature, source=replace(feature.source, table=_Named(feature.source.table.name)))


def _arrow(frame: DataFrame) -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(frame.schema, timezone="UTC")


def _result_schema(spine: DataFrame, at: str, features: FeatureSet, sources: Mapping[str, DataFrame]) -> pa.Schema:
    """Types of the result: what the kernel gives of no rows, which also checks every column and kind."""
    missing = [name for name in features.sources if name not in sources]
    if missing:
        raise InputError(
            "there is a data frame for every source",
            where="training_frame_on_spark",
            got=missing[0],
            remedy=near(missing[0], sources, what="source"),
        )
    empty = {name: _arrow(sources[name]).empty_table() for name in features.sources}
    return training_frame(_arrow(spine).empty_table(), at, features, empty).schema


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

    def by_kernel(self, spine: DataFrame) -> DataFrame:
        frame = spine
        for plan in self.features.views:
            frame = self._view_by_kernel(frame, plan)
        if self.features.derived:
            derived = tuple(name for name in self.features.columns if name not in frame.columns)
            frame = self._mapped(frame, frame, derived, _deriver(self.features))
        return frame.select(*(SPARK.quote(name) for name in [*spine.columns, *self.features.columns]))

    def _view_by_kernel(self, frame: DataFrame, plan: ViewPlan) -> DataFrame:
        source = self._positioned(plan).select(*(SPARK.quote(name) for name in [*plan.source_columns, POSITION]))
        types = self._types(frame, tuple(output.column for output in plan.outputs))
        left, right = self._shared(frame, plan.request_keys), self._shared(source, plan.keys)
        compute = _kernel(FeatureSet([plan.view]), self.at, types)
        return left.groupBy(_SHARE).cogroup(right.groupBy(_SHARE)).applyInArrow(compute, types)

    def _shared(self, frame: DataFrame, keys: tuple[str, ...]) -> DataFrame:
        """A column that says in which group the row's key is."""
        from pyspark.sql import functions

        groups = int(self.session.conf.get("spark.sql.shuffle.partitions") or 1)
        parts = ", ".join(canonical_key(_arrow(frame), key, SPARK) for key in keys)
        return frame.withColumn(_SHARE, functions.expr(f"pmod(xxhash64({parts}), {groups})"))

    def _positioned(self, plan: ViewPlan) -> DataFrame:
        from pyspark.sql import functions

        source = self.sources[plan.source.name]
        if POSITION in source.columns:
            return source
        return source.withColumn(POSITION, functions.monotonically_increasing_id())

    def by_sql(self, spine: DataFrame) -> DataFrame:
        from pyspark.sql import functions

        # Written down, since a row that is computed anew could get another number.
        numbered = spine.withColumn(ROW, functions.monotonically_increasing_id()).localCheckpoint()
        frame, finishers = numbered, []
        for place, plan in enumerate(self.features.views):
            totals, buckets = self._totals(plan, numbered, _arrow(spine))
            renamed = [name if name == ROW else f"__{place}_{name}" for name in totals.columns]
            frame = frame.join(totals.toDF(*renamed), ROW, "left")
            finishers.append((plan, f"__{place}_", buckets))
        finish = _finisher(self.features, spine.columns, finishers, self.schema)
        return self._mapped(frame, spine, self.features.columns, finish)

    def _totals(self, plan: ViewPlan, spine: DataFrame, columns: pa.Schema) -> tuple[DataFrame, dict[int, list[int]]]:
        names = [f"retrodict_{kind}_{plan.state_id[-12:]}" for kind in ("events", "spine")]
        source = self._positioned(plan)
        relations = (SPARK.quote(names[0]), SPARK.quote(names[1]))
        query = ViewQuery(plan, _arrow(self.sources[plan.source.name]), columns, self.at, SPARK, relations)
        try:
            source.createOrReplaceTempView(names[0])
            spine.createOrReplaceTempView(names[1])
            probed = self.session.sql(query.probe()).collect()[0].asDict()
            _check_nulls(plan, self.at, probed)
            buckets = {i: sorted(probed[f"b_{i}"]) for i in query.floating}
            return self.session.sql(query.totals(buckets)), buckets
        finally:
            for name in names:
                self.session.catalog.dropTempView(name)

    def _mapped(self, frame: DataFrame, kept: DataFrame, columns: tuple[str, ...], compute: _Compute) -> DataFrame:
        """Rows with columns added, batch by batch."""
        types = self._types(kept, columns)
        target = _arrow_types(types)

        def mapped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from compute(pa.Table.from_batches([batch])).select(target.names).cast(target).to_batches()

        with _by_value(self.features):
            return frame.mapInArrow(mapped, types)


_Compute = Callable[[pa.Table], pa.Table]


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


def _check_nulls(plan: ViewPlan, at: str, probed: Mapping[str, Any]) -> None:
    if probed["no_time"]:
        raise InputError(
            "every row of a spine has its time",
            where=f"spine, column {at!r}",
            got=f"{probed['no_time']} nulls",
            remedy="Drop or complete those rows",
        )
    if probed["no_sequence"]:
        raise InputError(
            "the sequence of an event is a whole number or text, never null",
            where=f"{plan.where}, source {plan.source.name!r}, column {plan.source.sequence!r}",
            got=f"{probed['no_sequence']} nulls",
        )


def _arrow_types(types: Any) -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(types, timezone="UTC")


def _kernel(features: FeatureSet, at: str, types: Any) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """What a worker does with the rows and events of one group of keys."""
    target, source = _arrow_types(types), next(iter(features.sources))

    def compute(rows: pa.Table, events: pa.Table) -> pa.Table:
        events = events.sort_by(POSITION).drop_columns([POSITION, _SHARE])
        frame = training_frame(rows.drop_columns([_SHARE]), at, features, {source: events})
        return frame.select(target.names).cast(target)

    return compute


def _deriver(features: FeatureSet) -> _Compute:
    def compute(frame: pa.Table) -> pa.Table:
        return _with_derived(features, frame, {})

    return compute


def _finisher(
    features: FeatureSet,
    spine_columns: list[str],
    finishers: list[tuple[ViewPlan, str, dict[int, list[int]]]],
    schema: pa.Schema,
) -> _Compute:
    def compute(frame: pa.Table) -> pa.Table:
        spine = frame.select(spine_columns)
        found: dict[str, Any] = {}
        for plan, prefix, buckets in finishers:
            names = [name for name in frame.column_names if name.startswith(prefix)]
            totals = frame.select(names).rename_columns([name.removeprefix(prefix) for name in names])
            found |= finish_view(plan, spine, totals, buckets, schema)
        return _with_derived(features, spine, found)

    return compute


def _with_derived(features: FeatureSet, frame: pa.Table, found: dict[str, Any]) -> pa.Table:
    """Features that were found and derived ones, appended to a frame that may hold some already."""
    held = {name: frame.column(name) for name in features.columns if name in frame.column_names}
    found = held | found
    derive_columns(features, frame, found)
    for name, column in found.items():
        if name not in frame.column_names:
            frame = frame.append_column(name, column)
    return frame
