"""Rows that a model cannot score, found among many that it can: one of 100,000 costs as many calls as it has halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import (
    DefinitionError,
    InputError,
    IntegrityError,
    InternalError,
    RetrodictError,
    RetryableError,
)

__all__ = ["find_faults"]

LIMIT = 200
"""Rows by themselves, spread evenly, after which a fault that all of them have is one of the whole."""

_OTHERS = (OSError, MemoryError, RetryableError, IntegrityError, InternalError)  # whatever the rows are


def find_faults(attempt: Callable[[NDArray[np.int64]], Any], count: int) -> dict[int, str]:
    """Places of the rows that an attempt fails for, each with its reason, in which there are no values.

    What fails is halved (every other row, so that the first to be tried by themselves lie all over) until it passes
    or is one row: at most two calls a row.

    Raises
    ------
    InputError
        If it is no matter of single rows: the first :data:`LIMIT` all fail.
    """
    faults: dict[int, str] = {}
    waiting, passed = [np.arange(count)], False
    while waiting:
        places = waiting.pop()
        try:
            attempt(places)
            passed = True
        except _OTHERS:
            raise
        except Exception as error:  # noqa: BLE001  # of code of a user, too
            if len(places) > 1:
                waiting += [places[1::2], places[::2]]
                continue
            faults[int(places[0])] = reason = _reason(error)
            if len(faults) == LIMIT and not passed:
                raise InputError(f"of the rows of a chunk some must be such that the model can score them ({reason})",
                                 where="score", got=f"{LIMIT} rows, spread evenly, that all fail",
                                 remedy="Correct what they fail by, or leave these rows out") from None  # fmt: skip
    return faults


def _reason(error: Exception) -> str:
    """The rule that a row breaks, or where somebody's code fails, and the kind of that: its text may hold values."""
    if isinstance(error, RetrodictError) and not (isinstance(error, DefinitionError) and error.__cause__):
        return f"{error.where}: {error.rule}"
    cause = error.__cause__ if isinstance(error, DefinitionError) else error
    return f"{getattr(error, 'where', 'model')} ({type(cause).__name__})"
