"""What an estimator is given: tables by name, arrays through the checks of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from retrodict.core.errors import InputError
from retrodict.estimators._tables import ColumnTable, read_table


def read_input(estimator: Any, data: Any, where: str, fitted: Sequence[str] | None = None) -> ColumnTable:
    """Read a table; without ``fitted`` its columns are learned, otherwise these are asked for, in this order."""
    reset = fitted is None
    if not any(hasattr(data, name) for name in ("columns", "column_names")):
        try:
            data = validate_data(estimator, data, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        except (TypeError, ValueError) as error:
            raise InputError(str(error).rstrip("."), where=where, got=type(data).__name__,
                             remedy="Pass the table as it was fitted") from error  # fmt: skip
        return read_table(data, fitted, where)
    table = read_table(data, fitted, where)
    if not table.rows or not table.columns:
        raise InputError("a table must have rows and columns", where=where, got=(table.rows, len(table.columns)),
                         remedy="Pass the training rows")  # fmt: skip
    if reset:
        estimator.n_features_in_ = len(table.columns)
        labels = data.column_names if hasattr(data, "column_names") else list(data.columns)
        if all(isinstance(label, str) for label in labels):
            estimator.feature_names_in_ = np.array(list(table.columns), dtype=object)
        elif hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    return table
