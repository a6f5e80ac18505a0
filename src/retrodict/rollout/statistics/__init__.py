"""Statistics of rollouts and experiments: pure functions of counts, sums and rows.

They read no workspace and no clock. Every comparison takes :class:`Sums` and a region of effects that are no failure
(:class:`Allowed`), and gives a :class:`Contrast` with verdict, interval, scale and reason:

- looked at any number of times: :func:`compare_means`, and :func:`compare_rates` for ratios of rare things;
- on the same rows: :func:`mcnemar`, :func:`paired_bootstrap`;
- over many at once: :func:`holm`; whether arms have their share of units: :func:`check_balance`.
"""

from retrodict.rollout.statistics.balance import SampleRatio, check_balance
from retrodict.rollout.statistics.contrast import Allowed, Contrast, Sums
from retrodict.rollout.statistics.multiplicity import holm
from retrodict.rollout.statistics.paired import mcnemar, paired_bootstrap
from retrodict.rollout.statistics.sequential import compare_means, compare_rates

__all__ = [
    "Allowed",
    "SampleRatio",
    "Contrast",
    "Sums",
    "check_balance",
    "compare_means",
    "compare_rates",
    "holm",
    "mcnemar",
    "paired_bootstrap",
]
