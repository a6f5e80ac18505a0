"""Health of features over HTTP: what a real server counts, and what its gauges say of stream and state."""

import re
import time
from http.client import HTTPConnection

import pytest
from tests.serving.project import AT, REQUEST, make_project, parcels
from tests.serving.test_server import Server

from retrodict.core.clock import from_micros, parse_time
from retrodict.features.online import FeatureHealth, FeatureRow, TableLag, ViewFlow, encode_event
from retrodict.features.online.stream import health as health_module
from retrodict.workspace import Workspace


def _metrics(server):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def _samples(text):
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}


def _value(samples, name, **labels):
    """The one sample of a name with these labels, whatever others it has."""
    found = [value for key, value in samples.items() if key.partition("{")[0] == f"retrodict_{name}"
             and all(f'{label}="{wanted}"' in key for label, wanted in labels.items())]  # fmt: skip
    assert len(found) <= 1
    return found[0] if found else None


def _eventually(server, check):
    until = time.monotonic() + 60
    while not check(samples := _samples(_metrics(server))):
        assert time.monotonic() < until, samples
        time.sleep(0.2)
    return samples


@pytest.fixture
def root(tmp_path):
    make_project(tmp_path).close()
    return tmp_path


@pytest.mark.slow
def test_reads_and_nulls_are_counted_by_what_became_of_them(root):
    """Known, unseen and too late: each decision is one read of the view with its status."""
    server = Server(root, "--replay", "--no-consume")
    try:
        unseen = {**REQUEST, "entities": {"depot": "nowhere"}}
        for body, headers in [(REQUEST, AT)] * 3 + [
            (unseen, AT),
            (REQUEST, {"Retrodict-Time": "2024-01-20T10:00:00Z"}),
        ]:
            assert server.decide(body, headers)[0] == 200
        samples = _samples(_metrics(server))
        reads = {status: _value(samples, "feature_reads_total", view="depot_delays", status=status)
                 for status in ("ok", "unseen", "late", "expired")}  # fmt: skip
        assert reads == {"ok": 3, "unseen": 1, "late": 1, "expired": None}
        assert 1 <= _value(samples, "feature_sampled_reads_total", view="depot_delays") <= 6
    finally:
        server.stop()


@pytest.mark.slow
def test_gauges_follow_stream_and_state(root):
    """Lag while nobody consumes, none once somebody does; keys, bytes and staleness are those of the state."""
    now = time.time()
    with Workspace(root) as project:
        rows = parcels(50).slice(48 * 40).to_pylist()
        for row in rows:  # they arrived a minute ago
            row["arrived"] = from_micros(int(now * 1e6) - 60_000_000)
        with project.events.open_writer("events/parcels") as writer:
            writer.append([encode_event(row) for row in rows])
    server = Server(root, "--no-consume")
    try:
        samples = _eventually(server, lambda found: _value(found, "feature_lag_records") is not None)
        assert _value(samples, "feature_lag_records", view="depot_delays") == 80
        assert _value(samples, "feature_state_entities", view="depot_delays") == 3
        assert _value(samples, "feature_staleness_seconds", view="depot_delays") > 86_400
    finally:
        server.stop()
    server = Server(root)
    try:
        samples = _eventually(server, lambda found: _value(found, "feature_lag_records") == 0)
        assert 60 <= _value(samples, "feature_staleness_seconds", view="depot_delays") < 60 + time.time() - now + 1
        with Workspace(root) as project:
            size = sum(len(blob) for name, blob in project.keys.scan(b"") if name[8:9] in b"BIS")
        assert _value(samples, "feature_state_bytes", view="depot_delays") == size
        assert abs(_value(samples, "feature_state_refreshed_timestamp_seconds") - time.time()) < 30
    finally:
        server.stop()


def _row(status, *expired, **values):
    return FeatureRow({f"v__{name}": value for name, value in values.items()}, {"v": status}, {"v": 0}, set(expired))


def test_every_series_has_help_and_type_and_names_are_those_of_prometheus():
    """Counters end in _total, gauges in their unit; one HELP and TYPE before the samples of a name."""
    health = FeatureHealth()
    health.count(_row("ok", x=None))
    flow = ViewFlow("v", "ab" * 32, {0: 4, 1: 9}, 5_000_000, 7, 800, TableLag("t", 1, 2, 30))
    health.flows, health.refreshed = [flow], 1
    lines = health.exposition(parse_time("1970-01-01T00:00:08Z")).splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert names == [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert len(names) == len(set(names)) == 10
    for line in lines:
        assert line.startswith("# ") or re.match(r'^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.-]+$', line)
    samples = _samples("\n".join(lines))
    assert _value(samples, "feature_lag_records", view="v") == 9
    assert _value(samples, "feature_table_lag_rows", view="v") == 30
    assert _value(samples, "feature_partition_lag_records", partition="0") == 4
    assert _value(samples, "feature_staleness_seconds") == 3


def test_statuses_of_many_reads_add_up():
    """More patterns than are kept, out of reach told from never seen; no read is lost."""
    health = FeatureHealth()
    for place in range(3 * health_module._PATTERNS):
        health.count(FeatureRow({}, {f"v{place}": "ok"}, {}, set()))
    for _ in range(5):
        health.count(_row("unseen", "v"))
        health.count(_row("unseen"))
    samples = _samples(health.exposition(0))
    assert sum(value for key, value in samples.items() if "reads_total" in key and 'status="ok"' in key) == 3 * 500
    assert _value(samples, "feature_reads_total", view="v", status="expired") == 5
    assert _value(samples, "feature_reads_total", view="v", status="unseen") == 5


def test_nulls_are_a_fair_sample_of_bounded_size(monkeypatch):
    """The rate comes out whatever rhythm the callers have; beyond the bound features count together."""
    monkeypatch.setattr(health_module, "_MOST", 2)
    health = FeatureHealth()
    for place in range(8_000):
        health.count(_row("ok", a=None if place % 4 == 0 else 1, b=None, c=None, d=None))
    samples = _samples(health.exposition(0))
    sampled = _value(samples, "feature_sampled_reads_total", view="v")
    assert 800 < sampled < 1100
    assert abs(_value(samples, "feature_nulls_total", feature="a") / sampled - 0.25) < 0.05
    assert _value(samples, "feature_nulls_total", feature="b") == sampled
    assert _value(samples, "feature_nulls_total", view="_other") == 2 * sampled
