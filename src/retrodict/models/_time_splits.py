"""Splits in time, purged by known-at: one cut, walking forward, and cross-validation with an embargo."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from retrodict.core.clock import to_micros
from retrodict.core.durations import abbreviated, parse_duration
from retrodict.core.errors import DefinitionError, InputError
from retrodict.models._splitter import Splitter, check_count, plain_form

if TYPE_CHECKING:
    from retrodict.models._splitter import Folds, Positions, SplitRows

__all__ = ["Purged", "Rolling", "Split", "TimeSplit"]

_MONTHS = re.compile(r"(\d+) months?")


@dataclass(frozen=True, slots=True)
class Split:
    """Half-open intervals of decision time, in microseconds since 1970-01-01 UTC: train, then validate, then test."""

    train_start: int
    train_end: int
    validate_end: int
    test_end: int


@dataclass(frozen=True, slots=True)
class TimeSplit(Splitter):
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

    timed: ClassVar[bool] = True

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

    def spans(self, now: int) -> dict[str, tuple[int, int, int]]:
        """First instant, end, and the instant before which outcomes must be known, of each part."""
        split = self.resolve()
        return {
            "train": (split.train_start, split.train_end, min(split.train_end, now)),
            "validate": (split.train_end, split.validate_end, min(split.validate_end, now)),
            "test": (split.validate_end, split.test_end, now),
        }

    def assign(self, rows: SplitRows, *, now: int) -> dict[str, Positions]:
        """Positions of the rows of each part, purged by known-at.

        A part uses only outcomes that were known before the next part begins, the test part those known before now.
        With an outcome that takes 60 days, the last training rows tell what happened in the days of the validation and
        test rows: a model that saw them looks better than any that could have been trained at the time.
        """
        from retrodict.models._partitions import usable

        return {
            name: (part := usable(rows, bound))[(rows.at[part] >= start) & (rows.at[part] < end)]
            for name, (start, end, bound) in self.spans(now).items()
        }

    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Spans of time that hold equal numbers of rows; what is fitted for one is purged of what overlaps it."""
        del seed
        from retrodict.models._partitions import blocks, settled

        return blocks(rows.at[positions], settled(rows)[positions], count)

    def describe(self) -> dict[str, Any]:
        """Plain form; that of a plain TimeSplit has no kind, as runs have kept it from the first version on."""
        return {**({} if type(self) is TimeSplit else {"kind": type(self).__name__}), **plain_form(self)}

    def moved_to_end(self, instant: int) -> TimeSplit:
        """Split with the same first day, validation and test lengths, whose test ends at or before an instant.

        The end is cut to the beginning of its day (or of its month, where both lengths are in months), so that
        retraining twice on one day trains on the same rows.
        """
        limit = datetime.fromtimestamp(instant // 1_000_000, UTC)
        in_months = bool(_MONTHS.fullmatch(self.validate) and _MONTHS.fullmatch(self.test))
        limit = limit.replace(day=1 if in_months else limit.day, hour=0, minute=0, second=0, microsecond=0)
        end = _before(_before(limit, self.test), self.validate)
        return replace(self, train=f"{self.train.partition('/')[0]}/{end.date().isoformat()}")


@dataclass(frozen=True, slots=True)
class Rolling(TimeSplit):
    """A split in time whose folds walk forward: each trains on what came before it and judges the next window.

    The test rows are those of the :class:`TimeSplit`, and no fold sees them. Folds are windows as long as ``validate``,
    the last of them at the end of the rows that are cut.

    Parameters
    ----------
    train, validate, test : str
        As of :class:`TimeSplit`.
    folds : int, default 3
        Windows; 2 or more.
    window : duration or "N months", optional
        How far back a fold trains. None: from the first row on.

    Examples
    --------
    >>> Rolling("2013-01-01/2013-07-01", folds=4, window="3 months").describe()["window"]
    '3 months'
    """

    folds: int = 3
    window: str | None = None

    def __post_init__(self) -> None:
        """Check dates, lengths and the number of folds."""
        self.resolve()
        check_count(self.folds, "Rolling, folds")
        if self.window is not None:
            _after(datetime(2000, 1, 1, tzinfo=UTC), self.window, where="Rolling, window")

    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Windows in order of time; training rows are those whose outcome was known when the window began."""
        del seed
        import numpy as np

        from retrodict.models._partitions import settled

        at, known_at = rows.at[positions], settled(rows)[positions]
        last = datetime.fromtimestamp(int(at.max()) // 1_000_000, UTC)
        end = last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        result: Folds = []
        for _ in range(count):
            start = _before(end, self.validate)
            first = None if self.window is None else to_micros(_before(start, self.window))
            fit = (known_at < to_micros(start)) & (at < to_micros(start))
            fit &= True if first is None else at >= first
            window_rows = (at >= to_micros(start)) & (at < to_micros(end))
            result.append((np.flatnonzero(fit), np.flatnonzero(window_rows)))
            end = start
        return result[::-1]


@dataclass(frozen=True, slots=True)
class Purged(TimeSplit):
    """A split in time whose folds are cross-validation, purged by known-at and embargoed.

    Every row is judged once. A fold trains on rows before and after it, without those whose outcome overlaps it and
    those that follow it within the embargo (López de Prado 2018, Advances in Financial Machine Learning, chapter 7).

    Parameters
    ----------
    train, validate, test : str
        As of :class:`TimeSplit`.
    folds : int, default 5
        Spans of time with equal numbers of rows; 2 or more.
    embargo : duration, default "0s"
        How long after the last outcome of a fold rows do not train for it.

    Examples
    --------
    >>> Purged("2013-01-01/2013-07-01", folds=5, embargo="2d").embargo
    '2d'
    """

    folds: int = 5
    embargo: str = "0s"

    def __post_init__(self) -> None:
        """Check dates, the number of folds and the embargo."""
        self.resolve()
        check_count(self.folds, "Purged, folds")
        try:
            parse_duration(self.embargo, where="Purged, embargo")
        except InputError as error:
            raise DefinitionError("an embargo must be a duration", where="Purged", got=self.embargo,
                                  remedy="Write it like '2d'") from error  # fmt: skip

    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Spans of time, purged and embargoed."""
        del seed
        from retrodict.models._partitions import blocks, settled

        return blocks(rows.at[positions], settled(rows)[positions], count, parse_duration(self.embargo))


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
