"""What a model reads: its features in order, their types, and the categories that the training rows held.

The vocabulary is part of the model, not of the data that happens to be scored: a category unseen in training and a null
get the same code, NaN, which every engine reads as missing. One-hot codes or category types that live in a data frame
were rejected, since they change with the frame.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.identity import canonical_json
from retrodict.models._encoder import RowEncoder, Vocabulary, category_column, number_column, plain_values
from retrodict.models.estimators import FeatureType

__all__ = ["Feature", "FeatureType", "InputSpec"]

# Whole numbers from here on share their float64 with a neighbour, so they cannot be told apart as categories.
_EXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of a model.

    Attributes
    ----------
    name : str
        Name of the column or value it is read from.
    type : {"number", "category"}
        How it is read. Bools are numbers: 0 and 1.
    vocabulary : tuple of str, or of int and float
        For a category: what the training rows held, sorted; the code of a value is its place here.
    """

    name: str
    type: FeatureType
    vocabulary: Vocabulary = ()

    def __post_init__(self) -> None:
        """Refuse a vocabulary that codes could not be read back from."""
        where = f"feature {self.name!r}"
        rule = "a feature must be a number or a category"
        check_known(self.type, ("number", "category"), rule, where=where, what="type", error=InputError)
        if self.type == "number" and self.vocabulary:
            raise InputError("a number must not have a vocabulary", where=where, got=f"{len(self.vocabulary)} words",
                             remedy="Leave it out, or make the feature a category")  # fmt: skip
        kinds = {isinstance(value, str) for value in self.vocabulary}
        if len(kinds) > 1 or list(self.vocabulary) != sorted(set(self.vocabulary)):
            raise InputError("a vocabulary must be sorted, without repeats, and all text or all numbers", where=where,
                             got=f"{len(self.vocabulary)} words", remedy="Learn it with InputSpec.learn")  # fmt: skip


@dataclass(frozen=True)
class InputSpec:
    """Features of a model, in the order of its matrix.

    Attributes
    ----------
    features : tuple of Feature
        At least one; names are unique.

    Examples
    --------
    >>> spec = InputSpec.learn({"wind": [3.5, None], "origin": ["JFK", "EWR"]})
    >>> spec.encode_columns({"origin": ["JFK", "unseen"], "wind": [1.0, 2.0]}).tolist()
    [[1.0, 1.0], [2.0, nan]]
    >>> spec.encode_row({"wind": None, "origin": "EWR"}).tolist()
    [nan, 0.0]
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        """Check names."""
        if not self.features:
            raise InputError("a model must have at least one feature", where="inputs", got=0,
                             remedy="Learn the inputs from columns")  # fmt: skip
        if twice := [name for name, times in Counter(self.names).items() if times > 1]:
            raise InputError("a feature must occur once", where="inputs", got=twice, remedy="Rename one of them")

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def learn(
        cls,
        columns: Mapping[str, Any],
        types: Mapping[str, FeatureType] | None = None,
        *,
        max_categories: int = 10_000,
    ) -> InputSpec:
        """Types and vocabularies from training rows, and only from them.

        Parameters
        ----------
        columns : mapping of str to NumPy array, Arrow array or list
            Training rows; the order of the mapping becomes the order of the matrix.
        types : mapping of str to {"number", "category"}, optional
            What to take a column for; None and absent names: text is a category, everything else a number.
        max_categories : int, default 10000
            Of more categories than this the most frequent are kept (ties: the smaller value); the rest count as unseen.

        Raises
        ------
        InputError
            If a column has a type that is neither, such as a time.
        """
        declared = types or {}
        for name in sorted(declared):
            rule = "a type must be for a column that exists"
            check_known(name, columns, rule, where=f"feature {name!r}", what="column", error=InputError)
        features = []
        for name, column in columns.items():
            plain = plain_values(name, column)
            if declared.get(name, _usual_type(plain)) == "category":
                features.append(Feature(name, "category", _vocabulary(name, plain, max_categories)))
            else:
                number_column(name, plain)  # says now, not while serving, that the column cannot be read
                features.append(Feature(name, "number"))
        return cls(tuple(features))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Feature names, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def categorical(self) -> tuple[int, ...]:
        """Places of the categories in the matrix."""
        return tuple(at for at, feature in enumerate(self.features) if feature.type == "category")

    @cached_property
    def _rows(self) -> RowEncoder:
        return RowEncoder(self.names, [f.vocabulary if f.type == "category" else None for f in self.features])

    def encode_columns(self, columns: Mapping[str, Any]) -> NDArray[np.float64]:
        """Matrix of shape (rows, features), float64, C order; what the spec does not name is ignored.

        Raises
        ------
        InputError
            If a feature is absent, of the wrong type, infinite, or of another length than the others. The message
            names the feature, never a value.
        """
        matrix: NDArray[np.float64] | None = None
        for at, feature in enumerate(self.features):
            name, rule = feature.name, "the columns must hold every feature of the model"
            check_known(name, columns, rule, where=f"feature {name!r}", what="column", error=InputError)
            column = columns[name]
            if feature.type == "category":
                codes = category_column(name, column, feature.vocabulary)
            else:
                codes = number_column(name, column)
            if matrix is None:
                matrix = np.empty((len(codes), len(self)), dtype=np.float64)
            elif len(codes) != len(matrix):
                raise InputError(f"columns must be of one length; the first has {len(matrix)} rows",
                                 where=f"feature {feature.name!r}", got=len(codes),
                                 remedy="Pass columns of the same rows")  # fmt: skip
            matrix[:, at] = codes
        return np.empty((0, len(self))) if matrix is None else matrix

    def encode_row(self, values: Mapping[str, Any], row: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """One row, bit for bit what :meth:`encode_columns` makes of it.

        Parameters
        ----------
        values : mapping of str to float, int, str, bool or None
            Every feature; None where it is not known. Further keys are ignored.
        row : ndarray of shape (features,), float64, C order, optional
            Is filled and returned; None makes a new one.
        """
        if row is None:
            row = np.empty(len(self), dtype=np.float64)
        self._rows.encode(values, row)
        return row

    def to_json(self) -> bytes:
        """Canonical JSON: equal bytes for equal specs."""
        return canonical_json([
            {"name": f.name, "type": f.type, **({"vocabulary": list(f.vocabulary)} if f.type == "category" else {})}
            for f in self.features
        ])  # fmt: skip

    @classmethod
    def from_json(cls, data: bytes) -> InputSpec:
        """Read what :meth:`to_json` wrote."""
        return cls(tuple(Feature(f["name"], f["type"], tuple(f.get("vocabulary", ()))) for f in json.loads(data)))


def _usual_type(plain: Any) -> FeatureType:
    if isinstance(plain, list):
        return "category" if any(isinstance(value, str) for value in plain) else "number"
    kind = plain.type
    return "category" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else "number"


def _counts(name: str, plain: Any) -> dict[Any, int]:
    """How often each value that is not null occurs; numbers as floats."""
    if isinstance(plain, list):
        present = [value for value in plain if value is not None and value == value]  # noqa: PLR0124  # drops NaN
        if present and all(isinstance(value, str) for value in present):
            return dict(Counter(present))
        plain = pa.array(number_column(name, present))
    elif _usual_type(plain) == "category":
        counted: Any = pc.value_counts(plain.drop_null())
        return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}
    floats = number_column(name, plain)
    values, times = np.unique(floats[~np.isnan(floats)], return_counts=True)
    return dict(zip(values.tolist(), times.tolist(), strict=True))


def _vocabulary(name: str, plain: Any, limit: int) -> Vocabulary:
    counts = _counts(name, plain)
    if len(counts) > limit:
        counts = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit])
    words: Sequence[Any] = sorted(counts)
    if words and not isinstance(words[0], str):
        if max(abs(words[0]), abs(words[-1])) >= _EXACT:
            raise InputError("categories that are numbers must be below 2**53 in size", where=f"feature {name!r}",
                             got="a larger one", remedy="Give the column as text")  # fmt: skip
        words = [int(word) if word.is_integer() else word for word in words]
    return tuple(words)
