"""Which version a training begins from instead of from nothing, and how it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import DefinitionError
from retrodict.models._lightgbm import main_names

if TYPE_CHECKING:
    from retrodict.models.estimators import Estimator

__all__ = ["WarmStart"]

_RATES = ("learning_rate", "learning_rate_init")
_COUNTS = ("num_iterations", "num_boost_round", "iterations", "n_estimators", "max_iter", "epochs")


@dataclass(frozen=True)
class WarmStart:
    """Version that a fit takes trees, coefficients or weights over from; the version itself is never changed.

    Parameters
    ----------
    version : str
        ``name@version``, a name for its newest version, or ``"champion"``: the version of the model in force.
    learning_rate_scale : float, default 1.0
        What the estimator's learning rate is multiplied by.
    add : int, optional
        How many iterations, trees or epochs are added at most; None: as many as the recipe's parameter says.
    layers : list of str, optional
        Of a ``network``: the layers that are taken over, like ``["embeddings", "hidden.0"]``; the others, ``"output"``
        the last of them, are drawn anew. None: all.
    compare : bool, default True
        Whether a fit from nothing is made beside it, to compare time and quality with.
    force : str, default ""
        Why it is right to go on though the distribution of features has shifted. Empty: a shift is refused.

    Examples
    --------
    >>> WarmStart("late_arrival@3", learning_rate_scale=0.1, add=100).add
    100
    """

    version: str
    learning_rate_scale: float = 1.0
    add: int | None = None
    layers: tuple[str, ...] | list[str] | None = None
    compare: bool = True
    force: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without the version."""
        object.__setattr__(self, "layers", None if self.layers is None else tuple(self.layers))
        scale: object = self.learning_rate_scale
        add: object = self.add
        version: object = self.version
        if not isinstance(version, str) or not version:
            raise DefinitionError("a version to begin from must be named", where="WarmStart", got=version,
                                  remedy="Write 'late_arrival@3', or 'champion'")  # fmt: skip
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise DefinitionError("learning_rate_scale must be a number above 0", where="WarmStart", got=scale,
                                  remedy="Write learning_rate_scale=0.1")  # fmt: skip
        if add is not None and (type(add) is not int or add < 1):
            raise DefinitionError("add must be a whole number of at least 1", where="WarmStart", got=add,
                                  remedy="Write add=100, or leave it out")  # fmt: skip

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator that cannot go on, and options that it does not have.

        Raises
        ------
        DefinitionError
            Names the estimators that can.
        """
        if not estimator.warm_start:
            from retrodict.models.estimators import list_estimators

            able = ", ".join(one.name for one in list_estimators() if one.warm_start)
            raise DefinitionError(f"an estimator that begins from a version must be one that can go on: {able}",
                                  where="Recipe, start_from", got=estimator.name,
                                  remedy="Leave start_from out, or choose one of them")  # fmt: skip
        refused = {
            "learning_rate_scale": self.learning_rate_scale != 1.0 and not _parameter(estimator, _RATES),
            "add": self.add is not None and not _parameter(estimator, _COUNTS),
            "layers": self.layers is not None and "layers" not in estimator.defaults,
        }
        if absent := [name for name, wrong in refused.items() if wrong]:
            raise DefinitionError("options of a warm start must be those of the estimator", where="Recipe, start_from",
                                  got={"estimator": estimator.name, "options": absent},
                                  remedy="Leave them out")  # fmt: skip

    def settings(self, estimator: Estimator, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters to go on with: the learning rate scaled, and as many iterations as are to be added."""
        if estimator.aliases:
            signs = {name: value for name, value in params.items() if name == "monotone"}
            native = {name: value for name, value in params.items() if name != "monotone"}
            params = {**main_names(native, estimator.defaults, where="Recipe, params", error=DefinitionError), **signs}
        changed = {**estimator.defaults, **params}
        if rate := _parameter(estimator, _RATES):
            changed[rate] *= self.learning_rate_scale
        if self.add is not None:
            changed[_parameter(estimator, _COUNTS)] = self.add
        return changed


def _parameter(estimator: Estimator, names: tuple[str, ...]) -> str:
    return next((name for name in names if name in estimator.defaults), "")
