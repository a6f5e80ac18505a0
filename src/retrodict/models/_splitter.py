"""What every split is: parts of rows, folds of rows, a plain form. The splits themselves are in ``splits``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from retrodict.core.errors import DefinitionError, InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from retrodict.core.tasks import Target

    Positions = NDArray[np.int64]
    Folds = list[tuple[Positions, Positions]]

__all__ = [
    "SplitRows",
    "Splitter",
    "check_columns",
    "check_count",
    "check_seed",
    "check_shares",
    "checked_parts",
    "plain_form",
]


class SplitRows(Protocol):
    """What a split looks at: a training frame is one.

    Attributes
    ----------
    at, known_at : ndarray of int64, shape (n,)
        Moment of the decision, and when the label was known, in microseconds since 1970-01-01 UTC.
    labels : ndarray of float64, shape (n,)
        NaN where there is none.
    target : Target
        What the labels are.
    """

    @property
    def at(self) -> Positions:
        """Moments of decision."""

    @property
    def known_at(self) -> Positions:
        """When labels were known."""

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels."""

    @property
    def target(self) -> Target:
        """What the labels are."""

    def column(self, name: str) -> pa.ChunkedArray:
        """Column of the rows by its name."""


class Splitter(ABC):
    """Assigns rows to parts and cuts them into folds; immutable, and its content is its identity.

    The same rows in the same order give the same parts. A row without a label that is known before ``now`` is in no
    part. A part may be empty where a split is in time; whoever trains refuses that.
    """

    __slots__ = ()

    timed: ClassVar[bool] = False
    """Whether rows need a moment of decision."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the label's table that it reads."""
        return ()

    @abstractmethod
    def assign(self, rows: SplitRows, *, now: int) -> dict[str, Positions]:
        """Positions of the ``train``, ``validate`` and ``test`` rows, ascending.

        Raises
        ------
        InputError
            If a part of a share gets no row, or a class cannot be in every part.
        """

    @abstractmethod
    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Folds of some rows, as :func:`folds` gives them, empty ones included."""

    def describe(self) -> dict[str, Any]:
        """Plain form, as runs keep it; :func:`split_from_dict` reads it."""
        return {"kind": type(self).__name__, **plain_form(self)}

    def moved_to_end(self, instant: int) -> Splitter:
        """Split for a retraining, whose rows end at or before an instant.

        Raises
        ------
        DefinitionError
            If a former version may have learned from the rows that would judge the next one.
        """
        del instant
        raise DefinitionError(
            "a split for a retraining must be in time or by hash: this one draws anew from all rows, so that the new "
            "version is judged on rows that the version before it learned from", where=type(self).__name__,
            got=self.describe(), remedy="Use HashSplit(by=…), whose rows never change side, or TimeSplit",
        )  # fmt: skip


def plain_form(split: Any) -> dict[str, Any]:
    """Fields of a split, as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(split).items()}


def checked_parts(parts: dict[str, Positions], where: str) -> dict[str, Positions]:
    """Return the parts if each has a row."""
    sizes = {name: len(part) for name, part in parts.items()}
    if not all(sizes.values()):
        raise InputError("every part of a split must have a labelled row", where=where, got=sizes,
                         remedy="Add rows or groups, or give the empty part a larger share")  # fmt: skip
    return parts


def check_count(count: object, where: str) -> None:
    """Refuse fewer than two folds."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise DefinitionError("there must be two folds or more", where=where, got=count,
                              remedy="Say folds=5")  # fmt: skip


def check_seed(seed: object, where: str) -> None:
    """Refuse what is no seed."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise DefinitionError("a seed must be a whole number from 0 to 2**31 - 1", where=where, got=seed,
                              remedy="Choose a smaller one")  # fmt: skip


def check_shares(test: object, validate: object, where: str) -> None:
    """Refuse shares of which one part would have nothing."""
    for name, share in (("test", test), ("validate", validate)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise DefinitionError("a share of the rows must be above 0 and below 1", where=f"{where}, {name}",
                                  got=share, remedy="Write it like 0.2")  # fmt: skip
    if test + validate >= 1:  # type: ignore[operator]  # numbers, as checked
        raise DefinitionError("test and validation rows must leave some to train on", where=where,
                              got={"test": test, "validate": validate},
                              remedy="Let their sum be below 1")  # fmt: skip


def check_columns(by: object, where: str) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    names = (by,) if isinstance(by, str) else tuple(by) if isinstance(by, list | tuple) else ()
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise DefinitionError("a split must name the columns that say what stays together, each once",
                              where=f"{where}, by", got=by, remedy="Write it like by='customer'")  # fmt: skip
    return names
