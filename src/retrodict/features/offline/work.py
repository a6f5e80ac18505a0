"""What is computed for the rows of a spine, and by which engine.

The engine is a function from rows to frames, so that keeping a frame, writing it to a file and computing it elsewhere
are three things that know nothing of each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.offline.batches import frame_batches
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.spine import SpineReader
from retrodict.features.plan import FeatureSet
from retrodict.workspace import Workspace

__all__ = ["FrameWork", "local_work"]

# Rows computed before any is handed on, since a damaged index shows in the middle of them: as many as work at once.
_TOGETHER = (1 << 19) * min(os.cpu_count() or 1, 4)


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
    versions = newest_versions(workspace.tables, features.tables, where="features")
    indexes = EventIndexes.of(workspace, tell=tell)

    def frames(rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
        for piece in SpineReader(rows).pieces(_TOGETHER):
            yield from indexes.gather(
                lambda sources, piece=piece: list(frame_batches(piece, at, features, sources)),  # type: ignore[misc]
                features,
                versions,
            )

    return FrameWork(at, features, tuple(features.columns if columns is None else columns), versions, frames)
