"""What a step made, kept in the object store by its content: handed on as it was returned, and verified when read.

Pickle was rejected: what is kept must be readable by a later version of everything, and by anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from retrodict.core.errors import InputError, InternalError
from retrodict.core.identity import canonical_json
from retrodict.stores._durable import make_folder, place_file, read_file
from retrodict.stores.objects.base import ObjectStore

__all__ = ["read_output", "store_output"]


def store_output(objects: ObjectStore, value: Any, *, where: str) -> dict[str, Any]:
    """Keep what a step returned.

    Returns
    -------
    dict
        ``kind`` (``arrow``, ``pandas``, ``polars``, ``json``, ``bytes``, ``path``), ``digest``, ``bytes``; of a table
        ``rows``, of a file its ``name``.

    Raises
    ------
    InputError
        If it is none of these.
    """
    facts: dict[str, Any] = {}
    if isinstance(value, bytes | bytearray):
        kind, data = "bytes", bytes(value)
    elif isinstance(value, PurePath):
        kind, facts["name"] = "path", value.name
        try:
            data = read_file(Path(value))
        except OSError as error:
            raise InputError("the path that a step returns must be a file that can be read", where=where,
                             got=error.strerror, remedy="Return it once it is written") from error  # fmt: skip
    elif hasattr(value, "__arrow_c_stream__") and len(getattr(value, "shape", (0, 0))) == 2:  # a series is no table
        kind, data, facts["rows"] = _frame(value, where)
    else:
        kind, data = "json", _json(value, where)
    return {"kind": kind, "digest": objects.put(data), "bytes": len(data), **facts}


def read_output(objects: ObjectStore, output: Mapping[str, Any], folder: Path) -> Any:
    """Read what a step made, as it was returned; a file is put into a folder.

    Raises
    ------
    NotFoundError, IntegrityError
        If it is gone, or not what was kept.
    """
    kind, data = output["kind"], objects.get(output["digest"])
    if kind == "bytes":
        return data
    if kind == "json":
        return json.loads(data)
    if kind == "path":
        path: Path = folder / output["digest"] / PurePath(output["name"]).name
        if not path.is_file() or read_file(path) != data:
            make_folder(path.parent)
            place_file(path, data)
        return path
    import pyarrow as pa

    table = pa.ipc.open_file(data).read_all()
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table


def _frame(value: Any, where: str) -> tuple[str, bytes, int]:
    import pyarrow as pa

    home = type(value).__module__.partition(".")[0]
    kind = home if home in ("pandas", "polars") else "arrow"
    try:
        table = pa.Table.from_pandas(value) if kind == "pandas" else pa.table(_without_objects(value))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError("each column of a table that a step returns must have one name and one type of Arrow",
                         where=where, got=f"{type(value).__name__} of {home}",
                         remedy="Make texts or numbers of its objects, or return JSON or bytes") from error  # fmt: skip
    # One batch and no slack of slices: equal rows are equal bytes, however they were computed.
    table = table.combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return kind, sink.getvalue().to_pybytes(), table.num_rows


def _without_objects(value: Any) -> Any:
    """Of objects Polars would hand over their addresses in memory."""
    if any(getattr(dtype, "__name__", type(dtype).__name__) == "Object" for dtype in getattr(value, "dtypes", ())):
        raise TypeError
    return value


def _json(value: Any, where: str) -> bytes:
    try:
        data = canonical_json(value)
        if json.loads(data) == value:
            return data
    except InternalError:  # NaN, or a type that JSON does not know
        pass
    raise InputError("a step must return a table, bytes, the path of a file, or what JSON gives back as it was",
                     where=where, got=type(value).__name__,
                     remedy="Return lists for tuples, None for NaN, text keys; or a table")  # fmt: skip
