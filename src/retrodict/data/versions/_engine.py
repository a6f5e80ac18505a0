"""DuckDB over the files of versions, with a bound on memory: what does not fit goes to a folder of the project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from retrodict.core.errors import ConfigurationError, InputError, IntegrityError
from retrodict.stores.sql import quote_text, spilling_duckdb
from retrodict.workspace import Workspace

_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])B", re.IGNORECASE)
_PATTERN = frozenset("*?[]{}")  # DuckDB would look for files that match


@contextmanager
def open_engine(workspace: Workspace, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection of its own that spills into ``state/temp`` beyond ``memory``; its files go with it."""
    memory_bytes(memory)
    with _translating(memory), spilling_duckdb(workspace.root / "state" / "temp", memory) as connection:
        # The bounds in a Parquet file leave NaN out; both of these believe them, and lose rows that hold one.
        connection.execute("SET disabled_optimizers = 'statistics_propagation,join_filter_pushdown'")
        yield connection


def memory_bytes(text: str) -> float:
    """Bytes of ``"1.5GB"``; InputError if it is anything else than a number with a unit."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise InputError(
            "a limit of memory must be a number with a unit", where="diff", got=text, remedy="Write it like '1.5GB'"
        )
    return float(match[1]) * float(1000 ** " KMGT".index(match[2].upper()))


@contextmanager
def _translating(memory: str) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise ConfigurationError(
            "a comparison must fit its limit of memory and the free space of the disk",
            where="diff",
            got=memory,
            remedy="Raise the limit with memory=, or free space on the disk of the project",
        ) from error
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.SerializationException, pa.ArrowInvalid) as error:
        # The text of the library may hold a value or a path.
        raise IntegrityError(
            "the data files of a version must be readable",
            where="diff",
            got=type(error).__name__,
            remedy="Find the damaged file with: retrodict audit verify",
        ) from error


def scan(connection: duckdb.DuckDBPyConnection, name: str, data: ds.Dataset | pa.Table) -> str:
    """Make files readable under a name and return what stands after FROM.

    DuckDB's own reader takes half the time of the way through Arrow, so it is used for what it can read alike: local
    files that all have the columns and types of the version.
    """
    if isinstance(data, ds.FileSystemDataset) and isinstance(data.filesystem, LocalFileSystem):
        plain = data.schema.remove_metadata()
        alike = all(piece.physical_schema.remove_metadata().equals(plain) for piece in data.get_fragments())
        if data.files and alike and not any(_PATTERN & set(path) for path in data.files):
            paths = ", ".join(quote_text(path) for path in data.files)
            # A folder called 'a=b' above the table is no column of it.
            return f"read_parquet([{paths}], hive_partitioning = false)"
    with suppress(duckdb.CatalogException):
        connection.unregister(name)
    connection.register(name, data)
    return name
