"""Data files back into rows: in order, a bounded number at a time, and never fewer than the log says.

One scan per file and not one over all: only so is a file that lost rows noticed, by name. Arrow casts narrower files
and fills columns that a file does not have, so old files stay as they are when a table gains columns or wider types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.core.errors import IntegrityError
from retrodict.stores.tables._log import DataFile
from retrodict.stores.tables._places import Place, mapped, mapping
from retrodict.stores.tables.base import TableFile

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_BATCH = 1 << 16
_READAHEAD = 4


def dataset_of(place: Place, name: str, files: Sequence[DataFile], schema: pa.Schema) -> ds.FileSystemDataset:
    """Dataset over files in their order; IntegrityError if one is missing or of another size."""
    import pyarrow.dataset as ds

    check_sizes(place, name, files)
    form = _format()
    fragments = [form.make_fragment(place.path(name, file.path), place.filesystem) for file in files]
    return ds.FileSystemDataset(fragments, schema, form, place.filesystem)


def check_sizes(place: Place, name: str, files: Sequence[DataFile]) -> None:
    """Compare each file with the log: bytes that were cut off or added are damage."""
    with mapping(f"table {name}"):
        sizes = place.sizes(name, [file.path for file in files])
    for file in files:
        if sizes.get(file.path) != file.size:
            raise damaged(name, file)


def batches_of(
    place: Place, name: str, files: Sequence[DataFile], schema: pa.Schema, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Rows of files in their order; each file is checked to hold the rows the log says."""
    for file in files:
        fragment = _format().make_fragment(place.path(name, file.path), place.filesystem)
        count = 0
        try:
            scanner = fragment.scanner(
                schema=schema,
                columns=list(columns),
                batch_size=_BATCH,
                batch_readahead=_READAHEAD,
                fragment_readahead=1,
                use_threads=True,
            )
            for batch in scanner.to_reader():
                count += batch.num_rows
                if batch.num_rows:
                    yield batch
        except (pa.ArrowException, OSError) as error:
            raise _read_error(name, file, error) from error
        if file.rows is not None and count != file.rows:
            raise damaged(name, file)


def described(place: Place, name: str, file: DataFile) -> TableFile:
    """File as callers see it; another program may have left the count of rows to the file itself."""
    if file.rows is not None:
        return TableFile(file.path, file.size, file.rows, file.removed)
    try:
        with place.filesystem.open_input_file(place.path(name, file.path)) as source:
            return TableFile(file.path, file.size, pq.read_metadata(source).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _read_error(name, file, error) from error


def damaged(name: str, file: DataFile) -> IntegrityError:
    """Error of a data file that is not what the log says."""
    return IntegrityError(
        "a data file must be there and intact",
        where=f"table {name}, file {file.path}",
        remedy="Restore the file from a copy",
        got="a missing, cut off or damaged one",
    )


@cache
def _format() -> ds.ParquetFileFormat:
    # Loaded on the first read: it loads pandas where there is one, and writers need neither.
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat()


def _read_error(name: str, file: DataFile, error: Exception) -> Exception:
    # Arrow calls a page it cannot decode an OSError without number; what has a number, or comes from a server that
    # answers, says nothing about the bytes.
    answered = isinstance(error, OSError) and (error.errno is not None or "AWS Error" in str(error))
    if answered and not isinstance(error, FileNotFoundError):
        assert isinstance(error, OSError)
        return mapped(error, f"table {name}, file {file.path}")
    return damaged(name, file)
