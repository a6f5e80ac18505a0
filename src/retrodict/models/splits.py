"""Which rows a model learns from, which choose its settings, and which judge it.

A split is a definition: it assigns rows to the training, validation and test part, and cuts the rows of a part into
folds for whatever chooses on them (selection, calibration, tuning, stacking). With a moment of decision rows are split
in time and purged by known-at; without one at random, by group, or by the hash of a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.models._splitter import (
    SplitRows,
    Splitter,
    check_columns,
    check_count,
    check_seed,
    check_shares,
    checked_parts,
)
from retrodict.models._time_splits import Purged, Rolling, Split, TimeSplit

if TYPE_CHECKING:
    from retrodict.models._splitter import Folds, Positions

__all__ = [
    "GroupSplit",
    "HashSplit",
    "Purged",
    "RandomSplit",
    "Rolling",
    "Split",
    "SplitRows",
    "Splitter",
    "TimeSplit",
    "folds",
    "halves",
    "nested_folds",
    "split_from_dict",
]


@dataclass(frozen=True, slots=True)
class RandomSplit(Splitter):
    """Parts drawn at random, for rows of which none tells of another: neither time nor a shared owner ties them.

    Parameters
    ----------
    test, validate : float, default 0.2
        Shares of the labelled rows.
    stratify : bool, default True
        Whether each part has the shares of the classes; of a number those of ten bins of equal counts, or
        of as many as the smallest part has rows.
    seed : int, default 7
        The same rows in the same order and the same seed give the same parts.

    Examples
    --------
    >>> RandomSplit(test=0.25).describe()
    {'kind': 'RandomSplit', 'test': 0.25, 'validate': 0.2, 'stratify': True, 'seed': 7}
    """

    test: float = 0.2
    validate: float = 0.2
    stratify: bool = True
    seed: int = 7

    def __post_init__(self) -> None:
        """Check shares and seed."""
        check_shares(self.test, self.validate, "RandomSplit")
        check_seed(self.seed, "RandomSplit")

    def _strata(self, rows: SplitRows, positions: Positions, least: int, bins: int = 10) -> Positions:
        import numpy as np

        from retrodict.models._partitions import strata_of

        if not self.stratify:
            return np.zeros(len(positions), dtype=np.int64)
        return strata_of(rows.labels[positions], rows.target, least=least, where="RandomSplit, stratify",
                         bins=bins)  # fmt: skip

    def assign(self, rows: SplitRows, *, now: int) -> dict[str, Positions]:
        """Draw the test rows, then the validation rows of what is left."""
        import numpy as np

        from retrodict.models._partitions import draw, usable

        rest, rng = usable(rows, now), np.random.default_rng(self.seed)
        total = len(rest)
        sizes = [size for share in (self.test, self.validate) if (size := round(share * total)) > 0]
        strata = self._strata(rows, rest, 3, bins=min([10, *sizes]))  # a row of every bin of a number in every part
        parts: dict[str, Positions] = {}
        for name, share, spare in (("test", self.test, 2), ("validate", self.validate, 1)):
            count, classes = min(round(share * total), total), len(np.unique(strata))
            if 0 < count < classes:
                raise InputError(
                    f"the {name} part must have a row of every class", where="RandomSplit, stratify",
                    got=f"{count} rows for {classes} classes",
                    remedy=f"Give it a larger share than {share:g}, add rows, or say stratify=False",
                )  # fmt: skip
            mask = draw(strata, count, rng, spare=spare)
            parts[name], rest, strata = rest[mask], rest[~mask], strata[~mask]
        return checked_parts({"train": rest, **parts}, "RandomSplit")

    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Folds at random, each with the shares of the classes."""
        import numpy as np

        from retrodict.models._partitions import deal

        return _fold_pairs(
            deal(self._strata(rows, positions, 1), count, np.random.default_rng([self.seed, seed])), count
        )


@dataclass(frozen=True, slots=True)
class GroupSplit(Splitter):
    """Parts of whole groups, drawn at random: a customer, patient or device is never on two sides.

    Parameters
    ----------
    by : str or list of str
        Columns of the label's table that name the group; never null.
    test, validate : float, default 0.2
        Shares of the labelled rows, met as nearly as whole groups allow.
    seed : int, default 7

    Examples
    --------
    >>> GroupSplit(by="customer").columns
    ('customer',)
    """

    by: str | Sequence[str]
    test: float = 0.2
    validate: float = 0.2
    seed: int = 7

    def __post_init__(self) -> None:
        """Check columns, shares and seed."""
        object.__setattr__(self, "by", check_columns(self.by, "GroupSplit"))
        check_shares(self.test, self.validate, "GroupSplit")
        check_seed(self.seed, "GroupSplit")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that name the group."""
        return tuple(self.by)

    def assign(self, rows: SplitRows, *, now: int) -> dict[str, Positions]:
        """Fill the test part with groups, then the validation part, then the training part."""
        import numpy as np

        from retrodict.models._partitions import codes_of, draw_groups, usable

        positions = usable(rows, now)
        groups = codes_of(rows, self.columns, positions, where="GroupSplit")
        part = draw_groups(groups, (self.test, self.validate), np.random.default_rng(self.seed))
        parts = {name: positions[part == number] for number, name in ((2, "train"), (1, "validate"), (0, "test"))}
        return checked_parts(parts, f"GroupSplit, {len(np.unique(groups))} groups")

    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Folds of whole groups, as even as groups allow."""
        import numpy as np

        from retrodict.models._partitions import codes_of, deal_groups

        groups = codes_of(rows, self.columns, positions, where="GroupSplit, folds")
        return _fold_pairs(deal_groups(groups, count, np.random.default_rng([self.seed, seed])), count)


@dataclass(frozen=True, slots=True)
class HashSplit(Splitter):
    """Parts by the hash of a key: a row never changes side, however many rows come later, on any machine.

    A larger share keeps the rows that it had. ``7``, ``7.0`` and ``"7"`` are one key.

    Parameters
    ----------
    by : str or list of str
        Columns of the label's table that are hashed; never null. Rows with one key stay together.
    test, validate : float, default 0.2
        Shares of the keys, met as nearly as chance allows.
    salt : str, default ""
        Another text gives other parts.

    Examples
    --------
    >>> HashSplit(by="id", test=0.1).moved_to_end(0) == HashSplit(by="id", test=0.1)
    True
    """

    by: str | Sequence[str]
    test: float = 0.2
    validate: float = 0.2
    salt: str = ""

    def __post_init__(self) -> None:
        """Check columns, shares and salt."""
        object.__setattr__(self, "by", check_columns(self.by, "HashSplit"))
        check_shares(self.test, self.validate, "HashSplit")
        salt: object = self.salt
        if not isinstance(salt, str):
            raise DefinitionError("a salt must be text", where="HashSplit", got=type(salt).__name__,
                                  remedy="Write it in quotes")  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are hashed."""
        return tuple(self.by)

    def assign(self, rows: SplitRows, *, now: int) -> dict[str, Positions]:
        """Test from 0 up, validation from 1 down: a larger share of either keeps the rows that it had."""
        from retrodict.models._partitions import shares_of, usable

        positions = usable(rows, now)
        share = shares_of(rows, self.columns, positions, salt=self.salt, where="HashSplit")
        test, validate = share < self.test, share >= 1 - self.validate
        parts = {"train": ~test & ~validate, "validate": validate, "test": test}
        return checked_parts({name: positions[mask] for name, mask in parts.items()}, "HashSplit")

    def cut(self, rows: SplitRows, positions: Positions, count: int, seed: int) -> Folds:
        """Folds by another hash of the same key: a row never changes its fold either."""
        from retrodict.models._partitions import shares_of

        salt = f"{len(self.salt)}:{self.salt}fold{seed}"
        share = shares_of(rows, self.columns, positions, salt=salt, where="HashSplit, folds")
        return _fold_pairs((share * count).astype("int64"), count)

    def moved_to_end(self, instant: int) -> HashSplit:
        """Return itself: rows that came later have their sides already, and no others change theirs."""
        del instant
        return self


_KINDS: dict[str, type[Any]] = {
    split.__name__: split for split in (TimeSplit, Rolling, Purged, RandomSplit, GroupSplit, HashSplit)
}


def split_from_dict(body: Mapping[str, Any]) -> Splitter:
    """Split of its plain form; one without a kind is a :class:`TimeSplit`."""
    fields = dict(body)
    kind = fields.pop("kind", "TimeSplit")
    check_known(kind, _KINDS, "a split must be of a kind that there is", where="split", what="kind", error=InputError)
    split: Splitter = _KINDS[kind](**fields)
    return split


def folds(
    split: Splitter, rows: SplitRows, positions: Positions, count: int | None = None, *, seed: int = 0
) -> list[tuple[Positions, Positions]]:
    """Cut some rows into folds, for whatever is chosen on them: features, calibration, parameters, a stack.

    Purged by known-at where the split is in time, grouped where it is grouped, stratified where it is stratified.

    Parameters
    ----------
    split : Splitter
    rows : SplitRows
    positions : ndarray of int64, shape (m,)
        Which rows, all labelled.
    count : int, optional
        How many folds. None: as many as the split says, or 5.
    seed : int, default 0
        Other folds of a split at random.

    Returns
    -------
    list of (ndarray, ndarray)
        Places in ``positions`` to fit on and to judge on, as the ``cv`` of scikit-learn takes them. Folds of a
        :class:`Rolling` split do not judge the earliest rows. A fold that has nothing to fit on or to judge is left
        out.

    Raises
    ------
    InputError
        If fewer than two folds have rows.
    """
    size = getattr(split, "folds", 5) if count is None else count
    check_count(size, "folds")
    cuts = split.cut(rows, positions, size, seed) if len(positions) else []
    pairs = [pair for pair in cuts if len(pair[0]) and len(pair[1])]
    if len(pairs) < 2:  # one fold is no cross-validation
        raise InputError("two folds or more must have rows to fit on and rows to judge",
                         where=f"{type(split).__name__}, {size} folds of {len(positions):,} rows", got=len(pairs),
                         remedy="Give it more rows, or rows whose outcome is known sooner")  # fmt: skip
    return pairs


def nested_folds(
    split: Splitter, rows: SplitRows, positions: Positions, *, outer: int | None = None, inner: int | None = None
) -> list[tuple[Positions, Positions, list[tuple[Positions, Positions]]]]:
    """Nested cross-validation: settings are chosen in the inner folds, and judged on rows that they never saw.

    Returns
    -------
    list of (ndarray, ndarray, list of (ndarray, ndarray))
        Places in ``positions`` to fit on and to judge on, and the inner folds as places in ``positions`` too.
    """
    return [
        (fit, test, [(fit[a], fit[b]) for a, b in folds(split, rows, positions[fit], inner)])
        for fit, test in folds(split, rows, positions, outer)
    ]


def halves(split: Splitter, rows: SplitRows, positions: Positions) -> tuple[Positions, Positions]:
    """Positions of two halves that share nothing: earlier and later in time, else at random or by group."""
    import numpy as np

    if split.timed:
        ordered = positions[np.argsort(rows.at[positions], kind="stable")]
        return np.sort(ordered[: len(positions) // 2]), np.sort(ordered[len(positions) // 2 :])
    if not len(positions):
        return positions, positions
    first = split.cut(rows, positions, 2, 1)[0][1]
    return positions[first], np.delete(positions, first)


def _fold_pairs(fold: Positions, count: int) -> Folds:
    import numpy as np

    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(count)]
