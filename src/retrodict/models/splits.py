"""Which rows a model learns from, which choose its settings, and which judge it."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from retrodict.core.clock import to_micros
from retrodict.core.durations import abbreviated, parse_duration
from retrodict.core.errors import DefinitionError, InputError

__all__ = ["Split", "TimeSplit"]

_MONTHS = re.compile(r"(\d+) months?")


@dataclass(frozen=True, slots=True)
class Split:
    """Half-open intervals of decision time, in microseconds since 1970-01-01 UTC: train, then validate, then test."""

    train_start: int
    train_end: int
    validate_end: int
    test_end: int


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Train on the past, validate and test on what came after it; never at random, since neighbours in time are alike.

    Parameters
    ----------
    train : str
        ``"2013-01-01/2013-07-01"``: first day, and the day after the last one (UTC).
    validate, test : str
        Length after that: ``"1 month"`` (calendar months) or a duration such as ``"14d"``.

    Examples
    --------
    >>> TimeSplit(train="2013-01-01/2013-07-01", validate="1 month", test="1 month").resolve().test_end
    1377993600000000
    """

    train: str
    validate: str = "1 month"
    test: str = "1 month"

    def __post_init__(self) -> None:
        """Check the dates."""
        self.resolve()

    def resolve(self) -> Split:
        """Boundaries as instants."""
        start, slash, end = self.train.partition("/")
        try:
            first, last = _day(start), _day(end)
        except (ValueError, TypeError) as error:
            raise DefinitionError("a training span must read FIRST_DAY/DAY_AFTER_THE_LAST", where="TimeSplit, train",
                                  got=self.train,
                                  remedy="Write it like '2013-01-01/2013-07-01'") from error  # fmt: skip
        if not slash or last <= first:
            raise DefinitionError("a training span must end after it begins", where="TimeSplit, train", got=self.train,
                                  remedy="Write it like '2013-01-01/2013-07-01'")  # fmt: skip
        middle = _after(last, self.validate, where="TimeSplit, validate")
        final = _after(middle, self.test, where="TimeSplit, test")
        return Split(*(to_micros(moment) for moment in (first, last, middle, final)))

    def moved_to_end(self, instant: int) -> TimeSplit:
        """Split with the same first day, validation and test lengths, whose test ends at or before an instant.

        The end is cut to the beginning of its day (or of its month, where both lengths are in months), so that
        retraining twice on one day trains on the same rows.
        """
        limit = datetime.fromtimestamp(instant // 1_000_000, UTC)
        in_months = bool(_MONTHS.fullmatch(self.validate) and _MONTHS.fullmatch(self.test))
        limit = limit.replace(day=1 if in_months else limit.day, hour=0, minute=0, second=0, microsecond=0)
        end = _before(_before(limit, self.test), self.validate)
        return TimeSplit(f"{self.train.partition('/')[0]}/{end.date().isoformat()}", self.validate, self.test)


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def _months(moment: datetime, count: int) -> datetime:
    """The same day so many months later, or the last of that month if it has no such day."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + count, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=min(moment.day, last))


def _after(moment: datetime, length: str, *, where: str) -> datetime:
    try:
        if match := _MONTHS.fullmatch(length):
            end = _months(moment, int(match.group(1)))
        else:
            end = moment + timedelta(microseconds=parse_duration(length))
    except (InputError, ValueError, OverflowError, TypeError) as error:
        near = abbreviated(length)
        raise DefinitionError(
            "a length must be 'N months' or a duration in units out of w, d, h",
            where=where,
            got=length,
            remedy=f"Write it as {near!r}" if near else "Write it like '1 month' or '14d'",
        ) from error
    if end <= moment:
        raise DefinitionError("a part of a split must be longer than nothing", where=where, got=length,
                              remedy="Write it like '1 month'")  # fmt: skip
    return end


def _before(moment: datetime, length: str) -> datetime:
    if match := _MONTHS.fullmatch(length):
        return _months(moment, -int(match.group(1)))
    return moment - timedelta(microseconds=parse_duration(length))
