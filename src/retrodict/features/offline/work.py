"""What a training frame is made for and how: a spine that can be read again, and the work to be done on its rows.

The engine is a function from rows to frames, so that keeping a frame, writing it to a file and computing it elsewhere
are three things that know nothing of each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.data.versions import resolve
from retrodict.features.offline.frames import SpineReader, frame_batches
from retrodict.features.offline.indexes import EventIndexes
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.base import TableStore
from retrodict.workspace import Workspace

__all__ = ["FrameWork", "Spine", "local_work", "newest_versions", "table_spine"]

# Rows computed before any is handed on, since a damaged index shows in the middle of them: as many as work at once.
_TOGETHER = (1 << 19) * min(os.cpu_count() or 1, 4)


@dataclass(frozen=True, slots=True)
class Spine:
    """Rows that a frame is made for, readable again.

    Attributes
    ----------
    rows : callable
        Gives a fresh reader of the same rows.
    count : int
        How many there are.
    ref : str
        What they are, for the ledger: ``dataset:orders@3``, or ``batch:`` with the hash of a file.
    origin : str
        The same for people: ``orders@3``, or the name of a file.

    Examples
    --------
    >>> asked = pa.table({"card": ["a", "b"]})
    >>> Spine(asked.to_reader, asked.num_rows, "batch:9f2c", "asked.csv").rows().read_all().num_rows
    2
    """

    rows: Callable[[], pa.RecordBatchReader]
    count: int
    ref: str
    origin: str


def table_spine(workspace: Workspace, ref: str) -> Spine:
    """Rows of a table of the project as a spine, without the columns that say with which batch a row came.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``orders``: the newest version; ``orders@3``, ``orders@golden``: that one.

    Raises
    ------
    NotFoundError
        If there is no such table, version or tag.
    """
    found, tables = resolve(workspace, ref), workspace.tables
    names = [name for name in tables.schema(found.name, found.version).names if not name.startswith("_")]
    count = sum(file.rows for file in tables.files(found.name, found.version))
    return Spine(lambda: tables.batches(found.name, found.version, columns=names), count, str(found), found.short)


@dataclass(frozen=True, slots=True)
class FrameWork:
    """What is computed for the rows of a spine, from which versions of the tables, and by which engine.

    Attributes
    ----------
    at : str
        Time column of the spine.
    features : FeatureSet
        What is computed.
    columns : tuple of str
        Features that the frame gets; the others are only what derived functions need.
    versions : dict of str to int
        Version of every table.
    compute : callable
        Rows of a spine to frames of them, piece by piece, in their order, with at least these features.

    Examples
    --------
    >>> work = local_work(workspace, "at", features)  # doctest: +SKIP
    >>> frame = pa.concat_tables(work.batches(spine))  # doctest: +SKIP
    """

    at: str
    features: FeatureSet
    columns: tuple[str, ...]
    versions: dict[str, int]
    compute: Callable[[pa.Table | pa.RecordBatchReader], Iterator[pa.Table]]

    def batches(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
        """Rows of a spine with the wanted features, piece by piece; at least one piece."""
        names = [*rows.schema.names, *self.columns]
        for frame in self.compute(rows):
            yield frame.select(names)


def local_work(
    workspace: Workspace,
    at: str,
    features: FeatureSet,
    columns: Sequence[str] | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> FrameWork:
    """Work on this machine, on the newest tables, through sorted indexes of their events.

    Parameters
    ----------
    workspace : Workspace
    at : str
        Time column of the spine.
    features : FeatureSet
        What to compute.
    columns : sequence of str, optional
        Which features the frame gets. None: all of them.
    tell : callable, optional
        Called with a sentence when an index is about to be made. None: silent.
    """
    versions, indexes = newest_versions(workspace.tables, features), EventIndexes.of(workspace, tell=tell)

    def frames(rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
        for piece in SpineReader(rows).pieces(_TOGETHER):
            yield from indexes.gather(
                lambda sources, piece=piece: list(frame_batches(piece, at, features, sources)),  # type: ignore[misc]
                features,
                versions,
            )

    return FrameWork(at, features, tuple(features.columns if columns is None else columns), versions, frames)


def newest_versions(tables: TableStore, features: FeatureSet) -> dict[str, int]:
    """Newest version of every table of a feature set; InputError if one has no rows."""
    found = {}
    for source in features.sources.values():
        history = tables.history(source.table.name)
        if not history:
            raise InputError(
                "the table of every source holds rows", where="features", got=source.table.name,
                remedy=f"Fill it with: retrodict ingest {source.table.name} FILE",
            )  # fmt: skip
        found[source.table.name] = history[-1].version
    return found
