"""What a definitions module says about deciding: thresholds, rules, fallbacks, deadline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from retrodict.core.definition import Definition, check_name
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, check_known, check_text, near
from retrodict.core.expressions import Expression, can_hold, parse
from retrodict.features.definitions import FeatureView
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.models.words import check_words

if TYPE_CHECKING:
    from retrodict.workspace import Definitions

__all__ = ["Policy", "Rule", "Session", "find_policy"]

EXPLAIN = ("asked", "always", "never")
OTHERWISE, NEVER = "otherwise", "never"
_MOST_KEPT = 100
_SAMPLE = re.compile(r"sample ([0-9]{1,3}(?:\.[0-9]{1,6})?)%", re.ASCII)
_OUTPUT = re.compile(r"score|threshold|value|low|high|q\d+(_\d+)?|(?:p|set|event_by)\[\".+\"\]")


def _span(output: str, model: Model) -> tuple[float, float] | None:
    """Between what an output lies; None where it may be anything, as the score of a ranking."""
    ranks = model.known_target is not None and model.known_target.task == "ranking"
    return (0.0, 1.0) if (output == "score" and not ranks) or output.startswith(("p[", "set[", "event_by[")) else None


@dataclass(frozen=True)
class Rule:
    """A condition that decides by itself, whatever the score.

    Parameters
    ----------
    name : str
    when : str
        Expression over features (by ``view__feature`` or by the feature's own name where it is unambiguous), the
        request's context and ``score``. Unknown (a needed value is null) does not fire.
    then : str
        The decision.
    reason : str
        In words, for the answer and the record.
    """

    name: str
    when: str
    then: str
    reason: str

    def __post_init__(self) -> None:
        """Parse the condition."""
        check_name(self.name, what="rule")
        parse(self.when, where=f"rule {self.name}, when")


@dataclass(frozen=True)
class Session:
    """What rules may know of the decisions that one caller got lately.

    ``session_count`` is how many there were before this one, ``session_last`` the newest of them (null at first), and
    ``session_age_s`` the seconds since the first. All are null where a part of the unit is, or the store is away.

    Parameters
    ----------
    by : str or list of str
        Entities or values of the context whose values together name the unit that a session is of.
    ttl : duration, default "30m"
        How long it lives on without a decision.
    last : int, default 5
        How many of the last decisions are kept, 0 to 100; with 0 there is no ``session_last``.

    Examples
    --------
    >>> Session("customer", ttl="1h").values
    ('session_count', 'session_last', 'session_age_s')
    """

    by: str | tuple[str, ...] | list[str]
    ttl: str = "30m"
    last: int = 5

    def __post_init__(self) -> None:
        """Check the parts."""
        by: object = (self.by,) if isinstance(self.by, str) else tuple(self.by)
        object.__setattr__(self, "by", by)
        if not self.by or len({*self.by}) < len(self.by) or not all(isinstance(name, str) for name in self.by):
            raise DefinitionError("a session must be by one or several names, each once", where="session, by",
                                  got=self.by, remedy="Write Session('customer')")  # fmt: skip
        if parse_duration(self.ttl, where="session, ttl") == 0:
            raise DefinitionError("a session must live on for a while", where="session, ttl", got=self.ttl,
                                  remedy="Write '30m'")  # fmt: skip
        if type(self.last) is not int or not 0 <= self.last <= _MOST_KEPT:
            raise DefinitionError(f"0 to {_MOST_KEPT} of the last decisions must be kept", where="session, last",
                                  got=self.last, remedy="Leave it out for 5")  # fmt: skip

    @property
    def values(self) -> tuple[str, ...]:
        """Names that rules may read."""
        return ("session_count", *(["session_last"] if self.last else []), "session_age_s")


@dataclass(frozen=True)
class Policy(Definition):
    """How a score becomes a decision, and what answers when something fails.

    Parameters
    ----------
    name : str
    model : Model
        The model that scores.
    decide : mapping of str to str, optional
        Without it the model is served as it is: what it gives is the answer, and where it gives nothing there is none.
        Decision to condition over the model's outputs, in order; the first true one decides, the last one is
        ``"otherwise"``. Outputs are ``score`` of a yes or no, ``p["late"]`` per class, ``value`` of a number, ``q90``
        per quantile, ``event_by["30d"]`` per horizon, ``low`` and ``high`` of an interval.
        ``"never"`` stands for a decision that only rules and fallbacks make.
    rules : list of Rule, optional
        Looked at first, in order; the first that fires decides.
    fallback : list of str, optional
        Tried in order when a stage fails or the deadline has passed: ``"previous_version"`` (the model that decided
        before), ``"rules"`` (the rules without a score), or a decision's name. If none answers, the last decision does.
    deadline : duration, default "100ms"
        Counts from the arrival of a request; looked at before features are read and before the model scores.
    require : mapping of str to str, optional
        View to how current its online state must be: ``{"habits": "fresh 1h"}`` lets a score decide only while the
        newest event in the state of ``habits`` became visible within the hour before the decision, and the state
        has all of its table. Otherwise the fallback answers. Not for views of facts without a time.
    cache : duration, optional
        How long the score of a row may stand for the same row again; None: the model scores each. Rules, freshness and
        reasons are of each request. For models that take long; needs the extra ``cache``.
    batch : duration, optional
        From 1 to 5 ms: how long a server lets single requests wait for others to be scored with them; None: not at all,
        only what comes while the engine is busy is scored together. For models that take long.
    record : str, optional
        When a server answers: None or ``"sync"``, once the record is durable. ``"async"``: at once, and says so; a
        crash may take the records of the last 50 ms, 1,000 at most. ``"sample 5%"``: that share of decisions has a
        record, and the answers of the others say that they have none; it takes no request ids.
    personal : list of str, optional
        Values of the context, and features, that the log must not have: keyed digests stand for them in every record,
        and no reason says them. What they cost a replay is said by the replay.
    explain : str or list of str, default "asked"
        Which answers have reasons: of requests that ask; ``"always"``; ``"never"``, who asks is refused; or, beside
        requests that ask, those of some decisions, as ``["decline"]``.
    session : Session, optional
        Lets rules read what the same caller was decided lately: ``Session("customer", ttl="30m")``.
    pins : bool, default False
        Callers may choose, by the header ``Retrodict-Version``, the revision in force or the one before while it is
        warm.
    costs : mapping of str to mapping of str to float, optional
        What each decision costs by what happens then, ``{"warn": {"yes": 1, "no": 5}, "ok": {"yes": 40, "no": 0}}``; of
        several classes by their names. A gain is below zero. Challengers are compared by it.
    max_disagreement : float, optional
        Largest share of decisions that a challenger may change and still be promoted.
    reasons : mapping of str to str, optional
        Feature name to words for an explanation, for instance ``"{value:.0f} min late over the last 2 h"``.

    Examples
    --------
    >>> Rule("fog", when="visib < 0.25", then="warn", reason="Visibility under a quarter mile").then
    'warn'
    """

    kind: ClassVar[str] = "policy"

    model: Model = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required in practice
    decide: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] | list[Rule] = ()
    fallback: tuple[str, ...] | list[str] = ()
    deadline: str = "100ms"
    reasons: Mapping[str, str] = field(default_factory=dict)
    require: Mapping[str, str] = field(default_factory=dict, metadata={"identity": "if set"})
    cache: str | None = field(default=None, metadata={"identity": "if set"})
    batch: str | None = field(default=None, metadata={"identity": "if set"})
    record: str | None = field(default=None, metadata={"identity": "if set"})
    personal: tuple[str, ...] | list[str] = field(default=(), metadata={"identity": "if set"})
    explain: str | tuple[str, ...] | list[str] | None = field(default=None, metadata={"identity": "if set"})
    session: Session | None = field(default=None, metadata={"identity": "if set"})
    pins: bool = field(default=False, metadata={"identity": "if set"})
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict, metadata={"identity": False})
    max_disagreement: float | None = field(default=None, metadata={"identity": False})
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check that every path through the policy ends in a decision."""
        super().__post_init__()
        where = f"policy {self.name}"
        object.__setattr__(self, "rules", tuple(self.rules))
        object.__setattr__(self, "fallback", tuple(self.fallback))
        object.__setattr__(self, "personal", tuple(self.personal))
        if not isinstance(self.model, Model):
            raise DefinitionError(
                "a policy must have a model",
                where=where,
                got=type(self.model).__name__,
                remedy="Pass a Model as second argument",
            )
        conditions = list(self.decide.values())
        if conditions and (conditions[-1] != OTHERWISE or OTHERWISE in conditions[:-1]):
            raise DefinitionError(
                "the last decision, and only it, must be for 'otherwise'",
                where=f"{where}, decide",
                got=conditions,
                remedy="Write decide={'warn': 'score >= 0.6', 'ok': 'otherwise'}",
            )
        for decision, condition in self.decide.items():
            if condition in (OTHERWISE, NEVER):
                continue
            self._check_condition(parse(condition, where=f"{where}, decide {decision!r}"), decision)
        decisions = [*self.decide]
        for rule in self.rules:
            if rule.then not in decisions:
                raise DefinitionError(
                    "a rule must end in a decision of its policy",
                    where=f"{where}, rule {rule.name}",
                    got=rule.then,
                    remedy=near(rule.then, decisions, what="decision"),
                )
        steps = [*decisions, "previous_version", *(["rules"] if decisions else [])]
        for step in self.fallback:
            if step not in steps:
                raise DefinitionError(
                    "a fallback must be 'previous_version', 'rules' or a decision",
                    where=f"{where}, fallback",
                    got=step,
                    remedy=near(step, steps, what="fallback"),
                )
        parse_duration(self.deadline, where=f"{where}, deadline")
        if self.cache is not None:
            parse_duration(self.cache, where=f"{where}, cache")
        if self.batch is not None and not 1_000 <= parse_duration(self.batch, where=f"{where}, batch") <= 5_000:
            raise DefinitionError(
                "a window for batches must be 1 to 5 ms",
                where=f"{where}, batch",
                got=self.batch,
                remedy="Leave it out: what comes while the engine is busy is scored together anyway",
            )
        object.__setattr__(self, "record", None if self.record == "sync" else self.record)
        if self.record not in (None, "async") and not 0 < self.share < 1:
            raise DefinitionError("a policy must be recorded 'sync', 'async' or as 'sample N%', N between 0 and 100",
                                  where=f"{where}, record", got=self.record, remedy="Write 'sample 5%'")  # fmt: skip
        session: object = self.session
        if session is not None and not (isinstance(session, Session) and decisions):
            raise DefinitionError("a policy must decide to have a Session", where=f"{where}, session",
                                  got=type(session).__name__ if decisions else "no decisions",
                                  remedy="Write decide={...} and session=Session('customer')")  # fmt: skip
        self._check_explained()
        self._check_required()
        self._check_compared()

    def _check_compared(self) -> None:
        """Refuse a table of costs with holes, and a limit that is no share."""
        outcomes = [sorted(map(str, costs)) for costs in self.costs.values()]
        numbers = [cost for costs in self.costs.values() for cost in costs.values()]
        complete = {*self.costs} == {*self.decide} and all(names == outcomes[0] for names in outcomes)
        if self.costs and not (complete and all(math.isfinite(n) for n in numbers)):
            raise DefinitionError(
                "costs must be a number for each decision and the same outcomes of each",
                where=f"policy {self.name}, costs", got={name: dict(costs) for name, costs in self.costs.items()},
                remedy="Write costs={'warn': {'yes': 1, 'no': 5}, 'ok': {'yes': 40, 'no': 0}}",
            )  # fmt: skip
        if self.max_disagreement is not None and not 0 < self.max_disagreement <= 1:
            raise DefinitionError("the largest disagreement must be a share above 0, 1 at most",
                                  where=f"policy {self.name}, max_disagreement", got=self.max_disagreement,
                                  remedy="Write 0.05")  # fmt: skip

    def _check_explained(self) -> None:
        rule = None if self.explain == "asked" else self.explain
        object.__setattr__(self, "explain", rule if rule is None or isinstance(rule, str) else tuple(rule))
        if isinstance(rule, str):
            check_known(rule, EXPLAIN, "reasons must be for 'asked', 'always', 'never' or a list of decisions",
                        where=f"policy {self.name}, explain", what="word", error=DefinitionError)  # fmt: skip
        for decision in () if rule is None or isinstance(rule, str) else rule:
            check_known(decision, self.decide, "what is always explained must be a decision of the policy",
                        where=f"policy {self.name}, explain", what="decision", error=DefinitionError)  # fmt: skip

    def _check_condition(self, condition: Expression, decision: str) -> None:
        """Refuse a condition over anything but outputs; which of them there are may be known only after training."""
        outputs = self.model.outputs
        unknown = [n for n in condition.columns if n not in outputs] if outputs else [
            n for n in condition.columns if not _OUTPUT.fullmatch(n)
        ]  # fmt: skip
        if unknown or not condition.columns:
            names = " and ".join(outputs) if outputs else "outputs of its model"
            raise DefinitionError(
                f"a decision's condition must read {names} and nothing else",
                where=f"policy {self.name}, decide {decision!r}",
                got=list(condition.columns),
                remedy="Put conditions on other values into a Rule",
            )

    def _check_required(self) -> None:
        where = f"policy {self.name}, require"
        views = {view.name: view for view in self.model.features if isinstance(view, FeatureView)}
        for name, rule in self.require.items():
            check_known(name, views, "a policy must require views that its model reads", where=where, what="view",
                        error=DefinitionError)  # fmt: skip
            word, _, limit = str(rule).partition(" ")
            if word != "fresh" or views[name].source.timeless:
                raise DefinitionError(
                    "a view with a clock must be required to be fresh",
                    where=where,
                    got={name: rule},
                    remedy=f"Write require={{{name!r}: 'fresh 1h'}}, and nothing for facts without a time",
                )
            parse_duration(limit, where=f"{where}, {name!r}")

    def check(self) -> None:
        """Refuse decisions that no score reaches, rules that cannot fire, names and words that nothing fills."""
        from retrodict.decisions.compiled import CompiledPolicy, check_clear

        where, earlier = f"policy {self.name}", list[Expression]()
        for decision, condition in self.thresholds.items():
            output = condition.columns[0]
            before = [other for other in earlier if other.columns == condition.columns]
            if not can_hold(
                condition, output, _span(output, self.model), unless=before if len(condition.columns) == 1 else []
            ):
                raise DefinitionError(
                    "a decision must be one that some score reaches", where=f"{where}, decide {decision!r}",
                    got=condition.text,
                    remedy=f"{output} lies between 0 and 1, and earlier decisions go first; write 'never' for a "
                    "decision that only rules and fallbacks make",
                )  # fmt: skip
            earlier.append(condition)
        for rule in self.rules:
            if not can_hold(parse(rule.when), "score", _span("score", self.model)):
                raise DefinitionError("a rule must be one that can fire", where=f"{where}, rule {rule.name}",
                                      got=rule.when, remedy="A score lies between 0 and 1")  # fmt: skip
        features = FeatureSet(self.model.features)
        if features.open:  # its names are outputs once it was trained: a deployment asks
            return
        unknown = [*features.request_keys, *features.request_columns]
        outputs = self.model.outputs or sorted({n for c in self.thresholds.values() for n in c.columns} | {"score"})
        CompiledPolicy(self, features.columns, unknown, outputs)
        check_clear(self, features.columns, outputs)
        check_words(self.reasons, features.columns, unknown, where=f"{where}, reasons")

    @cached_property
    def thresholds(self) -> dict[str, Expression]:
        """Conditions over the score by decision, in order."""
        words = (OTHERWISE, NEVER)
        return {
            decision: parse(text, where=f"policy {self.name}, decide {decision!r}")
            for decision, text in self.decide.items()
            if text not in words
        }

    @cached_property
    def share(self) -> float:
        """Share of decisions that are recorded; 0 where ``record`` is no text that says one."""
        sample = _SAMPLE.fullmatch(str(self.record))
        return float(sample[1]) / 100 if sample else float(self.record in (None, "async"))

    @property
    def otherwise(self) -> str:
        """The last decision; empty where there is none to make."""
        return ["", *self.decide][-1]

    def explains(self, decision: str) -> bool:
        """Whether answers with a decision have reasons that nobody asked for."""
        return self.explain == "always" or (isinstance(self.explain, tuple) and decision in self.explain)

    @property
    def stages(self) -> dict[str, str]:
        """What is done to each request, in this order, and how it is set; only the words are made here."""
        fresh = [f"{view} {rule}" for view, rule in self.require.items()]
        rules = [f"rule {rule.name}" for rule in self.rules]
        if self.session is not None:
            rules.insert(0, f"in the session of {' and '.join(self.session.by)}, for {self.session.ttl}")
        explain = self.explain or "asked"
        return {
            "check": "always, before anything is read",
            "features": ", ".join(fresh) or "as current as they are, which the answer says",
            "score": "each row" if self.cache is None else f"a row once in {self.cache}",
            "decide": ", ".join([*rules, *self.decide]) or "nothing: the score is the answer",
            "explain": explain if isinstance(explain, str) else f"asked, {', '.join(explain)}",
            "record": ", ".join([self.record or "sync", *(f"without {name}" for name in self.personal)]),
            "metrics": "always",
        }

    @cached_property
    def max_ages(self) -> dict[str, int]:
        """By required view, how old its newest event may be, in microseconds."""
        return {name: parse_duration(rule.partition(" ")[2]) for name, rule in self.require.items()}


def find_policy(definitions: Definitions, name: str) -> Policy:
    """Policy of a name, or the one without decisions that serves the model of that name.

    Raises
    ------
    NotFoundError
        If neither is defined; it names near ones.
    """
    by_name: dict[str, Policy | Model] = {model.name: model for model in definitions.of(Model)}
    by_name |= {policy.name: policy for policy in definitions.of(Policy)}
    check_text(name, where="name of a policy")
    rule = "the project must define this policy, or a model to be served by itself"
    one = by_name[check_known(name, by_name, rule, where="definitions", what="policy")]
    return one if isinstance(one, Policy) else Policy(name, one)
