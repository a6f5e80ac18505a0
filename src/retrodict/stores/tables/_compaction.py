"""Small files into bigger ones, without moving a row.

Only neighbours are joined, and what comes out takes the place of the first of them. Each run is counted by what went
into it (rows, and bytes before they were joined), which only adds up: so a second compaction never finds more to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from retrodict.stores.tables._file_reader import batches_of, check_sizes, described
from retrodict.stores.tables._file_writer import FILE_BYTES, FILE_ROWS, Written, file_name, row_groups, write_file
from retrodict.stores.tables._log import ORDER, PLANNED, Action, DataFile, Snapshot, add, remove
from retrodict.stores.tables._places import Place

Run = list[DataFile]


def runs(place: Place, name: str, state: Snapshot) -> list[Run]:
    """Neighbours that fit one file, two at least."""
    candidates: list[Run] = []
    run: Run = []
    rows = size = 0
    for file in state.ordered():
        count = described(place, name, file).rows
        if run and (rows + count > FILE_ROWS or size + file.weight > FILE_BYTES):
            candidates.append(run)
            run, rows, size = [], 0, 0
        run.append(file)
        rows, size = rows + count, size + file.weight
    return [candidate for candidate in [*candidates, run] if len(candidate) > 1]


def joined(place: Place, name: str, run: Run, schema: pa.Schema) -> Written:
    """One new file with the rows of a run, in the columns of the table today."""
    check_sizes(place, name, run)
    batches = batches_of(place, name, run, schema, schema.names)
    return write_file(place, name, file_name(*run[0].order), row_groups(batches), schema)


def replaced(runs: Sequence[Run], written: Sequence[Written]) -> list[Action]:
    """Actions that put new files in the place of runs."""
    actions = [remove(file, change=False) for run in runs for file in run]
    for run, new in zip(runs, written, strict=True):
        tags = {
            ORDER: "{}-{}".format(*run[0].order),
            PLANNED: str(sum(file.weight for file in run)),
        }
        actions.append(add(new.path, new.size, new.rows, tags=tags, change=False))
    return actions
