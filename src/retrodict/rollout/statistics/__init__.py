"""Statistics of rollouts and experiments: pure functions of counts, sums and rows.

They read no workspace and no clock. Every comparison takes :class:`Sums` and a region of effects that are no failure
(:class:`Allowed`), and gives a :class:`Contrast` with verdict, interval, scale and reason:

- looked at any number of times: :func:`compare_means`, and :func:`compare_rates` for ratios of rare things, and
  :func:`bound_share` for one arm against a limit;
- looked at once: :func:`welch`, :func:`compare_shares`, :func:`stratified`; :func:`linearise` for metrics per request,
  :func:`adjust` by what was before; :func:`sample_size`, :func:`detectable_effect` to plan it;
- looked at a few planned times: :func:`boundaries`, :func:`repeated_p`, :func:`inflation`;
- on the same rows: :func:`mcnemar`, :func:`paired_bootstrap`;
- of a rule that nobody followed yet: :func:`rule_value` with :func:`cross_fit`; of bandits: :func:`thompson_weights`;
- over many at once: :func:`holm`, :func:`false_discovery`;
- whether arms have their share of units: :func:`check_balance`; and of outcomes: :func:`check_outcomes`.
"""

from retrodict.rollout.statistics.balance import SampleRatio, check_balance, check_outcomes
from retrodict.rollout.statistics.contrast import Allowed, Contrast, Sums
from retrodict.rollout.statistics.fixed import (
    adjust,
    compare_shares,
    linearise,
    pool_strata,
    stratified,
    variance_left,
    welch,
)
from retrodict.rollout.statistics.group import boundaries, inflation, repeated_p
from retrodict.rollout.statistics.multiplicity import false_discovery, holm
from retrodict.rollout.statistics.paired import mcnemar, paired_bootstrap
from retrodict.rollout.statistics.power import detectable_effect, sample_size
from retrodict.rollout.statistics.propensity import chances_of_best, cross_fit, rule_value, thompson_weights
from retrodict.rollout.statistics.sequential import bound_share, compare_means, compare_rates

__all__ = [
    "Allowed",
    "Contrast",
    "SampleRatio",
    "Sums",
    "adjust",
    "bound_share",
    "boundaries",
    "chances_of_best",
    "check_balance",
    "check_outcomes",
    "compare_means",
    "compare_rates",
    "compare_shares",
    "cross_fit",
    "detectable_effect",
    "false_discovery",
    "holm",
    "inflation",
    "linearise",
    "mcnemar",
    "paired_bootstrap",
    "pool_strata",
    "repeated_p",
    "rule_value",
    "sample_size",
    "stratified",
    "thompson_weights",
    "variance_left",
    "welch",
]
