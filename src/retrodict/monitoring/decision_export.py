"""The decision log for others: joined with its outcomes to train on, or line by line for a collector of logs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa

from retrodict.core.clock import format_time
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.decisions.records import decode_record
from retrodict.outcomes.status import UNKNOWN_TIME, outcomes
from retrodict.workspace import Workspace

__all__ = ["joined_log", "log_lines"]

_POLL_S = 0.2


def joined_log(
    workspace: Workspace, policy: str, *, now: int, start: int | None = None, end: int | None = None
) -> pa.Table:
    """Recorded decisions of a policy, each one row, with what was known of its outcome at a time.

    Parameters
    ----------
    workspace : Workspace
    policy : str
    now : int
        As of when. Instants are microseconds since 1970-01-01 UTC.
    start, end : int, optional
        Decisions with ``start <= time < end``.

    Returns
    -------
    pyarrow.Table
        :func:`~retrodict.decisions.log.decisions_table`, and ``record__weight`` (one by the share of decisions that
        were recorded), ``record__status`` (``known``, ``pending``, ``void``), ``record__label`` (class by name, else a
        number; null unless it counts) and ``record__known_at``.
    """
    log = outcomes(workspace, policy, now=now, start=start, end=end)
    counts, label = log.countable, log.label
    if log.target.classes:
        names = [
            log.target.classes[int(code)] if has_one else None for code, has_one in zip(label, counts, strict=True)
        ]
        labels = pa.array(names, pa.string() if isinstance(log.target.classes[0], str) else pa.float64())
    else:
        labels = pa.array(label, mask=~counts)
    columns = {
        "record__weight": pa.array(1 / log.column("record__share")),
        "record__status": pa.array(log.status.tolist(), pa.string()),
        "record__label": labels,
        "record__known_at": pa.array(log.known_at, mask=np.asarray(log.known_at == UNKNOWN_TIME)),
    }
    table = log.decisions
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def log_lines(
    workspace: Workspace, policy: str | None = None, *, start: int | None = None, follow: bool = False
) -> Iterator[str]:
    """Records of the log as JSON, one to a line, by stream in their order; ``stream`` and ``offset`` say which.

    Parameters
    ----------
    workspace : Workspace
    policy : str, optional
        Whose decisions; all by default.
    start : int, optional
        Decisions from this time on.
    follow : bool
        Go on for ever, with what is recorded from then on: each durable record once.
    """
    places: dict[str, int] = {}
    while True:
        for stream in workspace.streams.names(STREAM_PREFIX):
            for segment in workspace.streams.segments(stream):
                first = max(segment.first, places.get(stream, 0))
                count = segment.first + segment.count - first
                for offset, data in workspace.streams.read(stream, first, count) if count > 0 else ():
                    places[stream] = offset + 1
                    record = decode_record(data)
                    if policy in (None, record.policy) and (start is None or record.time >= start):
                        place = {"stream": stream, "offset": offset, "at": format_time(record.time)}
                        yield msgspec.json.encode(place | msgspec.structs.asdict(record)).decode()
        if not follow:
            return
        time.sleep(_POLL_S)
