"""Drift of a period's decisions against the training rows of the version in force."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.signal import lfilter
from scipy.stats import chi2

from retrodict.core.durations import HOUR
from retrodict.core.errors import IntegrityError
from retrodict.evaluation.metrics import base_rate
from retrodict.evaluation.reference import Reference
from retrodict.monitoring.drift import LabelRates, drift, read_reference


def _decisions(n: int, *, shift: float = 0.0, seed: int = 1, **more) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {
        "model": ["m@1"] * n, "fallback": pa.nulls(n, pa.string()), "score": rng.random(n),
        "wind": rng.normal(shift, 1.0, n), "still": rng.normal(0.0, 1.0, n), "carrier": rng.choice(["B6", "DL"], n),
    }  # fmt: skip
    return pa.table({**columns, **more})


@pytest.fixture(scope="module")
def reference() -> Reference:
    rows = _decisions(5000, seed=99)
    return Reference.of({name: rows.column(name) for name in ("wind", "still", "carrier", "score")})


def _plain_psi(first: np.ndarray, second: np.ndarray) -> float:
    used = (first + second) > 0
    p, q = first[used] + 0.5, second[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def test_the_index_is_that_of_the_bins_counted_by_hand(reference):
    """Counts by numpy.histogram over the frozen edges, index and noise floor from their formulas."""
    rows = _decisions(2000, shift=0.8)
    found = drift(rows, reference, model="m@1").features["wind"]
    edges = np.array(reference.features["wind"].profile.edges)
    values = rows.column("wind").to_numpy()
    inner = np.histogram(values, edges)[0]
    by_hand = np.array([(values < edges[0]).sum(), *inner, (values > edges[-1]).sum(), 0, 0, 0])
    assert found.current == tuple(by_hand)
    expected = _plain_psi(reference.features["wind"].counts.astype(float), by_hand.astype(float))
    assert found.verdict.psi == pytest.approx(expected, rel=1e-12)
    bins = int((np.array(found.reference) + by_hand > 0).sum())
    assert found.verdict.p_value == pytest.approx(chi2.sf(expected / (1 / 5000 + 1 / 2000), bins - 1))


def test_only_what_moved_drifts(reference):
    """The largest drifted index is the number that triggers read."""
    found = drift(_decisions(2000, shift=1.5), reference, model="m@1")
    assert found.drifted == ["wind"]
    assert found.psi == found.features["wind"].verdict.psi > 0.25


def test_no_drift_is_zero_and_not_the_largest_noise(reference):
    """Noise below the floor is not an index to act on."""
    found = drift(_decisions(300), reference, model="m@1")
    assert found.drifted == []
    assert found.psi == 0.0


def test_too_few_decisions_are_not_evaluable(reference):
    """Neither drift nor its absence."""
    found = drift(_decisions(20, shift=9.0), reference, model="m@1")
    assert found.psi is None
    assert "fewer than the 100 needed" in found.features["wind"].verdict.reason


def test_the_score_is_judged_apart(reference):
    """Prediction drift is no feature drift."""
    found = drift(_decisions(1000, score=np.full(1000, 0.9)), reference, model="m@1")
    assert found.score.verdict.status == "drift"
    assert found.drifted == []


def test_decisions_without_a_score_are_no_drift_of_the_score(reference):
    """A rule that decided before any model did leaves no score, and no hole in its distribution."""
    rows = _decisions(1000)
    score = pa.array([None if at % 2 else value for at, value in enumerate(rows.column("score").to_pylist())])
    found = drift(rows.set_column(rows.column_names.index("score"), "score", score), reference, model="m@1")
    assert (found.score.verdict.status, found.score.verdict.n_current) == ("no drift", 500)


def test_decisions_that_no_model_scored_are_left_out(reference):
    """Their features may never have been read: counting them as null would be a drift of our own making."""
    rows = _decisions(1000)
    empty = _decisions(
        1000, fallback=["ok"] * 1000, score=pa.nulls(1000, pa.float64()), wind=pa.nulls(1000, pa.float64())
    )
    found = drift(pa.concat_tables([rows, empty]), reference, model="m@1")
    assert (found.decisions, found.left_out, found.drifted) == (1000, 1000, [])


def test_a_feature_that_turns_null_drifts(reference):
    """A broken pipe is the drift that matters most."""
    assert drift(_decisions(1000, carrier=pa.nulls(1000, pa.float64())), reference, model="m@1").drifted == ["carrier"]


def test_features_that_cannot_be_counted_say_why(reference):
    """Absent from the log, or of another type; the others are judged all the same."""
    rows = _decisions(500, wind=["strong"] * 500).drop_columns(["still"])
    found = drift(rows, reference, model="m@1").features
    assert found["still"].verdict.reason == "the decision log holds no such value"
    assert found["wind"].verdict.reason == "the log holds string, the reference is numeric"
    assert found["carrier"].verdict.status == "no drift"


def test_other_versions_are_counted_and_judged_alike(reference):
    """The report says whose reference it is, and how many decisions were somebody else's."""
    found = drift(_decisions(500, model=["m@1"] * 300 + ["m@2"] * 200), reference, model="m@2")
    assert (found.model, dict(found.other_models)) == ("m@2", {"m@1": 300})


def test_without_profiles_or_deployment_nothing_is_evaluable():
    """And the reason says which of the two it is."""
    rows = _decisions(500)
    assert drift(rows, None, model=None).reason == "no model version is in force"
    assert drift(rows, None, model="m@1").reason == "the model version carries no training profiles"
    assert drift(rows, None, model="m@1").psi is None


def _rates(current: np.ndarray, reference: float, rows: int, times: np.ndarray | None = None) -> LabelRates:
    times = np.arange(current.size) if times is None else times
    return LabelRates(base_rate(current), times, current, reference, rows)


@pytest.mark.parametrize(("rate", "rows", "status"),
                         [(0.2, 1000, "unchanged"), (0.6, 1000, "changed"), (0.23, 400, "unchanged"),
                          (0.23, 1_000_000, "changed")])  # fmt: skip
def test_the_label_rate_changes_beyond_the_interval_of_both_samples(rate, rows, status):
    """1,000 outcomes at 20 %: three points more are a change against a million test rows and none against 400."""
    rates = _rates(np.repeat([1.0, 0.0], [200, 800]), rate, rows)
    found = drift(_decisions(500), None, model="m@1", label_rate=rates).label_rate
    assert found.status == status
    assert (found.low <= 0.2 - rate <= found.high, found.current) == (True, 0.2)


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_equal_label_rates_are_called_changed_in_five_of_a_hundred_runs(phi):
    """Test rows as many as outcomes, the chance of a positive one constant or wandering from hour to hour."""
    rng = np.random.default_rng(5)
    hours, changed, rows = np.arange(720) * HOUR, 0, _decisions(500)
    for _ in range(400):
        chance = 1 / (1 + np.exp(1.4 - phi * lfilter([1], [1, -phi], rng.normal(0, np.sqrt(1 - phi**2), 1440))))
        labels = (rng.random(1440) < chance).astype(float)
        rates = _rates(labels[720:], labels[:720].mean(), 720, hours)
        found = drift(rows, None, model="m@1", span=(0, 720 * HOUR), label_rate=rates).label_rate
        changed += found.status == "changed"
    assert 0.01 <= changed / 400 <= 0.09


def _wandering(hours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return lfilter([1], [1, -0.99], rng.normal(0, np.sqrt(1 - 0.99**2), hours.size))


@pytest.mark.parametrize("odds", [
    _wandering, lambda hours, rng: np.sin((hours / 8766 + rng.random()) * 2 * np.pi),
    lambda hours, rng: 1.5 * ((hours // 24 + rng.integers(7)) % 7 >= 5)],
    ids=["days", "season", "weekday"])  # fmt: skip
def test_a_label_rate_is_held_to_how_much_spans_of_the_training_rows_differ(odds):
    """Of seven months, one of test rows and one of decisions: rates that vary as they always did have not changed."""
    rng, hours, rows = np.random.default_rng(8), np.arange(270 * 24), _decisions(200)
    before, month, changed = slice(0, 240 * 24), slice(240 * 24, None), {0.0: 0, 2.5: 0}
    for shift in changed:
        for _ in range(25):
            chance = 1 / (1 + np.exp(1.4 - odds(hours, rng) - shift * (hours >= 240 * 24)))
            labels = (rng.random(hours.size) < chance).astype(float)
            reference = Reference.of({}, labels=(labels[before], hours[before] * HOUR))
            rates = _rates(labels[month], labels[210 * 24 : 240 * 24].mean(), 720, hours[month] * HOUR)
            span = (240 * 24 * HOUR, 270 * 24 * HOUR)
            judged = drift(rows, reference, model="m@1", span=span, label_rate=rates).label_rate
            changed[shift] += judged.status == "changed"
    assert changed[0.0] <= 3
    assert changed[2.5] >= 22


def _hourly(start: int, days: int, wind: np.ndarray) -> pa.Table:
    times = (start + np.arange(days * 24)) * HOUR
    return _decisions(days * 24, time=times, wind=wind, score=np.full(days * 24, 0.5))


def _of_hours(wind: np.ndarray) -> Reference:
    return Reference.of({"wind": pa.array(wind)}, {"wind": np.arange(wind.size, dtype=np.int64) * HOUR})


def test_hourly_weather_that_only_wanders_drifts_in_few_months_and_shifted_in_most():
    """A month after seven of training rows, each hour like the one before: by the whole way, blocks and all."""
    rng, found = np.random.default_rng(9), {0.0: 0, 1.0: 0}
    for shift in found:
        for _ in range(60):
            wind = lfilter([1], [1, -0.9], rng.normal(0, np.sqrt(0.19), 240 * 24))
            month = _hourly(210 * 24, 30, wind[210 * 24 :] + shift)
            span = (210 * 24 * HOUR, 240 * 24 * HOUR)
            found[shift] += bool(drift(month, _of_hours(wind[: 210 * 24]), model="m@1", span=span).drifted)
    assert found[0.0] <= 2
    assert found[1.0] >= 50


def test_the_score_has_the_noise_of_its_test_rows():
    """It wanders as the weather does that it is made of: its floor is that of blocks of time, too."""
    rng = np.random.default_rng(3)
    score = 1 / (1 + np.exp(-lfilter([1], [1, -0.95], rng.normal(0, 0.3, 240 * 24))))
    before = {"score": np.arange(210 * 24, dtype=np.int64) * HOUR}
    reference = Reference.of({"score": pa.array(score[: 210 * 24])}, before)
    month = _hourly(210 * 24, 30, score[210 * 24 :]).set_column(2, "score", pa.array(score[210 * 24 :]))
    plain = drift(month, reference, model="m@1").score.verdict
    found = drift(month, reference, model="m@1", span=(210 * 24 * HOUR, 240 * 24 * HOUR)).score.verdict
    assert found.psi == pytest.approx(plain.psi, rel=0.1)
    assert found.critical_value > 3 * plain.critical_value


def test_a_period_is_compared_with_its_season_where_the_training_rows_hold_it():
    """Two years of seasons: the third summer looks like summers, and a summer like a winter is drift."""
    rng, hours = np.random.default_rng(1), np.arange(3 * 8766)
    wind = np.cos(2 * np.pi * hours / 8766) * 3 + rng.normal(0, 1, hours.size)
    reference, month = _of_hours(wind[: 2 * 8766]), hours[int(2.5 * 8766) : int(2.5 * 8766) + 30 * 24]
    span = (int(month[0]) * HOUR, int(month[-1] + 1) * HOUR)
    alike = drift(_hourly(int(month[0]), 30, wind[month]), reference, model="m@1", span=span)
    winter = drift(_hourly(int(month[0]), 30, wind[: month.size]), reference, model="m@1", span=span)
    assert (alike.seasonal, alike.drifted, winter.drifted) == (True, [], ["wind"])
    assert alike.features["wind"].verdict.psi < 0.1
    assert alike.to_dict()["seasonal"] is True


def test_missing_profiles_are_damage(project):
    """Named in the metadata and gone: an error, not "not evaluable"."""
    with pytest.raises(IntegrityError, match="training profiles of a model version must be stored"):
        read_reference(project.objects, {"profiles": "0" * 64})
    with pytest.raises(IntegrityError, match="the object must hold training profiles"):
        read_reference(project.objects, {"profiles": project.objects.put(b'{"wind": 3}')})
