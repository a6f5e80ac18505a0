"""A project's training frames computed on Spark: its tables read where they lie, the spine handed over piece by piece.

Each piece of a spine is one job; only its keys, times and request columns travel, and its features come back. Tables in
a folder are read from their files by the workers, so every worker must see that folder; of a table in a bucket the
needed columns go through this process. Writing the whole spine to Spark and the whole frame back was rejected: a
piece that is done is kept, whatever happens to the cluster afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from retrodict.core.errors import ConfigurationError, InputError, InternalError, RetryableError
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.facts.columns import spine_times
from retrodict.features.offline.frame import training_frame
from retrodict.features.offline.spine import SpineReader
from retrodict.features.offline.work import FrameWork
from retrodict.features.plan import FeatureSet
from retrodict.features.spark.run import POSITION, check_installed, quote, training_frame_on_spark
from retrodict.stores.tables.base import TableStore
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["spark_work"]

_LOCAL = "local[*]"
_TOGETHER = 1 << 19  # rows of a spine per job: what comes back of them fits a driver as it is configured by default
_ASKED = "__asked"
_FILE_ROWS = 40  # bits of a position that are the row in its file
_OURS = re.compile(r"retrodict\.core\.errors\.(\w+): (.*)")


@contextmanager
def spark_work(
    workspace: Workspace,
    at: str,
    features: FeatureSet,
    columns: Sequence[str] | None = None,
    *,
    master: str | None = None,
) -> Iterator[FrameWork]:
    """Work on Spark, on the newest tables; the session lives as long as the block, unless there was one before.

    Parameters
    ----------
    workspace : Workspace
    at : str
        Time column of the spine.
    features : FeatureSet
        What to compute.
    columns : sequence of str, optional
        Which features the frame gets. None: all of them.
    master : str, optional
        URL of the cluster, as ``spark://host:7077`` or ``yarn``. None: ``local[*]``, the cores of this machine.

    Raises
    ------
    MissingExtraError
        If pyspark or pandas is not installed.
    ConfigurationError
        If there is no Java, or no session starts at this master.
    """
    check_installed()
    _check_java()
    versions = newest_versions(workspace.tables, features.tables, where="features")
    with _session(workspace.name, master or _LOCAL) as session:
        frames: dict[str, DataFrame] = {}
        empty: dict[str, pa.Table] = {}
        for name, source in features.sources.items():
            table = source.table.name
            read = {c for plan in features.views if plan.source.name == name for c in plan.source_columns}
            frames[name] = _rows(session, workspace.tables, table, versions[table], sorted(read))
            empty[name] = workspace.tables.schema(table, versions[table]).empty_table()

        def compute(rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
            for piece in SpineReader(rows).pieces(_TOGETHER):
                # Of no rows: every mistake in columns and types is found here, with the words of the local engine.
                schema = training_frame(piece.slice(0, 0), at, features, empty).schema
                spine_times(piece, at)
                yield _frame(session, piece, at, features, frames, schema) if piece.num_rows else schema.empty_table()

        yield FrameWork(at, features, tuple(features.columns if columns is None else columns), versions, compute)


def _frame(
    session: SparkSession,
    piece: pa.Table,
    at: str,
    features: FeatureSet,
    sources: dict[str, DataFrame],
    schema: pa.Schema,
) -> pa.Table:
    needed = dict.fromkeys([at, *features.request_keys, *features.request_columns])
    request = piece.select(list(needed)).append_column(_ASKED, pa.array(range(piece.num_rows), pa.int64()))
    columns = [_ASKED, *features.columns]
    with _spark_errors():
        frame = training_frame_on_spark(session, session.createDataFrame(request), at, features, sources)
        answer = frame.select(*(quote(name) for name in columns)).toArrow().sort_by(_ASKED)
    if not answer.column(_ASKED).equals(request.column(_ASKED)):
        raise InternalError(
            "a frame must hold the rows of its spine",
            where="engine spark",
            got=f"{answer.num_rows} of {request.num_rows} rows, or others",
            remedy="Report it, and compute without --engine spark",
        )
    for name in features.columns:
        piece = piece.append_column(schema.field(name), answer.column(name).cast(schema.field(name).type))
    return piece


def _rows(session: SparkSession, tables: TableStore, name: str, version: int, columns: list[str]) -> DataFrame:
    """Columns of a table and the place of each row in it."""
    data = tables.dataset(name, version)
    if not isinstance(data.filesystem, LocalFileSystem) or not data.files:
        rows = tables.read(name, version, columns=columns)
        return session.createDataFrame(rows.append_column(POSITION, pa.array(range(rows.num_rows), pa.int64())))
    from pyspark.sql import functions
    from pyspark.sql.pandas.types import from_arrow_schema

    schema = from_arrow_schema(pa.schema([data.schema.field(column) for column in columns]))
    files = session.read.schema(schema).parquet(*data.files).select("*", "_metadata.file_name", "_metadata.row_index")
    places = [(os.path.basename(path), place << _FILE_ROWS) for place, path in enumerate(data.files)]
    listed = session.createDataFrame(places, "__file string, __place long")
    joined = files.join(functions.broadcast(listed), files["file_name"] == listed["__file"])
    position = (functions.col("__place") + functions.col("row_index")).alias(POSITION)
    return joined.select(*(files[quote(column)] for column in columns), position)


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (home and os.path.exists(os.path.join(home, "bin", "java"))) and shutil.which("java") is None:
        raise ConfigurationError(
            "Java 17 or later must be there for Spark",
            where="engine spark",
            got="no java on the path",
            remedy="Install it (apt install openjdk-17-jre-headless), or set JAVA_HOME",
        )


@contextmanager
def _session(name: str, master: str) -> Iterator[SparkSession]:
    """Session at a master; one that is there already is used and left alone."""
    from pyspark.sql import SparkSession

    before = SparkSession.getActiveSession()
    # Workers are started by Spark: those of this machine must find this interpreter, not the first on the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": os.devnull,
    }
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        loopback = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
        settings |= {**loopback, "spark.sql.shuffle.partitions": str(os.cpu_count() or 1)}
    builder = SparkSession.builder.master(master).appName(f"retrodict {name}")
    for key, value in settings.items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        # pyspark names the pandas it was made for; nothing here goes through pandas.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        try:
            session = before or builder.getOrCreate()
        except Exception as error:  # whatever Java says, in many classes
            raise ConfigurationError(
                f"a Spark session must start at this master ({type(error).__name__})",
                where="engine spark",
                got=master,
                remedy="Write it like local[4], spark://host:7077 or yarn; Spark's own words are above",
            ) from error
        try:
            yield session
        finally:
            if before is None:
                session.stop()


@contextmanager
def _spark_errors() -> Iterator[None]:
    """Errors of a job as ours: with our own text, where a worker raised one of ours."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark.", "py4j.")):
            raise
        ours = _OURS.findall(str(error))
        if ours:
            raise InputError(ours[-1][1].rstrip("."), where="engine spark") from error
        raise RetryableError(
            "Spark must complete a job",
            where="engine spark",
            got=type(error).__name__,
            remedy="Look at its log and try again; what was kept stays. Or compute without --engine spark",
        ) from error
