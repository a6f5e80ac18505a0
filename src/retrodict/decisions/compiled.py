"""The policy, compiled once per revision: from values and a score to a decision, its rule and its words. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import Formatter
from typing import Any

from retrodict.core.errors import DefinitionError, check_known, near
from retrodict.core.expressions import parse
from retrodict.decisions.definitions import Policy, Session
from retrodict.features.plan import FeatureSet
from retrodict.models.artifact import ModelArtifact
from retrodict.models.explain import ExplainsRows, Explanation, explain_row

__all__ = ["CompiledPolicy", "PolicyDecision", "check_clear"]


_NOT_SAID = "{feature} {direction} the score"


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """A decision, empty where none is to be made; ``rule`` and ``reason`` are None where the score decided."""

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
    outputs : sequence of str, default ("score",)
        What the model gives.

    Raises
    ------
    DefinitionError
        If a rule reads a name that does not exist or that two features share, or a decision's condition reads what is
        no output of the model.
    """

    def __init__(
        self, policy: Policy, features: Iterable[str], others: Iterable[str], outputs: Sequence[str] = ("score",)
    ) -> None:
        self.policy = policy
        self._outputs = frozenset(outputs)
        features, others = list(features), list(others)
        session = () if policy.session is None else policy.session.values
        if policy.session is not None:
            _check_session(policy, policy.session, features, others, outputs)
        names = _resolve(features, [*others, *session], outputs)
        for decision, condition in policy.thresholds.items():
            for name in condition.columns:
                where = f"policy {policy.name}, decide {decision!r}"
                output_rule = "a decision's condition must read outputs of the model and nothing else"
                check_known(name, outputs, output_rule, where=where, what="output", error=DefinitionError)
        self._words = {**dict.fromkeys(policy.personal, _NOT_SAID), **policy.reasons}
        _check_personal(policy, features, others)
        self._rules = []
        for rule in policy.rules:
            expression = parse(rule.when, where=f"rule {rule.name}")
            self._rules.append((rule, expression.to_row(), _sources(expression.columns, names, rule.name)))
        self._steps = [(decision, condition.to_row()) for decision, condition in policy.thresholds.items()]

    @property
    def reads(self) -> frozenset[str]:
        """Full names of what its rules read, outputs of the model among them."""
        return frozenset(source for _, _, sources in self._rules for _, source in sources)

    def by_rules(self, values: Mapping[str, Any], outputs: Mapping[str, float]) -> PolicyDecision | None:
        """First rule that fires, None if none does; a rule on an unknown value does not fire.

        ``outputs`` is empty where no model scored.
        """
        output_names = self._outputs
        for rule, fires, sources in self._rules:
            row = {name: (outputs if source in output_names else values).get(source) for name, source in sources}
            if fires(row) is True:
                return PolicyDecision(rule.then, rule.name, rule.reason)
        return None

    def decide(self, values: Mapping[str, Any], outputs: Mapping[str, float]) -> PolicyDecision:
        """Rules first, then the thresholds."""
        fired = self.by_rules(values, outputs)
        return fired if fired is not None else PolicyDecision(self.by_outputs(outputs))

    def by_outputs(self, outputs: Mapping[str, float]) -> str:
        """Decision of the thresholds alone."""
        for decision, holds in self._steps:
            if holds(outputs) is True:
                return decision
        return self.policy.otherwise

    def explain(self, model: ModelArtifact, values: Mapping[str, Any]) -> Explanation:
        """Reasons in the policy's words; of several horizons those of the first one that it decides on."""
        first = next((name for condition in self.policy.thresholds.values() for name in condition.columns), None)
        explain = model.explain_row if isinstance(model, ExplainsRows) else partial(explain_row, model)
        return explain(values, top=4, words=self._words, output=first)


def check_clear(policy: Policy, features: Iterable[str], outputs: Sequence[str]) -> None:
    """Refuse rules over a name that an output and a feature share: they would read the output.

    A decision's own condition reads outputs only, so nothing can be meant otherwise there.

    Raises
    ------
    DefinitionError
    """
    for rule in policy.rules:
        columns, place = parse(rule.when).columns, f"rule {rule.name}"
        for feature in features:
            for name in {feature, feature.partition("__")[2]} & {*columns} & {*outputs}:
                raise DefinitionError(
                    "a name must mean an output of the model or a feature, not both",
                    where=f"policy {policy.name}, {place}", got=name,
                    remedy=f"Rename the feature {feature!r}, as by a @derived function that gives it another name",
                )  # fmt: skip


def _check_session(
    policy: Policy, session: Session, features: Iterable[str], others: Sequence[str], outputs: Iterable[str]
) -> None:
    """Refuse a session by what requests do not bring, and names that something else has."""
    where = f"policy {policy.name}, session"
    for name in session.by:
        check_known(name, others, "a session must be by entities or values of the context", where=where, what="name",
                    error=DefinitionError)  # fmt: skip
    names = {*others, *outputs, *features, *(name.partition("__")[2] for name in features)}
    if double := sorted(names.intersection(session.values)):
        raise DefinitionError("values of a session must have names that no feature and no value of a request has",
                              where=where, got=double, remedy="Rename the other")  # fmt: skip


def _check_personal(policy: Policy, features: Collection[str], others: Collection[str]) -> None:
    """Refuse to hide what decisions are found by, what is not there, and words that would say it."""
    keys = FeatureSet(policy.model.features).request_keys
    names = [*features, *(name for name in others if name not in keys)]
    for name in policy.personal:
        check_known(name, names, "what is personal must be a feature or a value of the context, and no key",
                    where=f"policy {policy.name}, personal", what="name", error=DefinitionError)  # fmt: skip
    for feature, template in policy.reasons.items():
        fields = {field for _, field, _, _ in Formatter().parse(template)}
        values = ["value"] if feature in policy.personal else []
        hits = [name for name in [*policy.personal, *values] if name in fields]
        if hits:
            raise DefinitionError(
                "words must not say what is personal", where=f"policy {policy.name}, reasons for {feature!r}", got=hits,
                remedy="Reasons are recorded: write them without these values",
            )  # fmt: skip


def _resolve(features: list[str], others: list[str], outputs: Sequence[str]) -> dict[str, list[str]]:
    """Name as a rule may write it to the full names it can mean."""
    names: dict[str, list[str]] = {name: [name] for name in outputs}
    for other in others:
        names.setdefault(other, [other])
    for full in features:
        names.setdefault(full, [full])
    for full in features:
        name = full.partition("__")[2] or full
        for short in {name, name.removeprefix("latest_")}:
            meanings = names.setdefault(short, [])
            if full not in meanings and short not in others and short not in outputs:
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
