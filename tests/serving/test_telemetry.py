"""Counters and histograms against NumPy and the text format of Prometheus."""

import re
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrodict.serving.telemetry import BOUNDS, Telemetry, breaker_states, process_series, quantile


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


def test_a_quantile_on_the_edge_of_a_bin_is_of_that_bin():
    """Half of two is the first; the last bin is open, and has the largest bound."""
    telemetry = Telemetry()
    for value in (15, 1_500):
        telemetry.observe("score", value)
    assert 15 <= quantile(telemetry.histograms["score"], 0.5) < 1_500 <= quantile(telemetry.histograms["score"], 0.51)
    telemetry.observe("record", 10**9)
    assert quantile(telemetry.histograms["record"], 0.5) == BOUNDS[-1]


def test_a_request_is_counted_once_with_all_its_cases_and_stages():
    """For the revision that answered."""
    telemetry = Telemetry()
    records = [SimpleNamespace(policy="p", revision=4, stages={"check": 5, "score": score}) for score in (10, 30)]
    telemetry.count_request(records, 100)
    telemetry.count_request(records[:1], 7)
    label = 'policy="p",revision="4"'
    assert telemetry.named() == {
        f"revision_requests_total{{{label}}}": 2, f"revision_cases_total{{{label}}}": 3,
        f'revision_microseconds_total{{{label},stage="total"}}': 107,
        f'revision_microseconds_total{{{label},stage="check"}}': 15,
        f'revision_microseconds_total{{{label},stage="score"}}': 50,
    }  # fmt: skip


def test_what_processes_have_counted_adds_up():
    """Counters, bins and sums, also of a stage that one of them has not seen."""
    one, other = Telemetry(), Telemetry()
    for telemetry, times in ((one, (20, 20)), (other, (20, 3_000))):
        telemetry.count("requests_total", 'status="200"', by=len(times))
        for micros in times:
            telemetry.observe("total", micros)
    other.observe("explain", 40)
    both = Telemetry()
    for telemetry in (one, other):
        both.add(telemetry.counts())
    assert both.named() == {'requests_total{status="200"}': 4}
    assert (both.sums["total"], both.sums["explain"]) == (3_060, 40)
    assert sorted(count for count in both.histograms["total"] if count) == [1, 3]
    assert both.latencies()["explain"]["count"] == 1
    assert (one.sums["total"], sum(one.histograms["total"])) == (40, 2)  # what was added is as it was


def test_breakers_and_processes_are_told_apart():
    """How many have it in which state; one that was let go is not down, and one that was is named by its number."""
    lines = breaker_states([{"stores": {"keys": "open"}}, {"stores": {"keys": "open"}}, {"stores": {"keys": "closed"}}])
    counts = {line.partition('state="')[2].partition('"')[0]: int(line.rsplit(" ", 1)[1])
              for line in lines.splitlines() if "keys" in line}  # fmt: skip
    assert counts == {"open": 2, "closed": 1, "half_open": 0}
    assert breaker_states([{}]) == ""
    series = process_series([{"worker": 3, "requests": 7, "up": True}, {"worker": 4, "on_duty": False, "up": False}])
    assert [line for line in series.splitlines() if "_up{" in line] == ['retrodict_worker_up{worker="3"} 1']
    assert 'retrodict_worker_requests_total{worker="3"} 7' in series
