"""What a definitions module says about experiments: the variants, who gets one, and the metrics that will judge them.

A metric is an expression over one decision as it is known later: what the request and the record say, and ``label``,
what became of it by the label or outcome of the policy's model, with that label's maturation. So an experiment counts
what monitoring counts, and brings no second notion of an outcome.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from retrodict.core.definition import Definition
from retrodict.core.durations import check_lengths, parse_duration
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import compared_texts, parse
from retrodict.core.names import NameUse
from retrodict.decisions.definitions import Policy
from retrodict.features.plan import FeatureSet
from retrodict.rollout.definitions import names_used

if TYPE_CHECKING:
    from retrodict.rollout.statistics import Allowed

__all__ = ["OF_RECORDS", "Experiment", "Metric", "UnitMetric"]

OF_RECORDS = ("decision", "score", "label", "fallback", "micros")
"""Names that a metric reads beside those of requests and features; ``micros`` is what the decision took."""


@dataclass(frozen=True)
class UnitMetric:
    """A number per unit of an experiment, written ``Metric.rate``, ``Metric.mean`` or ``Metric.ratio``.

    Parameters
    ----------
    kind : {"rate", "mean", "ratio"}
    name : str
    of : str
        Expression over a decision: ``"label = 1"`` (what became of it), ``"fallback is not null"``, ``"micros / 1000"``
        and names of the request and of features. Where it is null the decision does not count.
    per : str, optional
        Of a ratio: what the sum is divided by.
    within : duration, optional
        Only decisions so soon after the unit's first one count. None: all of them.
    better : {"higher", "lower"}, default "higher"
    max_rise, max_fall : float, optional
        Of a guardrail: the difference to control that is still no failure.

    Notes
    -----
    The value of a variant is the sum over its decisions by their count, or by the sum of ``per``. Its variance is by
    unit, so several decisions of one unit are not taken as independent.

    Examples
    --------
    >>> UnitMetric.rate("paid", "label = 1").kind
    'rate'
    """

    kind: Literal["rate", "mean", "ratio"]
    name: str
    of: str
    per: str | None = None
    within: str | None = None
    better: Literal["higher", "lower"] = "higher"
    max_rise: float | None = None
    max_fall: float | None = None

    def __post_init__(self) -> None:
        where = f"metric {self.name}"
        check_known(self.better, ("higher", "lower"), "better must be higher or lower", where=where, what="direction",
                    error=DefinitionError)  # fmt: skip
        for text in filter(None, (self.of, self.per)):
            kind, needs = parse(text, where=where).kind, "bool" if self.kind == "rate" else "number"
            if kind not in (None, needs):
                raise DefinitionError(f"the expression of a {self.kind} must be of kind {needs}", where=where, got=text,
                                      remedy="Write a condition for a rate, a number for a mean")  # fmt: skip
        if (self.kind == "ratio") != (self.per is not None):
            raise DefinitionError("a ratio, and nothing else, must have 'per'", where=where, got=self.per,
                                  remedy="Write Metric.ratio('clicks', 'clicks', per='views')")  # fmt: skip
        if self.within is not None:
            parse_duration(self.within, where=f"{where}, within")
        for limit in (self.max_rise, self.max_fall):
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise DefinitionError("a margin must be a number of 0 or more", where=where, got=limit,
                                      remedy="Write max_rise=0.01")  # fmt: skip

    @classmethod
    def rate(cls, name: str, of: str, **more: Any) -> UnitMetric:
        """Share of decisions of which a condition is true."""
        return cls("rate", name, of, **more)

    @classmethod
    def mean(cls, name: str, of: str, **more: Any) -> UnitMetric:
        """Mean of a number over decisions."""
        return cls("mean", name, of, **more)

    @classmethod
    def ratio(cls, name: str, of: str, *, per: str, **more: Any) -> UnitMetric:
        """Sum of one number by the sum of another."""
        return cls("ratio", name, of, per, **more)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that it reads."""
        texts = (self.of, self.per) if self.per is not None else (self.of,)
        return tuple(dict.fromkeys(name for text in texts for name in parse(text).columns))

    @property
    def allowed(self) -> Allowed:
        """Differences to control that are no failure: by its margins, or by its direction alone."""
        from retrodict.rollout.statistics import Allowed  # which loads NumPy

        if self.max_rise is None and self.max_fall is None:
            return Allowed(at_least=0.0) if self.better == "higher" else Allowed(at_most=0.0)
        return Allowed(-math.inf if self.max_fall is None else -self.max_fall,
                       math.inf if self.max_rise is None else self.max_rise)  # fmt: skip


Metric = UnitMetric
"""The name that definitions use."""


@dataclass(frozen=True)
class Experiment(Definition):
    """A comparison of variants on the units that a policy decides on.

    The variant of a unit is in every answer and record (``variants``); what it changes is the caller's business, or the
    policy's where both variants decide alike.

    Parameters
    ----------
    name : str
    policy : Policy
    variants : mapping of str to number
        Variant to weight; the weights must add up to 1 or to 100.
    unit : str or list of str
        Entity columns or context values that name who is assigned; a request without one has no variant.
    primary : UnitMetric
        What decides.
    guardrails : list of UnitMetric, optional
        With ``max_rise`` or ``max_fall``: one that is shown to be exceeded asks for a stop.
    secondary : list of UnitMetric, optional
        Looked at too, corrected for their number.
    segments : list of str, optional
        Values of requests by which the primary metric is broken down, as the unit's first decision has them.
    strata : list of str, optional
        Such values, known before the treatment, within whose combinations arms are compared (post-stratification).
    control : str, optional
        Default: the variant of that name, or else the first one.
    mde : float
        Difference of the primary metric that must be seen.
    power, alpha : float, default 0.8, 0.05
        Chance to see it; two-sided chance to see one where there is none, over all variants.
    analysis : {"sequential", "fixed", "obrien-fleming", "pocock"}, default "sequential"
        Sequential may be looked at, and ends, at any time. Fixed gives a verdict once it has the planned units. The
        others give one at a few planned looks: O'Brien and Fleming's is hard to cross at first, Pocock's alike always.
    looks : int, default 5
        How many looks those have.
    layer : str, optional
        Experiments of one layer never share a unit; each has a slot of it.
    slot : (float, float), default (0, 1)
        Part of the layer's units.
    where : str, optional
        Condition over the request for a unit to take part.
    pre_period : duration, optional
        Time before the start whose decisions foretell a unit's metric (CUPED).
    bandit : duration, optional
        How often ``retrodict rollout run`` gives each variant the weight of its chance to be the best (Thompson).
    floor : float, default 0.05
        Least weight of a variant of a bandit.
    same : bool, default False
        An A/A test: the variants are alike, and a difference is a fault of the machinery.

    Examples
    --------
    >>> tone = Experiment("tone", remind, {"control": 50, "soft": 50}, unit="customer", mde=0.02,
    ...                   primary=Metric.rate("paid", "label = 1"))  # doctest: +SKIP
    """

    kind: ClassVar[str] = "experiment"

    policy: Policy = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required in practice
    variants: Mapping[str, float] = field(default_factory=dict)
    unit: str | tuple[str, ...] | list[str] = ()
    primary: UnitMetric = None  # type: ignore[assignment]
    guardrails: tuple[UnitMetric, ...] | list[UnitMetric] = ()
    secondary: tuple[UnitMetric, ...] | list[UnitMetric] = ()
    segments: tuple[str, ...] | list[str] = ()
    strata: tuple[str, ...] | list[str] = field(default=(), metadata={"identity": False})  # in it where there are any
    control: str | None = None
    mde: float = 0.0
    power: float = 0.8
    alpha: float = 0.05
    analysis: Literal["sequential", "fixed", "obrien-fleming", "pocock"] = "sequential"
    looks: int = 5
    layer: str | None = None
    slot: tuple[float, float] = (0.0, 1.0)
    where: str | None = None
    pre_period: str | None = None
    same: bool = False
    bandit: str | None = field(default=None, metadata={"identity": False})  # in the identity where there is one
    floor: float = field(default=0.05, metadata={"identity": False})
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        super().__post_init__()
        where = f"experiment {self.name}"
        object.__setattr__(self, "unit", (self.unit,) if isinstance(self.unit, str) else tuple(self.unit))
        for name in ("guardrails", "secondary", "segments", "strata", "slot"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.policy, Policy):
            raise DefinitionError("an experiment must be of a policy", where=where, got=type(self.policy).__name__,
                                  remedy="Pass the Policy object")  # fmt: skip
        if not isinstance(self.primary, UnitMetric):
            raise DefinitionError("an experiment must have a primary metric", where=where, got=self.primary,
                                  remedy="Write primary=Metric.rate('paid', 'label = 1')")  # fmt: skip
        self._check_variants(where)
        self._check_numbers(where)
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise DefinitionError("the metrics of an experiment must have different names", where=where, got=names,
                                  remedy="Rename one")  # fmt: skip
        for metric in self.guardrails:
            if metric.max_rise is None and metric.max_fall is None:
                raise DefinitionError("a guardrail must have max_rise or max_fall", where=f"{where}, {metric.name}",
                                      got=None, remedy="Write max_rise=0.01")  # fmt: skip
        if self.where is not None:
            parse(self.where, where=f"{where}, where")
        for name in ("pre_period", "bandit"):
            if getattr(self, name) is not None:
                parse_duration(getattr(self, name), where=f"{where}, {name}")
        if self.bandit is not None and (self.analysis != "sequential" or not 0 < self.floor <= 1 / len(self.variants)):
            raise DefinitionError("a bandit must be sequential, with a floor above 0 that all variants can have",
                                  where=where, got=(self.analysis, self.floor), remedy="Write floor=0.05")  # fmt: skip

    def _check_variants(self, where: str) -> None:
        object.__setattr__(self, "variants", shares_of(self.variants, where))
        control = self.control or ("control" if "control" in self.variants else next(iter(self.variants)))
        check_known(control, self.variants, "control must be a variant", where=where, what="variant",
                    error=DefinitionError)  # fmt: skip
        object.__setattr__(self, "control", control)

    def _check_numbers(self, where: str) -> None:
        if not self.unit:
            raise DefinitionError("an experiment must say what its unit is", where=where, got=self.unit,
                                  remedy="Write unit='customer'")  # fmt: skip
        check_known(self.analysis, ("sequential", "fixed", "obrien-fleming", "pocock"),
                    "an analysis must be sequential or fixed, or have planned looks", where=where, what="analysis",
                    error=DefinitionError)  # fmt: skip
        if self.looks not in range(2, 21):
            raise DefinitionError("looks must be a whole number from 2 to 20", where=where, got=self.looks,
                                  remedy="Write looks=5")  # fmt: skip
        if not self.mde > 0 or not 0 < self.power < 1 or not 0 < self.alpha < 0.5:
            raise DefinitionError("mde must be above 0, power between 0 and 1, alpha between 0 and 0.5", where=where,
                                  got=(self.mde, self.power, self.alpha), remedy="Write mde=0.02")  # fmt: skip
        if not 0 <= self.slot[0] < self.slot[1] <= 1:
            raise DefinitionError("a slot must be two numbers from 0 to 1, the lower one first", where=where,
                                  got=self.slot, remedy="Write slot=(0, 0.5)")  # fmt: skip
        if self.layer is None and self.slot != (0.0, 1.0):
            raise DefinitionError("a slot must be of a layer", where=where, got=self.slot,
                                  remedy="Write layer='letters'")  # fmt: skip

    def check(self) -> None:
        """Refuse a span of no time, in which nothing counts."""
        spans = {f"metric {one.name}, within": one.within for one in self.metrics}
        check_lengths({**spans, "pre_period": self.pre_period, "bandit": self.bandit}, where=f"experiment {self.name}")

    def agreement(self) -> tuple[str, object] | None:
        """Its layer, which keeps people apart by one unit."""
        return None if self.layer is None else (f"layer {self.layer}: the unit", tuple(self.unit))

    def uses(self) -> Iterator[NameUse]:
        """Parts of the unit that its policy's requests must have, and decisions that metrics count."""
        yield from names_used(self.policy, (), self.unit, f"experiment {self.name}", self.where)
        for metric in self.metrics:
            for text in filter(None, (metric.of, metric.per)):
                where = f"experiment {self.name}, metric {metric.name}"
                for name in compared_texts(parse(text, where=where), "decision"):
                    yield NameUse("decision", name, "a metric must count decisions of the policy", where,
                                  names=list(self.policy.decide))  # fmt: skip
        rule = "a metric, segment or stratum must read what decisions have, by a name that is not nearly another's"
        for name in self.names_read:  # requests may bring more than the policy reads
            if "__" in name or get_close_matches(name, self.value_names, n=1, cutoff=0.8) not in ([], [name]):
                yield NameUse("value of decisions", name, rule, f"experiment {self.name}", names=self.value_names)

    @property
    def value_names(self) -> list[str]:
        """What every decision of the policy has."""
        features = FeatureSet(self.policy.model.features)
        return [*OF_RECORDS, *features.request_keys, *features.request_columns, *features.columns]

    @property
    def names_read(self) -> list[str]:
        """What metrics, segments and strata read."""
        return sorted({*self.segments, *self.strata, *(name for metric in self.metrics for name in metric.columns)})

    def __identity__(self) -> dict[str, Any]:
        """Of the policy only its name: what decides may change while an experiment runs, who gets what may not."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.metadata.get("identity", True)
                  and (one.name != "looks" or self.analysis not in ("sequential", "fixed"))}  # fmt: skip
        bandit = {} if self.bandit is None else {"bandit": self.bandit, "floor": self.floor}
        strata = {"strata": self.strata} if self.strata else {}
        return {"kind": "Experiment", **values, **bandit, **strata, "policy": self.policy.name}

    def weights(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Other weights of the same variants, in the order of the definition; they add up to 1."""
        where = f"experiment {self.name}"
        if set(weights) != set(self.variants):
            raise DefinitionError("weights must be of the variants, all of them", where=where, got=sorted(weights),
                                  remedy=f"Name {', '.join(self.variants)}")  # fmt: skip
        return shares_of({name: weights[name] for name in self.variants}, where)

    def looks_at(self, units: int) -> list[int]:
        """Units, of the planned ones, at which a look is due; none where all looks count."""
        looks = {"sequential": 0, "fixed": 1}.get(self.analysis, self.looks)
        return [-(-units * look // looks) for look in range(1, looks + 1)]

    @property
    def metrics(self) -> Sequence[UnitMetric]:
        """All of them, the primary one first."""
        return [self.primary, *self.guardrails, *self.secondary]

    @property
    def treatments(self) -> list[str]:
        """Variants but control."""
        return [name for name in self.variants if name != self.control]


def shares_of(weights: Mapping[str, Any], where: str) -> dict[str, float]:
    """Weights that add up to 1, of weights that add up to 1 or 100."""
    numbers = [weight if isinstance(weight, int | float) else math.nan for weight in weights.values()]
    total = sum(numbers)
    sums = any(math.isclose(total, sum_of_all, rel_tol=1e-9) for sum_of_all in (1, 100))
    if len(numbers) < 2 or not sums or min(numbers) <= 0:
        raise DefinitionError("two variants or more must have weights above 0 that add up to 1 or 100", where=where,
                              got=dict(weights), remedy="Correct the weights")  # fmt: skip
    return {str(name): weight / total for name, weight in weights.items()}
