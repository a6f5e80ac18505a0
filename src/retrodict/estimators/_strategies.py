"""What a column is filled with, and why: the choice of a strategy and the value learned from the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.statistics.moments import Moments
from retrodict.estimators._tables import NUMBER, TEXT, TIME, is_missing

STRATEGIES = ("constant", "drop", "forward_fill", "iterative", "keep", "knn", "mean", "median", "mode")
_FITS = {
    NUMBER: frozenset(STRATEGIES),
    TEXT: frozenset({"constant", "drop", "forward_fill", "keep", "mode"}),
    TIME: frozenset({"drop", "forward_fill", "keep"}),
}


@dataclass(frozen=True, slots=True)
class Filling:
    """One line of the report: how one column is filled.

    Parameters
    ----------
    column : str
    kind : {"number", "text", "time"}
    strategy : str
        One of the words of ``MissingData``; never ``auto``.
    reason : str
        Why this strategy.
    value : float, str or None
        What a missing value becomes; for ``knn``, ``iterative`` and ``forward_fill`` only where these know nothing.
    missing, rows : int
        Missing values and rows of the training table.
    indicator : bool
        Whether a column says where a value was missing.
    """

    column: str
    kind: str
    strategy: str
    reason: str
    value: float | str | None
    missing: int
    rows: int
    indicator: bool

    @property
    def share(self) -> float:
        """Share of the training rows where the value was missing."""
        return self.missing / self.rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {**asdict(self), "share": self.share}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Filling:
        """Inverse of ``to_dict``."""
        return cls(**{name: body[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings of ``MissingData`` that a choice depends on."""

    strategy: str | Mapping[str, str]
    indicators: bool | str
    constant: Any
    skew_limit: float

    def check(self, names: list[str]) -> None:
        """Refuse unknown words and columns."""
        words = [self.strategy] if isinstance(self.strategy, str) else list(self.strategy.values())
        for word in words:
            check_known(word, ("auto", *STRATEGIES), "a strategy must be one that exists", where="missing data",
                        what="strategy", error=InputError)  # fmt: skip
        for option in (self.strategy, self.constant):
            for name in option if isinstance(option, Mapping) else ():
                check_known(name, names, "a strategy must be for a column of the table", where="missing data",
                            what="column", error=InputError)  # fmt: skip
        if self.indicators not in (True, False, "auto"):
            raise InputError("indicators must be True, False or 'auto'", where="missing data", got=self.indicators,
                             remedy="Pass indicators='auto'")  # fmt: skip
        if not self.skew_limit >= 0:
            raise InputError("a limit of skewness must be zero or more", where="missing data", got=self.skew_limit,
                             remedy="Leave it out for the default")  # fmt: skip

    def filling(self, name: str, column: NDArray[Any], kind: str) -> Filling:
        """How one column is filled, learned from its training values."""
        missing = is_missing(column)
        present, count = column[~missing], int(missing.sum())
        strategy = self.strategy if isinstance(self.strategy, str) else self.strategy.get(name, "auto")
        where = f"missing data, column {name!r}"
        word, reason = (strategy, "asked for") if strategy != "auto" else self._automatic(present, kind)
        if word not in _FITS[kind]:
            raise InputError(f"the strategy {word!r} must fit the kind of its column", where=where, got=kind,
                             remedy=f"Choose one of {', '.join(sorted(_FITS[kind]))}, or 'auto'")  # fmt: skip
        value: float | str | None = None
        if word == "constant":
            value = self._constant(name, kind, where)
        elif word not in ("drop", "keep"):
            if not present.size:
                raise InputError(
                    "a column must have a value in the training rows, to learn from", where=where,
                    got=f"{column.size} rows, all missing",
                    remedy="Leave the column out, or give it the strategy 'constant' or 'keep'",
                )  # fmt: skip
            value = _learned(word, present, kind)
        indicator = count > 0 if self.indicators == "auto" else bool(self.indicators)
        return Filling(name, kind, word, reason, value, count, column.size, indicator and word != "drop")

    def _automatic(self, present: NDArray[Any], kind: str) -> tuple[str, str]:
        if kind == TIME:
            return "keep", "a time has no typical value"
        if kind == TEXT:
            return "mode", "text: its most frequent value"
        skew = Moments.of(present).skew()
        if skew is None:
            return "median", "all values are equal"
        if abs(skew) > self.skew_limit:
            return "median", f"skewness {skew:.3g}, beyond {self.skew_limit:g}"
        return "mean", f"skewness {skew:.3g}, within {self.skew_limit:g}"

    def _constant(self, name: str, kind: str, where: str) -> float | str:
        constant = self.constant.get(name) if isinstance(self.constant, Mapping) else self.constant
        if constant is None:
            return 0.0 if kind == NUMBER else "missing"
        if isinstance(constant, str) != (kind == TEXT) or constant != constant:  # noqa: PLR0124 - NaN fills nothing
            raise InputError(f"the constant of a column of kind {kind!r} must be of that kind", where=where,
                             got=type(constant).__name__,
                             remedy="Give constants per column: constant={'age': -1, 'town': 'unknown'}")  # fmt: skip
        return constant if isinstance(constant, str) else float(constant)


def _learned(word: str, present: NDArray[Any], kind: str) -> float | str | None:
    if kind == TIME:
        return None
    if kind == TEXT or word == "mode":
        values, counts = np.unique(present, return_counts=True)  # ascending: of equally frequent values the smallest
        value = values[counts.argmax()]
        return str(value) if kind == TEXT else float(value)
    if word in ("median", "forward_fill"):
        return float(np.median(present))
    return Moments.of(present).mean


def report(fillings: list[Filling]) -> str:
    """Table for people: one line per column."""
    head = ("column", "missing", "strategy", "filled with", "why")
    lines = [head]
    for filling in fillings:
        value = "" if filling.value is None else f"{filling.value:.6g}" if filling.kind == NUMBER else filling.value
        strategy = f"{filling.strategy} + indicator" if filling.indicator else filling.strategy
        lines.append((filling.column, f"{filling.share:.1%}", strategy, str(value), filling.reason))
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip
