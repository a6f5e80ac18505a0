"""A time to an event from rows to a served, replayed and watched decision, on subscriptions of a known hazard."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from retrodict import Project
from retrodict.core.clock import SimulatedClock, from_micros, to_micros
from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, NotFoundError
from retrodict.monitoring.performance import performance
from retrodict.outcomes.status import outcomes

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
RATE, SLOPE, PLANS = 0.004, 0.8, {"year": -0.7, "month": 0.5}  # log hazard of a day: log RATE + SLOPE * tickets + plan

DEFINITIONS = """from retrodict import *
subscriptions = Table("subscriptions", key="id", columns={"started": "time", "cancelled_at": "time"})
churn = Label("churn", subscriptions, "cancelled_at", horizons=["30d", "90d"])
model = Model("churn", label=churn, decide_at="started", features=[columns("tickets", "plan")],
              recipe=Recipe(ESTIMATOR, TimeSplit("2024-01-01/2024-07-01", validate="2 months", test="2 months"),
                            baseline_group="plan"), gates=["c_index >= 0.6", "brier_90d <= 0.25"])
policy = Policy("keep", model, decide={"call": 'event_by["90d"] >= 0.3', "wait": "otherwise"}, deadline="5s")
watch = Monitor(policy)
"""


def subscriptions(count=3_000, days=480, seed=3):
    """Started over a year; those that are still there have no cancelled_at."""
    rng = np.random.default_rng(seed)
    started = np.sort(rng.uniform(0, 366, count))
    tickets, plan = rng.normal(size=count), rng.choice(list(PLANS), count)
    rate = RATE * np.exp(SLOPE * tickets + np.array([PLANS[name] for name in plan]))
    ended = started + rng.exponential(1 / rate)
    when = [BEGIN + timedelta(days=float(day)) for day in started]
    gone = [BEGIN + timedelta(days=float(day)) if day < days else None for day in ended]
    time = pa.timestamp("us", "UTC")
    return pa.table({"id": [f"s{at:05d}" for at in range(count)], "started": pa.array(when, time), "tickets": tickets,
                     "plan": plan, "cancelled_at": pa.array(gone, time)})  # fmt: skip


def write(folder, estimator="'cox'", definitions=DEFINITIONS):
    (folder / "retrodict.toml").write_text('[project]\nname = "churn"\n')
    (folder / "definitions.py").write_text(definitions.replace("ESTIMATOR", estimator))


@pytest.fixture(scope="module")
def rows():
    return subscriptions()


@pytest.mark.parametrize("estimator", ["'cox'", "'aft'", "Vote(['cox', 'aft'])"])
def test_from_rows_to_a_decision(estimator, rows, tmp_path):
    """Trained, judged, gated, served with reasons, replayed."""
    write(tmp_path, estimator)
    clock = SimulatedClock(to_micros(BEGIN) + 480 * DAY)
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("subscriptions", rows)
        run = p.train("churn")
        assert run.replay().exact
        assert run.metrics["c_index"] > 0.65
        assert {gate["status"] for gate in run.version.gates} == {"pass"}
        for text in (str(p.runs.get(run.ref)), p.models.card("churn@1").markdown()):
            assert ("hazard ratio" in text and "plan=month" in text) == (estimator == "'cox'")
        assert "positives" not in p.models.card("churn@1").markdown()
        assert [entry.name for entry in p.models.estimators(task="survival")] == [
            "aft",
            "constant",
            "cox",
            "group_rate",
        ]
        with pytest.raises(NotFoundError, match="a task must be one that there is; got 'hazard'"):
            p.models.estimators(task="hazard")
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("churn@1", reason="test")
        p.deploy("keep", reason="test")
        d = p.decide(
            "keep",
            tickets=2.0,
            plan="month",
            explain=True,
            key="s00001",
            started="2024-09-01T00:00:00Z",
            at="2024-09-01T00:00:00Z",
        )
        assert list(d.record.outputs) == ['event_by["30d"]', 'event_by["90d"]']
        assert d.decision == "call"
        reasons = [reason for reason in d.record.reasons if 'event_by["90d"]' in reason]  # what the policy decides on
        assert len(reasons) == 2, d.record.reasons
        assert d.replay().exact


def test_decisions_are_watched_by_horizons_and_challenged(rows, tmp_path):
    """A month of decisions, looked at 40 and 120 days later: what is old enough is judged, against counts by hand."""
    write(tmp_path)
    begin, table = to_micros(BEGIN), rows.to_pylist()
    cut = 305 * DAY  # those of November decide
    november = [row for row in table if begin + cut <= to_micros(row["started"]) < begin + cut + 30 * DAY]
    started, ended = (np.array([np.inf if row[name] is None else to_micros(row[name]) for row in november])
                      for name in ("started", "cancelled_at"))  # fmt: skip
    with Project(tmp_path, actor="ana", clock=SimulatedClock(begin + 480 * DAY)) as p:
        p.data.ingest("subscriptions", rows)
        p.train("churn")
    with Project(tmp_path, actor="ben", clock=SimulatedClock(begin + 480 * DAY)) as p:
        p.models.approve("churn@1", reason="test")
        p.deploy("keep", reason="test")
        for row in november:
            p.decide("keep", key=row["id"], tickets=row["tickets"], plan=row["plan"], started=row["started"],
                     at=row["started"])  # fmt: skip
        for days in (40, 120):
            now = begin + cut + days * DAY
            counts = p.monitor("keep", now=from_micros(now).isoformat()).counts
            assert (counts["decisions"], counts["unmatched"]) == (len(november), 0)
            slices = performance(outcomes(p.workspace, "keep", now=now), min_labels=20)
            part = next(part for part in slices if part.decisions)
            age, days_to = (now - started) / DAY, np.where(ended < now, ended - started, np.inf) / DAY
            for horizon in (30, 90):
                old = age >= horizon + 0.5  # the newest moment in the table is a little before now
                rate = part[f"event_rate_{horizon}d"]
                assert rate.n == pytest.approx(old.sum(), abs=4)
                if old.sum():
                    assert rate.value == pytest.approx((days_to[old] <= horizon).mean(), abs=0.02)
                    assert part[f"brier_{horizon}d"].value is not None
            assert part["c_index"].n == pytest.approx(len(november), abs=4)
            assert part.decisions == part.labelled + part.pending + part.void == len(november)
            assert part.labelled == pytest.approx(((days_to < np.inf) | (age >= 90)).sum(), abs=4)
    write(tmp_path, "'constant'")
    with Project(tmp_path, actor="ana", clock=SimulatedClock(begin + 480 * DAY)) as p:
        p.train("churn")
        result = p.compare("keep", "churn@2")
        assert result.verdict == "worse"
        assert result.quality.difference.name == "integrated_brier_loss_difference"
        assert sum(result.changes.values()) > 0


def test_outcomes_come_on_their_own_and_an_event_before_the_decision_is_void(rows, tmp_path):
    """Signed days by key, from the file; a later decision on a row that had ended has no outcome. Age weighs rows."""
    weighted = 'half_life="60d", weights="tickets * tickets + 0.5"'
    write(tmp_path, definitions=DEFINITIONS.replace('baseline_group="plan"', weighted))
    clock = SimulatedClock(to_micros(BEGIN) + 480 * DAY)
    ended = [row for row in rows.to_pylist() if row["cancelled_at"] is not None][:4]
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("subscriptions", rows)
        run = p.train("churn")
        assert run.replay().exact
        assert run.metrics["c_index"] > 0.65
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("churn@1", reason="test")
        p.deploy("keep", reason="test")
        at = from_micros(to_micros(BEGIN) + 470 * DAY).isoformat()
        for row in ended:
            p.decide("keep", key=row["id"], tickets=0.0, plan="year", started=at, at=at)
        known = from_micros(to_micros(BEGIN) + 479 * DAY).isoformat()
        file = tmp_path / "outcomes.csv"
        lines = [f"{row['id']},{days},{known}" for row, days in zip(ended, ("4.5", "0", "-3"), strict=False)]
        file.write_text("\n".join(["key,label,known_at", *lines, f"{ended[3]['id']},inf,{known}"]))
        report = p.outcomes.ingest("keep", file)
        assert (report.accepted, report.quarantined) == (3, 1)
        facts = outcomes(p.workspace, "keep", now=clock.now())
        assert facts.status.tolist() == ["known", "known", "void", "void"]
        np.testing.assert_array_equal(facts.label, [4.5, 1 / DAY, -3.0, np.nan])


def test_a_lost_row_is_lost_until_its_event_is_heard_of(rows, tmp_path):
    """Decided on day 400, an event on day 420 that is heard of on day 450, and lost on day 440: at each moment."""
    label = 'horizons=["30d", "90d"], known_at="heard", until="moved"'
    write(tmp_path, definitions=DEFINITIONS.replace('horizons=["30d", "90d"]', label).replace(
        '"cancelled_at": "time"}', '"cancelled_at": "time", "heard": "time", "moved": "time"}'))  # fmt: skip
    begin, time = to_micros(BEGIN), pa.timestamp("us", "UTC")
    none = pa.array([None] * rows.num_rows, time)
    table = rows.append_column("heard", rows.column("cancelled_at")).append_column("moved", none)
    extra = [[value] for value in ("late", *(BEGIN + timedelta(days=day) for day in (400, 420, 450, 440)))]
    names = ["id", "started", "cancelled_at", "heard", "moved"]
    one = pa.table([pa.array(extra[0]), *(pa.array(day, time) for day in extra[1:])], names=names)
    one = one.append_column("tickets", pa.array([0.0])).append_column("plan", pa.array(["year"]))
    with Project(tmp_path, actor="ana", clock=SimulatedClock(begin + 480 * DAY)) as p:
        p.data.ingest("subscriptions", pa.concat_tables([table, one.select(table.column_names)]))
        p.train("churn")
    with Project(tmp_path, actor="ben", clock=SimulatedClock(begin + 480 * DAY)) as p:
        p.models.approve("churn@1", reason="test")
        p.deploy("keep", reason="test")
        p.decide("keep", key="late", tickets=0.0, plan="year", at=from_micros(begin + 400 * DAY).isoformat())
        for day, days, status in ((430, -30, "pending"), (445, -40, "void"), (460, 20, "known")):
            facts = outcomes(p.workspace, "keep", now=begin + day * DAY)
            assert facts.status.tolist() == [status]
            assert facts.label[0] == pytest.approx(days, abs=0.5)


def test_a_search_over_every_estimator_ends(rows, tmp_path):
    """ "auto" tries those of the task: a name without its own first try stopped it."""
    write(tmp_path, '"auto"', DEFINITIONS.replace('baseline_group="plan"', 'budget="8s"'))
    with Project(tmp_path, actor="ana", clock=SimulatedClock(to_micros(BEGIN) + 480 * DAY)) as p:
        p.data.ingest("subscriptions", rows)
        run = p.train("churn")
        assert run.metrics["c_index"] > 0.65
        assert run.record.params["choice"]["estimator"] in {"cox", "aft"}


def test_a_history_does_not_compare_other_horizons(rows, tmp_path):
    """An integrated score over three horizons is no number of one over two; a gap has its reason."""
    write(tmp_path, definitions=DEFINITIONS.replace('["30d", "90d"]', '["30d", "90d", "180d"]'))
    with Project(tmp_path, actor="ana", clock=SimulatedClock(to_micros(BEGIN) + 480 * DAY)) as p:
        p.data.ingest("subscriptions", rows)
        p.train("churn")
        (before,) = [line for line in p.models.history("churn").lines if line.stage == "validate"]
        assert before.value is None
        assert before.reason.endswith("rows were followed for 90d, fewer than 10")
    write(tmp_path)
    with Project(tmp_path, actor="ana", clock=SimulatedClock(to_micros(BEGIN) + 480 * DAY)) as p:
        p.train("churn")
        lines = {(line.version, line.stage): line for line in p.models.history("churn").lines}
        assert lines["churn@1", "test"].value is None
        assert lines["churn@1", "test"].reason == "other horizons: 30d, 90d, 180d"
        assert lines["churn@2", "test"].value > 0
        order = p.models.history("churn", metric="brier_90d").lines
        assert all(line.value > 0 for line in order if line.stage == "test")


def test_a_batch_that_nobody_wrote_to_since_is_a_warning(rows, tmp_path):
    """Its rows count as event-free while later ones have events; with all outcomes in every batch there is none."""
    begin, started = to_micros(BEGIN), np.array([to_micros(row["started"]) for row in rows.to_pylist()])
    cut = begin + 300 * DAY
    gone = [at if at is None or to_micros(at) < cut else None for at in rows.column("cancelled_at").to_pylist()]
    stale = rows.set_column(4, "cancelled_at", pa.array(gone, pa.timestamp("us", "UTC")))
    for first, many in ((stale, 1), (rows, 0)):
        folder = tmp_path / str(many)
        folder.mkdir()
        write(folder)
        with Project(folder, actor="ana", clock=SimulatedClock(begin + 480 * DAY)) as p:
            p.data.ingest("subscriptions", first.filter(pa.array(started < cut)))
            p.data.ingest("subscriptions", rows.filter(pa.array(started >= cut)))
            warnings = [text for text in p.train("churn").warnings if "count as event-free" in text]
            assert len(warnings) == many
            assert all("rows ingested since have" in text and "2024-10-2" in text for text in warnings)


def test_a_policy_reads_the_horizons_that_there_are(tmp_path):
    """Another one is refused where it is written, with those that there are."""
    write(tmp_path, definitions=DEFINITIONS.replace('event_by["90d"] >= 0.3', 'event_by["60d"] >= 0.3'))
    with pytest.raises(DefinitionError, match=r'must read event_by\["30d"\] and event_by\["90d"\]'):
        _ = Project(tmp_path, actor="ana").workspace.definitions
