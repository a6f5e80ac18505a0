"""Parameters of LightGBM under their main names, checked without loading it: definitions are read by every command.

The names are those of LightGBM's own list (``LGBM_DumpParamAliases``), kept beside this module; a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from retrodict.core.errors import RetrodictError, check_known

# Parameters on which reproduction and serving rest. num_threads is not here: it does not change them.
FIXED: Mapping[str, Any] = {
    "objective": "binary",
    "metric": "None",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}

# Of LightGBM's own early stopping, which is not used: see engines.trees.
_UNUSED = ("early_stopping_min_delta", "first_metric_only")


@cache
def _main_name_by_spelling() -> Mapping[str, str]:
    text = (files("retrodict.models") / "lightgbm_parameters.json").read_text(encoding="utf-8")
    return {spelling: name for name, aliases in json.loads(text).items() for spelling in (name, *aliases)}


def main_names(
    params: Mapping[str, Any], defaults: Mapping[str, Any], *, where: str, error: type[RetrodictError]
) -> dict[str, Any]:
    """Parameters under LightGBM's main names, so that an alias cannot stand beside what it means.

    Parameters
    ----------
    params : mapping
        Under any name that LightGBM knows.
    defaults : mapping
        What holds for a parameter that is absent.
    where : str
        For the message of an error.
    error : type
        What to raise if a parameter is unknown, given twice, or must not be set.
    """
    main = _main_name_by_spelling()
    settings: dict[str, Any] = {}
    for spelling, value in params.items():
        rule = "a parameter must be one that LightGBM has"
        name = main[check_known(spelling, main, rule, where=where, what="parameter", error=error)]
        if name in FIXED or name.endswith("seed") or name == "force_col_wise":
            raise error("a parameter must not be one that reproduction or serving rests on", where=where,
                        got=spelling, remedy="Leave it out; the seed is an argument of its own")  # fmt: skip
        if name in _UNUSED:
            raise error("a parameter must be one that training uses", where=where, got=spelling,
                        remedy="Leave it out, or set early_stopping_round")  # fmt: skip
        if name in settings:
            raise error("a parameter must be given once", where=where, got=spelling, remedy=f"Keep {name!r}")
        settings[name] = value
    _check_boosting({**defaults, **settings}, where, error)
    return settings


def _check_boosting(settings: Mapping[str, Any], where: str, error: type[RetrodictError]) -> None:
    """Refuse what cannot be explained, or not be cut at its best iteration."""
    if str(settings.get("linear_tree", False)).lower() not in ("false", "0"):
        raise error("leaves must be numbers: LightGBM's contributions of linear leaves do not add up to the score",
                    where=where, got={"linear_tree": settings["linear_tree"]},
                    remedy="Leave linear_tree out, or use the estimator 'logistic'")  # fmt: skip
    if settings.get("boosting") == "dart" and settings["early_stopping_round"] > 0:
        raise error("dart must grow all its trees: later ones change the weights of those before the best iteration",
                    where=where, got={"early_stopping_round": settings["early_stopping_round"]},
                    remedy="Set early_stopping_round to 0 and num_iterations to what is to be grown")  # fmt: skip
