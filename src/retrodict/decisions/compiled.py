"""The policy, compiled once per revision: from values and a score to a decision, its rule and its words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from retrodict.core.errors import DefinitionError, near
from retrodict.core.expressions import parse
from retrodict.decisions.definitions import Policy

__all__ = ["CompiledPolicy", "PolicyDecision"]


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """A decision; ``rule`` and ``reason`` are None where the score decided."""

    decision: str
    rule: str | None = None
    reason: str | None = None


class CompiledPolicy:
    """A policy over a known set of names.

    Parameters
    ----------
    policy : Policy
    features : iterable of str
        Full feature names (``view__feature``). A rule may also use a feature's own name, or what ``latest`` was asked
        for, where only one feature has it.
    others : iterable of str
        Names of entities and context values.

    Raises
    ------
    DefinitionError
        If a rule reads a name that does not exist or that two features share.
    """

    def __init__(self, policy: Policy, features: Iterable[str], others: Iterable[str]) -> None:
        self.policy = policy
        names = _resolve(list(features), list(others))
        self._rules = []
        for rule in policy.rules:
            expression = parse(rule.when, where=f"rule {rule.name}")
            self._rules.append((rule, expression.to_row(), _sources(expression.columns, names, rule.name)))
        self._steps = [(decision, condition.to_row()) for decision, condition in policy.thresholds.items()]

    def by_rules(self, values: Mapping[str, Any], score: float | None) -> PolicyDecision | None:
        """First rule that fires, None if none does; a rule on an unknown value does not fire."""
        for rule, fires, sources in self._rules:
            row = {name: score if source == "score" else values.get(source) for name, source in sources}
            if fires(row) is True:
                return PolicyDecision(rule.then, rule.name, rule.reason)
        return None

    def decide(self, values: Mapping[str, Any], score: float) -> PolicyDecision:
        """Rules first, then the thresholds."""
        fired = self.by_rules(values, score)
        return fired if fired is not None else PolicyDecision(self.by_score(score))

    def by_score(self, score: float) -> str:
        """Decision of the thresholds alone."""
        row = {"score": score}
        for decision, holds in self._steps:
            if holds(row) is True:
                return decision
        return list(self.policy.decide)[-1]


def _resolve(features: list[str], others: list[str]) -> dict[str, list[str]]:
    """Name as a rule may write it to the full names it can mean."""
    names: dict[str, list[str]] = {"score": ["score"]}
    for other in others:
        names[other] = [other]
    for full in features:
        names[full] = [full]
    for full in features:
        name = full.partition("__")[2] or full
        for short in {name, name.removeprefix("latest_")}:
            meanings = names.setdefault(short, [])
            if full not in meanings and short not in others:
                meanings.append(full)
    return names


def _sources(columns: Iterable[str], names: Mapping[str, list[str]], rule: str) -> list[tuple[str, str]]:
    sources = []
    for column in columns:
        meanings = names.get(column, [])
        if not meanings:
            raise DefinitionError(
                "a rule must read names that exist",
                where=f"rule {rule}",
                got=column,
                remedy=near(column, names, what="name"),
            )
        if len(meanings) > 1:
            raise DefinitionError(
                "a name in a rule must mean one value",
                where=f"rule {rule}",
                got=column,
                remedy="Write one of " + ", ".join(map(repr, meanings)),
            )
        sources.append((column, meanings[0]))
    return sources
