"""Makes one batch of the parts of several files: the same columns in one order, each of one type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.data.readers._parquet import Part, part_batches
from retrodict.data.readers._stage import ROWS, Staging
from retrodict.data.readers._types import one_schema, plain_batch, without_empty


def join(groups: Sequence[Sequence[Part]], stage: Staging) -> tuple[tuple[Part, ...], pa.Schema]:
    """Parts of all files in order, each with the returned columns; those that differ are written anew.

    Parameters
    ----------
    groups : sequence of sequence of Part
        The parts of each file. Within a file a column may begin late; across files the columns must be the same.
    stage : Staging

    Raises
    ------
    InputError
        If files have other columns, or a column has kinds that are not one.
    """
    schemas = [one_schema([part.schema for part in parts]) for parts in groups]
    for parts, schema in zip(groups, schemas, strict=True):
        missing = set(schemas[0].names) - set(schema.names)
        added = set(schema.names) - set(schemas[0].names)
        if missing or added:
            raise InputError(
                "the files of one batch must have the same columns",
                where=parts[0].name,
                got=f"{len(missing)} missing and {len(added)} more than in {groups[0][0].name}",
                remedy="Ingest them by calls of their own",
            )
    names = ", ".join(dict.fromkeys(part.name for parts in groups for part in parts))
    try:
        schema = one_schema(schemas)
    except InputError as error:
        raise _torn(names, error.where) from error
    schema = without_empty(schema, names)
    joined: list[Part] = []
    for part in (part for parts in groups for part in parts):
        if part.schema.equals(schema):
            joined.append(part)
            continue
        joined += stage.write(part.name, _cast(part, schema, names), schema)
        stage.discard(part)
    return tuple(joined), schema


def _cast(part: Part, schema: pa.Schema, names: str) -> Iterator[pa.RecordBatch]:
    for rows in part_batches(part, ROWS):
        try:
            yield plain_batch(rows, schema)
        except pa.ArrowException:
            raise _torn(names, None) from None  # its text quotes the value


def _torn(names: str, column: str | None) -> InputError:
    return InputError(
        "a column must have one type in all files of a batch",
        where=f"{names}, {column}" if column else names,
        remedy="Ingest them by calls of their own",
    )
