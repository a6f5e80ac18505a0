"""A multi-layer perceptron over tables, as plain arrays: torch fits it, NumPy serves it.

Numbers are standardised and held within ten standard deviations, so that no odd row runs away; each that training rows
lacked somewhere has an indicator beside it. Categories are embedded (Guo and Berkhahn 2016), with one more row for
missing and unseen. An embedding times its part of the first layer is one table, made when the engine is: a category
costs a look-up and an addition.

safetensors was left out: arrays of NumPy's own ``npz`` need no further library, and pickles in it are refused.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, IntegrityError
from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.models._logistic import sigmoid, sigmoids, softmax
from retrodict.models.engines.base import check_matrix, check_row

__all__ = ["ACTIVATIONS", "NetworkEngine", "NetworkPlan"]

Array = NDArray[np.float64]

_ARRAYS, _PLAN = "arrays.npz", "engine.json"
_FARTHEST = 10.0

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda values: np.maximum(values, 0.0),
    "tanh": np.tanh,
}


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What the arrays of a network mean.

    Attributes
    ----------
    target : Target
    width : int
        Number of features.
    numbers : tuple of int
        Places of the numbers.
    gaps : tuple of int
        Those among them, by their place in ``numbers``, that have an indicator of missing values.
    categories : tuple of int
        Places of the categories.
    layers : int
        Number of hidden layers.
    activation : {"relu", "tanh"}
    centre, unit : float
        Of a number that is predicted: the mean and the standard deviation of the training labels.
    """

    target: Target
    width: int
    numbers: tuple[int, ...]
    gaps: tuple[int, ...]
    categories: tuple[int, ...]
    layers: int
    activation: str
    centre: float = 0.0
    unit: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**asdict(self), "target": self.target.to_dict()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> NetworkPlan:
        """Inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in body.items()}
        return cls(**{**plain, "target": Target.from_dict(body["target"])})


class NetworkEngine:
    """A fitted network.

    Safe for threads: nothing changes after construction. One row equals its batch to 1e-12: BLAS adds in another order
    for one row than for a thousand.

    Parameters
    ----------
    plan : NetworkPlan
    arrays : mapping of str to ndarray
        ``mean`` and ``scale`` of the numbers; ``embedding_0``, ... of shape (codes + 1, dimensions); ``weight_0``, ...
        of shape (inputs, outputs) and ``bias_0``, ...: hidden layers, then the output. Inputs of the first are numbers,
        indicators, then embeddings.
    """

    kind: ClassVar[str] = "network"
    exact_rows: ClassVar[bool] = False
    explains: ClassVar[bool] = False

    def __init__(self, plan: NetworkPlan, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.plan, self.arrays = plan, dict(arrays)
        wide = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
        self._read_scales(wide)
        first, at = wide["weight_0"], len(plan.numbers) + len(plan.gaps)
        self._first, self._tables = np.ascontiguousarray(first[:at]), []
        for number in range(len(plan.categories)):
            embedding = wide[f"embedding_{number}"]
            self._tables.append(embedding @ first[at : at + embedding.shape[1]])
            at += embedding.shape[1]
        self._bias = wide["bias_0"]
        self._later = [(wide[f"weight_{n}"], wide[f"bias_{n}"]) for n in range(1, plan.layers + 1)]
        self._activation = ACTIVATIONS[plan.activation]

    def _read_scales(self, wide: Mapping[str, Array]) -> None:
        self._numbers, self._gaps = np.array(self.plan.numbers, np.intp), np.array(self.plan.gaps, np.intp)
        self._mean, self._scale = wide["mean"], wide["scale"]
        self._scalers = list(zip(self.plan.numbers, self._mean.tolist(), self._scale.tolist(), strict=True))

    @property
    def target(self) -> Target:
        """What the scores are."""
        return self.plan.target

    @property
    def width(self) -> int:
        """Number of features."""
        return self.plan.width

    def inputs(self, matrix: Array) -> Array:
        """Standardised numbers and indicators, shape (n, inputs of the first layer before embeddings)."""
        values = matrix[:, self._numbers]
        blank = np.isnan(values)
        with np.errstate(over="ignore"):
            scaled = np.clip((values - self._mean) / self._scale, -_FARTHEST, _FARTHEST)
        scaled[blank] = 0.0
        return np.hstack([scaled, blank[:, self._gaps]])

    def _sums(self, matrix: Array) -> Array:
        """What the output layer gives, of shape (n, outputs)."""
        hidden = self.inputs(matrix) @ self._first + self._bias
        for place, table in zip(self.plan.categories, self._tables, strict=True):
            codes, unseen = matrix[:, place], len(table) - 1
            hidden += table[np.where((codes >= 0) & (codes < unseen), codes, unseen).astype(np.intp)]
        return self._outputs(hidden)

    def _row_sums(self, row: Array) -> Array:
        """The same of one row, number by number: NumPy's calls would take longer than the sums."""
        values = row.tolist()
        hidden = np.array(self._row_inputs(values)) @ self._first + self._bias
        for place, table in zip(self.plan.categories, self._tables, strict=True):
            code = values[place]
            hidden += table[int(code) if 0 <= code < len(table) - 1 else -1]
        return self._outputs(hidden)

    def _row_inputs(self, values: list[float]) -> list[float]:
        """:meth:`inputs` of one row."""
        inputs, blank = [], []
        for place, mean, scale in self._scalers:
            value = values[place]
            missing = value != value  # noqa: PLR0124  # NaN
            inputs.append(0.0 if missing else max(-_FARTHEST, min(_FARTHEST, (value - mean) / scale)))
            blank.append(1.0 if missing else 0.0)
        return inputs + [blank[at] for at in self.plan.gaps]

    def _outputs(self, hidden: Array) -> Array:
        """From the first layer on."""
        for weight, bias in self._later:
            hidden = self._activation(hidden) @ weight + bias
        return hidden * self.plan.unit + self.plan.centre

    def margins(self, matrix: Array) -> Array:
        """Log-odds, logarithm of the mean, or the value itself, shape (n,) or (n, outputs)."""
        check_matrix(matrix, self.width)
        if not len(matrix):
            return np.empty(0 if self.target.columns == 1 else (0, self.target.columns))
        sums = self._sums(matrix)
        return np.ascontiguousarray(sums[:, 0]) if self.target.columns == 1 else sums

    def margin(self, row: Array) -> Any:
        """Margins of one row."""
        values = self._row_sums(check_row(row, self.width)).tolist()
        return values[0] if self.target.columns == 1 else tuple(values)

    def scores(self, matrix: Array) -> Array:
        """Outputs, shape (n,) or (n, outputs)."""
        margins = self.margins(matrix)
        match self.target.task:
            case "binary":
                return sigmoids(margins)
            case "multiclass":
                return np.array([softmax(line) for line in margins.tolist()]).reshape(margins.shape)
            case "quantile":
                return np.sort(margins, axis=-1) if margins.ndim > 1 else margins
            case "count":
                return np.exp(np.minimum(margins, 700.0))
        return margins

    def score_row(self, row: Array) -> Any:
        """Outputs of one row."""
        margin = self.margin(row)
        match self.target.task:
            case "binary":
                return sigmoid(margin)
            case "multiclass":
                return tuple(softmax(list(margin)))
            case "quantile" if isinstance(margin, tuple):
                return tuple(sorted(margin))
            case "count":
                return float(np.exp(min(margin, 700.0)))
        return margin

    def contributions(self, row: Array) -> Array:  # noqa: ARG002  # as the contract has it
        """Raise InputError: there are none."""
        raise InputError("an engine must have exact contributions to explain a row", where="network", got="none",
                         remedy="Look at explains first, or use an estimator that explains")  # fmt: skip

    def parts(self) -> Mapping[str, bytes]:
        """The arrays, and what they mean."""
        sink = io.BytesIO()
        np.savez(sink, **{name: self.arrays[name] for name in sorted(self.arrays)})  # type: ignore[arg-type]
        return {_ARRAYS: sink.getvalue(), _PLAN: canonical_json(self.plan.to_dict())}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> NetworkEngine:
        """Read what :meth:`parts` gave; IntegrityError if it is not that."""
        try:
            with np.load(io.BytesIO(parts[_ARRAYS]), allow_pickle=False) as stored:
                return cls(NetworkPlan.from_dict(json.loads(parts[_PLAN])), dict(stored))
        except (ValueError, KeyError, OSError, BadZipFile) as error:
            raise IntegrityError("NumPy must read the arrays of the network", where="engine",
                                 got=f"{len(parts[_ARRAYS])} bytes",
                                 remedy="Restore the object store from a backup") from error  # fmt: skip

    def fingerprint(self) -> str:
        """SHA-256 of arrays and plan."""
        plain = {name: [list(values.shape), str(values.dtype), digest(values.tobytes())]
                 for name, values in self.arrays.items()}  # fmt: skip
        return digest(canonical_json({"plan": self.plan.to_dict(), "arrays": plain}))
