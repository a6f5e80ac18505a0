"""Describe what is missing before it is filled: shares, patterns, columns missing together, and Little's test."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.estimators._tables import EMPTY, NUMBER, is_missing, read_table

__all__ = ["LittleTest", "MissingPattern", "little_mcar_test", "missing_pattern"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MissingPattern:
    """What is missing in a table.

    Parameters
    ----------
    columns : tuple of str
    rows : int
    missing : tuple of int
        Missing values per column.
    patterns : tuple of (tuple of str, int)
        The columns missing together, and in how many rows; most frequent first. ``()`` are the complete rows.
    correlation : tuple of tuple of (float or None)
        Pearson's correlation (phi) of "is missing" for each pair of columns; None where a column is never or always
        missing.

    Examples
    --------
    >>> found = missing_pattern(np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0]]))
    >>> found.missing, found.patterns, found.correlation[0][1]
    ((1, 1), (((), 1), (('x0',), 1), (('x1',), 1)), -0.5)
    """

    columns: tuple[str, ...]
    rows: int
    missing: tuple[int, ...]
    patterns: tuple[tuple[tuple[str, ...], int], ...]
    correlation: tuple[tuple[float | None, ...], ...]

    @property
    def shares(self) -> dict[str, float]:
        """Share of missing values per column."""
        return {name: count / self.rows for name, count in zip(self.columns, self.missing, strict=True)}

    @property
    def complete(self) -> int:
        """Rows without a missing value."""
        return sum(count for names, count in self.patterns if not names)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        body = asdict(self)
        return {**body, "patterns": [[list(names), count] for names, count in self.patterns]}


def missing_pattern(table: Any) -> MissingPattern:
    """Describe what is missing in a NumPy, pandas, Arrow or Polars table of at least one row.

    Raises
    ------
    InputError
        If the table has no rows or columns.
    """
    read = read_table(table, "missing pattern")
    if not read.rows or not read.columns:
        raise InputError("a table must have rows and columns", where="missing pattern",
                         got=(read.rows, len(read.columns)), remedy="Pass a table that is not empty")  # fmt: skip
    names = tuple(read.columns)
    missing_flags = np.column_stack([is_missing(column) for column in read.columns.values()])
    kinds, counts = np.unique(np.packbits(missing_flags, axis=1), axis=0, return_counts=True)
    flags = np.unpackbits(kinds, axis=1, count=len(names)).astype(bool)
    counts_by_names = Counter(
        {tuple(np.array(names, dtype=object)[row]): int(n) for row, n in zip(flags, counts, strict=True)}
    )
    ordered = sorted(counts_by_names.items(), key=lambda item: (-item[1], [names.index(name) for name in item[0]]))
    missing = missing_flags.sum(axis=0)
    return MissingPattern(names, read.rows, tuple(missing.tolist()), tuple(ordered), _phi(missing_flags, missing))


def _phi(missing_flags: NDArray[np.bool_], missing: NDArray[np.int64]) -> tuple[tuple[float | None, ...], ...]:
    """Correlations of 0/1 columns from counts, which are exact: ``(n n11 - n1 n2) / sqrt(n1 (n - n1) n2 (n - n2))``."""
    n = len(missing_flags)
    pairs = missing_flags.astype(np.float64).T @ missing_flags.astype(np.float64)
    spread = missing * (n - missing.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = (n * pairs - np.outer(missing, missing)) / np.sqrt(np.outer(spread, spread))
    return tuple(tuple(None if np.isnan(v) else float(np.clip(v, -1, 1)) for v in row) for row in phi)


@dataclass(frozen=True, slots=True)
class LittleTest:
    """Result of Little's test that values are missing completely at random.

    Parameters
    ----------
    statistic : float
        Little's d squared; asymptotically chi-square with ``df`` degrees of freedom if the hypothesis holds.
    df : int
        ``sum over patterns of their observed columns - columns``.
    p_value : float or None
        Probability of a statistic at least as large; None if ``df`` is 0: one pattern, nothing to compare.
    patterns, rows : int
        Patterns and rows used; rows without any value are left out.
    iterations : int
        Steps of the EM algorithm.
    """

    statistic: float
    df: int
    p_value: float | None
    patterns: int
    rows: int
    iterations: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one pattern: the places observed, how many rows, their mean and centred products."""

    seen: NDArray[np.int64]
    rows: int
    mean: NDArray[np.float64]
    products: Matrix


def little_mcar_test(table: Any, *, tolerance: float = 1e-9, max_iterations: int = 20_000) -> LittleTest:
    """Test whether values are missing completely at random (Little 1988, JASA 83, 1198-1202).

    ``d2 = sum over patterns j of n_j (ybar_j - mu_j)' S_j^-1 (ybar_j - mu_j)``, where ``ybar_j`` are the means of the
    observed columns of the pattern, and ``mu``, ``S`` the maximum-likelihood mean and covariance of a multivariate
    normal distribution, by EM (Dempster, Laird and Rubin 1977) over all rows. ``S`` is taken as it is, as in
    ``mcar_test`` of the R package naniar; some programs multiply it by ``n / (n - 1)``.

    A small p-value speaks against "completely at random". A large one proves nothing; the test compares means only,
    assumes normal values and one covariance, and says nothing about values missing because of what they are.

    Parameters
    ----------
    table : NumPy, pandas, Arrow or Polars table
        Columns of numbers.
    tolerance : float, default 1e-9
        EM stops when no standardised mean or covariance moves by more.
    most : int, default 20000
        Most steps of EM.

    Returns
    -------
    LittleTest

    Raises
    ------
    InputError
        If a column is not of numbers, has fewer than two different values or an infinity, or the columns depend on one
        another so that their covariance has no inverse, or EM does not settle.
    """
    from scipy.special import chdtrc

    values, names = _numbers(table)
    values = values[~np.isnan(values).all(axis=1)]
    centre, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    if not (spread > 0).all():
        raise InputError("a column must have at least two different values",
                         where=f"Little's test, column {names[int(np.flatnonzero(~(spread > 0))[0])]!r}",
                         got="one value", remedy="Leave the column out")  # fmt: skip
    groups = _groups((values - centre) / spread)
    try:
        mean, covariance, steps = _maximum_likelihood(groups, len(names), tolerance, max_iterations)
        statistic = sum(_distance(group, mean, covariance) for group in groups)
    except np.linalg.LinAlgError as error:
        raise InputError("the covariance of the columns must have an inverse", where="Little's test",
                         got=f"{len(names)} columns",
                         remedy="Leave out columns that follow from others") from error  # fmt: skip
    df = sum(group.seen.size for group in groups) - len(names)
    p_value = float(chdtrc(df, statistic)) if df > 0 else None
    return LittleTest(float(statistic), df, p_value, len(groups), len(values), steps)


def _numbers(table: Any) -> tuple[Matrix, list[str]]:
    read = read_table(table, "Little's test")
    for name, kind in read.kinds.items():
        if kind not in (NUMBER, EMPTY):
            raise InputError("the test must have columns of numbers", where=f"Little's test, column {name!r}", got=kind,
                             remedy="Leave the column out")  # fmt: skip
    values = np.column_stack(list(read.columns.values()))
    if np.isinf(values).any() or np.isnan(values).all(axis=0).any():
        raise InputError("every column must have values, all finite", where="Little's test", got=values.shape,
                         remedy="Leave out empty columns; replace infinities by null")  # fmt: skip
    return values, list(read.columns)


def _groups(values: Matrix) -> list[_Group]:
    present = ~np.isnan(values)
    _, codes = np.unique(present, axis=0, return_inverse=True)
    groups = []
    for code in range(int(codes.max()) + 1):
        rows = values[codes.ravel() == code]
        seen = np.flatnonzero(~np.isnan(rows[0]))
        rows = rows[:, seen]
        mean = rows.mean(axis=0)
        groups.append(_Group(seen, len(rows), mean, (rows - mean).T @ (rows - mean)))
    return groups


def _maximum_likelihood(
    groups: list[_Group], size: int, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.float64], Matrix, int]:
    """EM over the patterns: given mean and products of its rows, a pattern needs no look at the rows themselves."""
    mean, covariance = np.zeros(size), np.eye(size)
    total = sum(group.rows for group in groups)
    for step in range(1, max_iterations + 1):
        sums, products = np.zeros(size), np.zeros((size, size))
        for group in groups:
            # Regression of all columns on those observed; for these it is the identity.
            seen = group.seen
            slope = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[seen]).T
            expected = mean + slope @ (group.mean - mean[seen])
            rest = covariance - slope @ covariance[seen]
            sums += group.rows * expected
            products += slope @ group.products @ slope.T + group.rows * (np.outer(expected, expected) + rest)
        new_mean = sums / total
        new_covariance = products / total - np.outer(new_mean, new_mean)
        new_covariance = (new_covariance + new_covariance.T) / 2
        moved = max(np.abs(new_mean - mean).max(), np.abs(new_covariance - covariance).max())
        mean, covariance = new_mean, new_covariance
        if moved <= tolerance:
            return mean, covariance, step
    raise InputError("the EM algorithm must settle", where="Little's test", got=f"{max_iterations} steps",
                     remedy="Leave out columns that are missing nearly always, or raise max_iterations=")  # fmt: skip


def _distance(group: _Group, mean: NDArray[np.float64], covariance: Matrix) -> float:
    difference = group.mean - mean[group.seen]
    solved = np.linalg.solve(covariance[np.ix_(group.seen, group.seen)], difference)
    return group.rows * float(difference @ solved)
