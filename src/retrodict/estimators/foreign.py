"""Any transformer of scikit-learn as a step: numbers go through it, categories beside it; skops keeps its state."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from retrodict.core.errors import InputError, IntegrityError
from retrodict.estimators._operations import Matrix, Operation
from retrodict.estimators._skops import pack
from retrodict.estimators.steps import Step

__all__ = ["ScikitLearnStep", "dump_estimator"]


class ScikitLearnStep(Step):
    """A transformer of scikit-learn for some columns; what it gives comes first, then the other columns.

    It is stored by skops, which reads types of a fixed list and runs nothing; a transformer with another type in its
    state is refused when it is fitted. A row may differ from the batch in the last bits.

    Parameters
    ----------
    transformer : transformer of scikit-learn, optional
        Is cloned, never fitted itself.
    columns : sequence of int, optional
        None: all numbers.
    categorical : sequence of int, default ()

    Examples
    --------
    >>> from sklearn.preprocessing import QuantileTransformer
    >>> step = ScikitLearnStep(QuantileTransformer(n_quantiles=3)).fit([[1.0], [2.0], [3.0]])
    >>> load = ScikitLearnStep.from_dict(step.to_dict())
    >>> load.transform_row([1.5])
    [0.25]
    """

    kind: ClassVar[str] = "scikit_learn"
    exact_rows: ClassVar[bool] = False
    _unsaved: ClassVar[tuple[str, ...]] = ("transformer",)

    def __init__(
        self, transformer: Any = None, *, columns: Sequence[int] | None = None, categorical: Sequence[int] = ()
    ) -> None:
        self.transformer = transformer
        self.columns = columns
        self.categorical = categorical

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> list[Operation]:
        from sklearn.utils.validation import has_fit_parameter

        self.places_ = self._numbers()
        self.transformer_ = clone(self.transformer)
        takes = weights is not None and has_fit_parameter(self.transformer_, "sample_weight")
        try:
            self.transformer_.fit(matrix[:, self.places_], labels, **({"sample_weight": weights} if takes else {}))
        except (TypeError, ValueError) as error:
            raise InputError(f"the transformer must accept the training rows ({str(error).rstrip('.')})",
                             where=self._where, got=type(self.transformer).__name__,
                             remedy="Fill missing values in a step before it") from error  # fmt: skip
        # Now, and not when it is saved: what cannot be kept is refused where it is fitted.
        self.state_ = dump_estimator(self.transformer_, where=self._where)
        return list(self._others(self.places_))

    def _apply(self, matrix: Matrix) -> Matrix:
        inner = self.transformer_.transform(matrix[:, self.places_])
        inner = inner.toarray() if hasattr(inner, "toarray") else np.asarray(inner, dtype=np.float64)
        return np.hstack((inner.reshape(len(matrix), -1), super()._apply(matrix)))

    def transform_row(self, row: Sequence[float]) -> list[float]:
        """One row, by the transformer of scikit-learn."""
        values: list[float] = self.transform(np.array([row], dtype=np.float64))[0].tolist()
        return values

    def get_feature_names_out(
        self, input_features: Any = None, words: Mapping[int, Sequence[Any]] | None = None
    ) -> NDArray[Any]:
        """Names that the transformer gives, then those of the other columns."""
        rest = super().get_feature_names_out(input_features, words)
        names = [f"x{place}" for place in range(self.n_features_in_)] if input_features is None else input_features
        names = getattr(self, "feature_names_in_", names) if input_features is None else names
        inner = self.transformer_.get_feature_names_out([str(names[place]) for place in self.places_])
        return np.array([*inner, *rest], dtype=object)

    @property
    def sources_(self) -> tuple[tuple[int, ...], ...]:
        """All columns of the transformer for each that it gives, then the columns that pass."""
        rest = super().sources_
        return (tuple(self.places_),) * (len(self.get_feature_names_out()) - len(rest)) + rest

    @property
    def categorical_(self) -> tuple[int, ...]:
        """Places of the categories, behind what the transformer gives."""
        check_is_fitted(self, "operations_")
        width = len(self.get_feature_names_out()) - len(self.operations_)
        return tuple(width + place for place in super().categorical_)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; the transformer as base64 of its skops file."""
        return {**super().to_dict(), "places": self.places_, "skops": base64.b64encode(self.state_).decode()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``; IntegrityError if the file of skops is not whole or holds other types."""
        import skops.io

        step = super().from_dict(body)
        try:
            step.state_ = base64.b64decode(body["skops"], validate=True)
            step.transformer_ = skops.io.loads(step.state_, trusted=[])
        except Exception as error:  # skops raises what it meets in the bytes
            raise IntegrityError("a stored transformer must be a file of skops with trusted types", where="step",
                                 got=type(error).__name__, remedy="Restore it from a backup") from error  # fmt: skip
        step.places_ = list(body["places"])
        return step


def dump_estimator(estimator: Any, *, where: str) -> bytes:
    """File of skops of a fitted estimator, equal bytes for equal estimators.

    So a run that is done again gives the same artifact.

    Raises
    ------
    InputError
        If the state holds a type that skops does not trust.
    """
    import skops.io

    data: bytes = skops.io.dumps(estimator)
    if untrusted := skops.io.get_untrusted_types(data=data):
        raise InputError("a transformer must be stored without code of its own", where=where, got=untrusted,
                         remedy="Take one of scikit-learn, or write it as a derived feature")  # fmt: skip
    return pack(data)
