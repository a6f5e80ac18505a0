"""The second fit of a recipe, on training and validation rows together, once the first has said how long to go on.

What stops early needs rows to stop by, and calibration rows that were not fitted on: the first fit leaves them out.
With the iterations known, they teach as well: a model of few rows learns from a third more. The calibration of the
first fit is kept: the second one learned from more rows, so that its scores are hardly too bold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from retrodict.core.errors import DefinitionError
from retrodict.learning.fit import TrainingRows, fit_recipe
from retrodict.models._lightgbm import main_names
from retrodict.models.definitions import Recipe
from retrodict.models.ensembles import Bagging, Ensemble
from retrodict.models.problem import Examples, Fitted, Problem

__all__ = ["AGAIN", "fit_again", "settle_rounds"]

# What it takes of the first fit, about: more rows, fewer iterations than those that were needed to see the end.
AGAIN = 1.4


def fit_again(recipe: Recipe, fitted: Fitted[Any], problem: Problem, more: Examples, rows: TrainingRows) -> Fitted[Any]:
    """Fit on more rows what was fitted on the training rows of a problem, with as many iterations as were best.

    Parameters
    ----------
    recipe : Recipe
    fitted : Fitted
        Of the first fit.
    problem : Problem
    more : Examples
        Rows to train and to validate on, together.
    rows : TrainingRows
        Of them.
    """
    settled = settle_rounds(recipe, fitted.params)
    second = fit_recipe(settled, replace(problem, train=more, validate=None), rows, lambda *_: None)
    return Fitted(second.engine, {**second.params, "refit": len(more.labels)}, fitted.history, second.notes)


def settle_rounds(recipe: Recipe, params: Mapping[str, Any]) -> Recipe:
    """The recipe with as many iterations as the parameters of its fit say were best, and nothing to stop it early."""
    if isinstance(recipe.estimator, Ensemble):
        of_members: Mapping[str, Mapping[str, Any]] = params.get("members", {})
        entries = recipe.estimator.named_members()
        if isinstance(recipe.estimator, Bagging):  # its fits differ by the rows drawn: the last one speaks for all
            entries = list(zip(of_members, recipe.estimator.members, strict=True))
        members = [_settle_member(member, recipe, of_members[name]) for name, member in entries]
        return replace(recipe, estimator=replace(recipe.estimator, members=members))
    best = params.get("best_iteration")
    if not recipe.registered.rounds or best is None:
        return recipe
    several = [value for value in best.values() if value] if isinstance(best, Mapping) else [best]
    limit, patience = recipe.registered.rounds
    native = dict(recipe.params)
    if recipe.registered.aliases:  # one spelling, not two
        signs = {name: native.pop(name) for name in ("monotone",) if name in native}
        native = main_names(native, recipe.registered.defaults, where="Recipe", error=DefinitionError) | signs
    return replace(recipe, params={**native, limit: max(round(fmean(several)), 1), patience: 0})


def _settle_member(member: Any, recipe: Recipe, params: Mapping[str, Any]) -> Any:
    """A member with its rounds settled; one that has none stays as it is."""
    if isinstance(member, Recipe):
        return settle_rounds(member, params)
    if isinstance(member, Ensemble):
        return settle_rounds(Recipe(member, seed=recipe.seed), params).estimator
    alone = Recipe(member, balance=recipe.balance, baseline_group=recipe.baseline_group, seed=recipe.seed)
    settled = settle_rounds(alone, params)
    return member if settled is alone else settled
