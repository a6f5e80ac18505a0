"""Fits the two lowest rungs of the ladder."""

from __future__ import annotations

import numpy as np

from retrodict.core.errors import InputError
from retrodict.models.engines.rates import ConstantEngine, GroupRateEngine
from retrodict.models.training.base import Examples, Fitted

__all__ = ["fit_constant", "fit_group_rate"]


def fit_constant(train: Examples) -> Fitted[ConstantEngine]:
    """Share of ones among the training rows."""
    return Fitted(ConstantEngine(float(train.labels.mean()), train.width), params={})


def fit_group_rate(train: Examples, column: int, *, prior_count: float = 20.0) -> Fitted[GroupRateEngine]:
    """Rate per category: ``(ones + prior_count * overall) / (rows + prior_count)``.

    Parameters
    ----------
    train : Examples
        Training rows.
    column : int
        Place of a category in the matrix (whole codes from 0; NaN for missing).
    prior_count : float, default 20
        How many rows at the overall rate each category is given beforehand; more draws small categories closer.
    """
    if not 0 <= column < train.width:
        raise InputError(f"the column is below {train.width}", where="group rate", got=column)
    if not prior_count >= 0:
        raise InputError("a prior count is zero or more", where="group rate", got=prior_count)
    codes = train.matrix[:, column]
    given = ~np.isnan(codes)
    places = codes[given].astype(np.intp)
    if (places < 0).any() or (places != codes[given]).any():
        raise InputError("a group rate is taken over a category", where=f"feature {column}",
                         remedy="Choose one of InputSpec.categorical")  # fmt: skip
    overall = float(train.labels.mean())
    rows = np.bincount(places)
    ones = np.bincount(places, weights=train.labels[given], minlength=len(rows))
    weight = rows + prior_count
    # A code without rows and without a prior knows nothing of its own.
    rates = np.where(weight > 0, (ones + prior_count * overall) / np.where(weight > 0, weight, 1.0), overall)
    engine = GroupRateEngine(column, tuple(np.clip(rates, 0.0, 1.0).tolist()), overall, train.width)
    return Fitted(engine, params={"column": column, "prior_count": prior_count})
