"""Runtimes: the ways in which one engine's answers can be computed, timed and compared bit by bit before one is chosen.

``row`` is what the engine has for one row (a prepared native call, plain Python), ``table`` the library's own call for
a matrix; an engine may name more. Which is faster depends on the model and on the machine, so it is measured when a
version is registered. Only a runtime whose answers are the same bits is chosen, since a replay compares bits. treelite
and a conversion of trees to ONNX were measured and left out: see docs/models.md for the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrodict.models.engines.base import Engine

__all__ = ["SIZES", "RuntimeTimes", "Runtime", "measure_runtimes", "runtimes_of"]

SIZES = (1, 64, 1_000)
"""Numbers of rows that a runtime is timed with."""

_CALLS, _CELL_NS, _LONGEST_US, _PROBES = 25, 15_000_000, 150_000, 128

Row = NDArray[np.float64]
Matrix = NDArray[np.float64]


class Runtime(NamedTuple):
    """One way to compute an engine's outputs: of one row as ``Engine.score_row``, of many as ``Engine.scores``."""

    name: str
    row: Callable[[Row], Any]
    table: Callable[[Matrix], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class RuntimeTimes:
    """One runtime on this machine.

    Attributes
    ----------
    name : str
    us : tuple of float or None
        Median microseconds of processor time of one call with each of :data:`SIZES` rows; the last is None where it
        would have taken more than 150 ms and was not measured.
    exact_row, exact_table : bool
        Whether one row, and a table, are the bits that the engine gives.
    distance : float or None
        Greatest difference of an output from the engine's; None where one of both is no finite number.
    """

    name: str
    us: tuple[float | None, ...]
    exact_row: bool
    exact_table: bool
    distance: float | None


def runtimes_of(engine: Engine, names: Iterable[str] | None = None) -> Iterator[Runtime]:
    """Yield runtimes that apply to an engine: its own two, then those that it names itself.

    An engine with more of them has a method ``runtimes`` that gives :class:`Runtime` objects; what needs a library
    that is not installed is left out there. With ``names`` that method is called only where they ask for more.
    """
    shape = (-1,) if engine.target.columns == 1 else (-1, engine.target.columns)

    def alone(row: Row) -> Any:
        outputs = engine.scores(row[None, :])[0].tolist()
        return tuple(outputs) if isinstance(outputs, list) else outputs

    def one_by_one(matrix: Matrix) -> NDArray[np.float64]:
        return np.array([engine.score_row(row) for row in matrix], dtype=np.float64).reshape(shape)

    yield Runtime("row", engine.score_row, one_by_one)
    yield Runtime("table", alone, engine.scores)
    if names is None or not {*names} <= {"row", "table"}:
        yield from getattr(engine, "runtimes", tuple)()


def measure_runtimes(engine: Engine, matrix: Matrix) -> dict[str, Any]:
    """Time every runtime of an engine, and choose the fastest exact one for one row and for tables.

    Parameters
    ----------
    engine : Engine
    matrix : ndarray of shape (n, width)
        Rows to ask, at least one. The first 128 are compared, and all are repeated up to 1,000 to be timed.

    Returns
    -------
    dict
        ``row`` and ``table``: names of what is chosen; ``rows``: the sizes; ``measured``: a dict for each runtime.
    """
    rows = np.ascontiguousarray(np.resize(matrix, (max(SIZES), engine.width)))
    probes = rows[: min(_PROBES, len(matrix))]
    many = engine.scores(probes)
    # An engine that does not promise the bits of its batches to a row: a row is what its own row function says.
    one = many if engine.exact_rows else next(runtimes_of(engine)).table(probes)
    measured = [_measure(runtime, rows, probes, one, many) for runtime in runtimes_of(engine)]
    for_row = [times for times in measured if times.exact_row] or measured[:1]
    for_table = [times for times in measured if times.exact_table and times.us[-1] is not None] or measured[1:2]
    return {
        "row": min(for_row, key=lambda times: times.us[0] or 0.0).name,
        "table": min(for_table, key=lambda times: times.us[-1] or 0.0).name,
        "rows": list(SIZES),
        "measured": [{**asdict(times), "us": list(times.us)} for times in measured],
    }


def _measure(runtime: Runtime, rows: Matrix, probes: Matrix, one: Matrix, many: Matrix) -> RuntimeTimes:
    row, few = rows[0].copy(), rows[: SIZES[1]]
    single, several = _median_us(lambda: runtime.row(row)), _median_us(lambda: runtime.table(few))
    slope = (several - single) / (SIZES[1] - 1)
    all_rows = None if slope * SIZES[2] > _LONGEST_US else _median_us(lambda: runtime.table(rows))
    table = np.asarray(runtime.table(probes), dtype=np.float64)
    one = one[: max(8, int(_LONGEST_US / max(single, 0.1)))]  # a table function may take milliseconds for a row
    alone = np.array([runtime.row(probe) for probe in probes[: len(one)]], dtype=np.float64).reshape(one.shape)
    exact = [np.array_equal(values, bits, equal_nan=True) for values, bits in ((alone, one), (table, many))]
    apart = float(np.max([np.abs(alone - one).max(), np.abs(table - many).max()]))
    distance = 0.0 if all(exact) else apart if np.isfinite(apart) else None
    return RuntimeTimes(runtime.name, (single, several, all_rows), exact[0], exact[1], distance)


def _median_us(call: Callable[[], Any]) -> float:
    """Median processor time of a few calls, after one that makes what is made on first use."""
    call()
    times, started = list[int](), time.process_time_ns()
    while len(times) < _CALLS and (len(times) < 3 or time.process_time_ns() - started < _CELL_NS):
        before = time.process_time_ns()
        call()
        times.append(time.process_time_ns() - before)
    return round(float(np.median(times)) / 1e3, 2)
