"""Counters and histograms against NumPy and the text format of Prometheus."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrodict.serving.telemetry import BOUNDS, Telemetry, quantile


@given(st.lists(st.integers(10, 9_000_000), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_within_one_bound(values, share):
    """The histogram's quantile is the upper bound of the bin that holds the exact one."""
    telemetry = Telemetry()
    for value in values:
        telemetry.observe("score", value)
    exact = np.quantile(values, share, method="inverted_cdf")
    found = quantile(telemetry.histograms["score"], share)
    assert exact <= found <= max(exact * 10 ** (1 / 20) * 1.06, BOUNDS[0])


def test_the_exposition_is_readable_by_prometheus():
    """Every line is a comment or a sample; buckets are cumulative and end in the count."""
    telemetry = Telemetry()
    telemetry.count("requests_total", 'status="200"')
    telemetry.count("requests_total", 'status="400"', by=2)
    for value in (5, 50, 20_000_000):
        telemetry.observe("total", value)
    lines = telemetry.exposition().splitlines()
    sample = re.compile(r'^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+$')
    assert all(line.startswith("# TYPE ") or sample.match(line) for line in lines)
    assert 'retrodict_requests_total{status="400"} 2' in lines
    buckets = [int(line.rsplit(" ", 1)[1]) for line in lines if "_bucket" in line]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3


def test_an_empty_histogram_has_no_quantile():
    """Zero, not an error, before the first request."""
    assert quantile([0] * (len(BOUNDS) + 1), 0.99) == 0.0
