"""Partitions of a pipeline: the hours, days, months or years of its data, each named by its beginning in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from retrodict.core.errors import InputError, check_known

__all__ = ["FORMATS", "last_over", "partition_range"]

FORMATS = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
"""How a partition of each kind is named."""

_MOST = 10_000


def last_over(partitions: str | Sequence[str], moment: datetime) -> str:
    """Newest partition that is over at a moment; of partitions that are listed, the last one.

    Examples
    --------
    >>> last_over("month", datetime(2013, 6, 1, tzinfo=UTC)), last_over("day", datetime(2013, 6, 1, 3, tzinfo=UTC))
    ('2013-05', '2013-05-31')
    """
    if not isinstance(partitions, str):
        return partitions[-1]
    start = _read(moment.astimezone(UTC).strftime(FORMATS[partitions]), partitions, "partitions")
    return (start - timedelta(minutes=1)).strftime(FORMATS[partitions])


def partition_range(partitions: str | Sequence[str], text: str, *, where: str) -> list[str]:
    """Partitions from one to another, ``FIRST..LAST``, both included; one name is itself.

    Raises
    ------
    InputError
        If a name is none of them, the first comes after the last, or they are more than ten thousand.

    Examples
    --------
    >>> partition_range("month", "2013-11..2014-01", where="backfill")
    ['2013-11', '2013-12', '2014-01']
    """
    first, _, last = text.partition("..")
    last = last or first
    if not isinstance(partitions, str):
        rule = "a partition must be one of those that the pipeline lists"
        places = [partitions.index(check_known(name, partitions, rule, where=where, what="partition", error=InputError))
                  for name in (first, last)]  # fmt: skip
        names = list(partitions[places[0] : places[1] + 1])
    else:
        names, form = [], FORMATS[partitions]
        end = _read(last, partitions, where)
        start = _read(first, partitions, where)
        while start <= end and len(names) <= _MOST:
            names.append(start.strftime(form))
            start = _following(start, partitions)
    if not 0 < len(names) <= _MOST:
        raise InputError(f"a range of partitions must read FIRST..LAST and hold 1 to {_MOST:,}", where=where, got=text,
                         remedy="Write it like 2013-01..2013-06, the earlier one first")  # fmt: skip
    return names


def _read(name: str, partitions: str, where: str) -> datetime:
    form = FORMATS[partitions]
    try:
        start = datetime.strptime(name, form).replace(tzinfo=UTC)
    except ValueError:
        start = None
    if start is None or start.strftime(form) != name:
        example = datetime(2013, 5, 1, tzinfo=UTC).strftime(form)
        raise InputError(f"a partition must name a {partitions}", where=where, got=name,
                         remedy=f"Write it like {example}")  # fmt: skip
    return start


def _following(start: datetime, partitions: str) -> datetime:
    if partitions in ("hour", "day"):
        return start + timedelta(hours=1 if partitions == "hour" else 24)
    months = start.month if partitions == "month" else 12
    return start.replace(year=start.year + months // 12, month=months % 12 + 1)
