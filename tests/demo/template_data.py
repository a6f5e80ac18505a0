"""The data of the project that ``retrodict init`` writes: a small, real part of the flights, made from the whole year.

Every flight of five carriers from one airport, January to September, with the weather there and the planes that flew:
complete within these bounds, nothing sampled, nothing repaired. History ends at noon of the first of September, so that
an afternoon is there to decide on; the rest of the month is in files of its own. The files are kept in
``retrodict/project/template/data``, so that a new project needs no extra; this module is how they were made, and a test
holds them to it::

    python -m tests.demo.template_data

A sample of the rows was rejected: the features are windows over all flights of an airport, and a sampled history would
give other values than the airport saw.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from retrodict.core.clock import parse_time
from retrodict.demo import nycflights

__all__ = ["FOLDER", "make_files", "write_files"]

FOLDER = Path(__file__).parents[2] / "src" / "retrodict" / "project" / "template" / "data"
"""Where the files are kept."""

ORIGIN = "LGA"
CARRIERS = ("B6", "DL", "EV", "MQ", "WN")
NOON = parse_time("2013-09-01T16:00Z")  # in New York, as is the midnight below: the history ends here
MIDNIGHT = parse_time("2013-09-02T04:00Z")
OCTOBER = parse_time("2013-10-01T04:00Z")

_FLIGHTS = (
    "flight_id", "carrier", "flight", "tailnum", "origin", "dest", "distance", "sched_dep", "dep_time", "arr_time",
    "arr_delay",
)  # fmt: skip
_WEATHER = ("origin", "hour", "temp", "humid", "wind_speed", "precip", "pressure", "visib")
_PLANES = ("tailnum", "year", "manufacturer", "model", "seats")


def make_files() -> dict[str, bytes]:
    """Contents of the files, by name; needs the extra ``demo``.

    Returns
    -------
    dict of str to bytes
        ``flights.csv.gz`` and ``weather.csv.gz`` until noon of the first of September, ``planes.csv``,
        ``september_flights.csv.gz`` and ``september_weather.csv.gz`` from then on, and ``outcomes.csv``: what became
        of that afternoon's flights, as a file that comes after the decisions.
    """
    tables = nycflights.prepare(nycflights.read_files())
    flights, weather, planes = tables["flights"], tables["weather"], tables["planes"]
    ours = pc.and_(pc.equal(flights["origin"], ORIGIN), pc.is_in(flights["carrier"], pa.array(CARRIERS)))
    flights = flights.filter(pc.and_(ours, _before(flights["sched_dep"], OCTOBER))).select(list(_FLIGHTS))
    early = _before(flights["sched_dep"], NOON)
    weather = weather.filter(pc.and_(pc.equal(weather["origin"], ORIGIN), _before(weather["hour"], OCTOBER)))
    weather = weather.select(list(_WEATHER))
    early_weather = _before(weather["hour"], NOON)
    planes = planes.filter(pc.is_in(planes["tailnum"], pc.unique(flights["tailnum"])))
    september = flights.filter(pc.invert(early))
    return {
        "flights.csv.gz": _zip(_csv(flights.filter(early))),
        "weather.csv.gz": _zip(_csv(weather.filter(early_weather))),
        "september_flights.csv.gz": _zip(_csv(september)),
        "september_weather.csv.gz": _zip(_csv(weather.filter(pc.invert(early_weather)))),
        "planes.csv": _csv(planes.select(list(_PLANES))),
        "outcomes.csv": _csv(_outcomes(september.filter(_before(september["sched_dep"], MIDNIGHT)))),
    }


def _outcomes(flights: pa.Table) -> pa.Table:
    """Late or not, and when that was known; a flight that never arrived has no outcome and is left out."""
    arrived = flights.filter(pc.and_(pc.is_valid(flights["arr_delay"]), pc.is_valid(flights["arr_time"])))
    late = pc.cast(pc.greater(arrived["arr_delay"], 15), pa.int8())
    return pa.table({"flight_id": arrived["flight_id"], "label": late, "known_at": arrived["arr_time"]})


def _before(times: pa.ChunkedArray[Any], instant: int) -> NDArray[np.bool_]:
    earlier: NDArray[np.bool_] = times.cast(pa.int64()).to_numpy() < instant
    return earlier


def _csv(rows: pa.Table) -> bytes:
    """Lines with a heading; times in UTC to the minute, which is all the source has."""
    columns: Mapping[str, Any] = {
        field.name: pc.strftime(rows[field.name], format="%Y-%m-%dT%H:%MZ")
        if pa.types.is_timestamp(field.type)
        else rows[field.name]
        for field in rows.schema
    }
    out = io.BytesIO()
    csv.write_csv(pa.table(dict(columns)), out, csv.WriteOptions(quoting_style="needed"))
    return out.getvalue()


def _zip(data: bytes) -> bytes:
    # No time stamp: the same rows give the same file.
    return gzip.compress(data, compresslevel=9, mtime=0)


def write_files(folder: Path = FOLDER) -> None:
    """Write the files where the package keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in make_files().items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    write_files()
