"""What each part of a split can know of an event, row by row; what a definition refuses; tuning and tables of days."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from retrodict import (
    Balance,
    Encode,
    Label,
    Model,
    Monitor,
    Policy,
    Project,
    RandomSplit,
    Recipe,
    Stack,
    Table,
    Threshold,
    TimeSplit,
    Trigger,
    Tune,
    Vote,
    columns,
)
from retrodict.core.clock import SimulatedClock, to_micros
from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.tasks import Target
from retrodict.learning.fit import TrainingRows, fold_problem
from retrodict.learning.frame import build_frame, count_left_out, parts_of
from retrodict.learning.leaks import find_leaks
from retrodict.models import Examples, InputSpec, Problem
from retrodict.models.splits import folds
from retrodict.models.targets import NEVER

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TABLE = Table(
    "loans", key="id", columns=dict.fromkeys(("asked", "defaulted", "heard", "sold"), "time") | {"x": "float"}
)
SPLIT = TimeSplit("2024-01-01/2024-04-01", validate="30d", test="30d")
LABEL = Label("default", TABLE, "defaulted", known_at="heard", until="sold", horizons=["10d", "40d"])
MODEL = Model("default", label=LABEL, decide_at="asked", features=[columns("x")], recipe=Recipe("cox", SPLIT))
COUNT = 3_000
ENDS = {"train": 91.0, "validate": 121.0, "test": 250.0}


def loans(count=COUNT, seed=5):
    """Events, heard of up to twenty days later, and sold loans; some events at the decision, and some before it.

    Of one event before its decision, and of one before its loan was sold, nobody hears until day 100.
    """
    rng = np.random.default_rng(seed)
    asked, x = np.sort(rng.uniform(0, 151, count)), rng.normal(size=count)
    defaulted = asked + rng.exponential(40 * np.exp(-x))
    defaulted[:3], defaulted[3:6], defaulted[6] = asked[:3], asked[3:6] - 1, asked[6] + 10
    heard = defaulted + np.where(rng.random(count) < 0.5, 0, rng.uniform(0, 20, count))
    sold = np.where(rng.random(count) < 0.2, asked + rng.uniform(0, 60, count), np.inf)
    heard[5:7], sold[5:7] = 100, (np.inf, asked[6] + 30)
    return asked, defaulted, heard, sold, x


def table(asked, defaulted, heard, sold, x):
    when = [
        pa.array([BEGIN + timedelta(days=float(d)) if d < 250 else None for d in part], pa.timestamp("us", "UTC"))
        for part in (asked, np.where(heard < 250, defaulted, np.inf), heard, sold)
    ]
    return pa.table({"id": range(len(x)), "asked": when[0], "defaulted": when[1], "heard": when[2], "sold": when[3],
                     "x": x})  # fmt: skip


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    days = loans()
    with Project(tmp_path_factory.mktemp("loans"), definitions=[TABLE, MODEL], actor="ana",
                 clock=SimulatedClock(to_micros(BEGIN) + 1_000 * DAY)) as p:  # fmt: skip
        p.data.ingest("loans", table(*days))
        return build_frame(p.workspace.tables, MODEL, {"loans": 0}), days


def test_each_part_knows_what_happened_and_was_heard_of_before_its_end(frame):
    """Signed days of every row, by what a clerk would write down at the end of the part; nobody is dropped."""
    built, (asked, defaulted, heard, sold, _) = frame
    censored, parts = parts_of(built, SPLIT, now=to_micros(BEGIN) + 1_000 * DAY)
    newest = max(asked.max(), heard[heard < 250].max())
    starts, before = {"train": 0.0, "validate": 91.0, "test": 121.0}, 0
    for name, end in {**ENDS, "test": newest}.items():
        stop = {"train": 91.0, "validate": 121.0, "test": 151.0}[name]
        rows = [at for at in range(COUNT) if starts[name] <= asked[at] < stop]
        happened = built.at + np.rint(np.where(built.labels > 0, built.labels, 0) * DAY).astype(np.int64)
        constant = replace(built, known_at=np.where(built.labels > 0, happened + 9 * DAY, built.known_at))
        assert parts_of(constant, SPLIT, now=to_micros(BEGIN) + 1_000 * DAY)[0].delays[name] == 9.0
        odd = [at for at in rows if defaulted[at] < asked[at] and heard[at] < end + 1e-9]
        heard_by = (defaulted <= sold) & (defaulted >= asked) & (heard < min(end + 1e-9, 250))
        delay = np.quantile((heard - defaulted)[heard_by], 0.99, method="higher")
        before += len(odd)
        assert parts[name].tolist() == [at for at in rows if at not in odd]
        assert censored.delays[name] == pytest.approx(delay, abs=1e-6)
        for at in parts[name]:
            last = min(max(end - delay, asked[at] + 1e-11), sold[at])
            if defaulted[at] < last and heard[at] < end + 1e-9:
                assert censored.labels[at] == pytest.approx(max(defaulted[at] - asked[at], 1e-12), abs=1e-9)
            else:
                assert censored.labels[at] == pytest.approx(-(last - asked[at]), abs=1e-9)
    assert (censored.labels[:3] == 1 / DAY).all()
    assert before == 2
    assert censored.labels[6] == pytest.approx(-30)
    assert count_left_out(censored, MODEL, now=to_micros(BEGIN) + 1_000 * DAY) == {"before_decision": 2}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_heard_of_after_a_part_teaches_it_nothing(frame, seed, tmp_path):
    """Another world from day 91 on, with what had happened but nobody had heard of by then: the same training rows."""
    built, days = frame
    asked, defaulted, heard, sold, x = (part.copy() for part in days)
    rng, late = np.random.default_rng(seed), heard >= 91
    moved = rng.uniform(-100, 100, late.sum())
    defaulted[late], heard[late] = (defaulted[late] + moved).clip(-50), np.maximum(heard[late] + moved, 91)
    sold[sold >= 91] = 91 + rng.exponential(20, (sold >= 91).sum())
    with Project(tmp_path, definitions=[TABLE, MODEL], actor="ana",
                 clock=SimulatedClock(to_micros(BEGIN) + 1_000 * DAY)) as p:  # fmt: skip
        p.data.ingest("loans", table(asked, defaulted, heard, sold, x))
        other = build_frame(p.workspace.tables, MODEL, {"loans": 0})
    here, there = (parts_of(one, SPLIT, now=to_micros(BEGIN) + 1_000 * DAY) for one in (built, other))
    rows = here[1]["train"]
    assert rows.tolist() == there[1]["train"].tolist()
    np.testing.assert_array_equal(here[0].labels[rows], there[0].labels[rows])
    assert (here[0].labels != there[0].labels).sum() > 100
    for fit, judge in folds(SPLIT, here[0], rows, 4):
        spec = InputSpec.learn(built.columns(rows))
        labels = [
            fold_problem(Problem(spec, Examples(spec.encode_columns(one.columns(rows)), one.labels[rows], one.target)),
                         TrainingRows(SPLIT, one, rows), fit, judge).train.labels for one in (here[0], there[0])
        ]  # fmt: skip
        np.testing.assert_array_equal(*labels)


def test_an_earlier_now_gives_less(frame):
    """As a training on day 130 would have seen it: no label tells of a later day."""
    built, (asked, *_) = frame
    now = to_micros(BEGIN) + 130 * DAY
    censored, parts = parts_of(built, SPLIT, now=now)
    assert max(asked[parts["test"]]) < 130
    for rows in parts.values():
        assert (asked[rows] + np.abs(censored.labels[rows]) <= 130 + 1e-9).all()


def test_a_fold_learns_nothing_of_the_days_that_it_is_judged_on(frame):
    """Rows decided before the judged ones are censored where those begin; later ones keep what they know."""
    built, (asked, *_) = frame
    censored, parts = parts_of(built, SPLIT, now=to_micros(BEGIN) + 1_000 * DAY)
    train = parts["train"]
    matrix = InputSpec.learn(censored.columns(train))
    whole = Problem(matrix, Examples(matrix.encode_columns(censored.columns(train)), censored.labels[train],
                                     censored.target))  # fmt: skip
    changed = 0
    for fit, judge in folds(SPLIT, censored, train, 4):
        start = asked[train[judge]].min()
        labels = fold_problem(whole, TrainingRows(SPLIT, censored, train), fit, judge).train.labels
        earlier = asked[train[fit]] < start
        assert (asked[train[fit]] + np.abs(labels) <= start + 1e-9)[earlier].all()
        assert (labels == censored.labels[train[fit]])[~earlier].all()
        changed += (labels != censored.labels[train[fit]]).sum()
    assert changed > 50


def test_a_column_that_is_the_time_of_the_event_is_a_leak(frame):
    """Of the rows whose event was seen, and a flag that it came by now, which no row censored before shows."""
    built, (_, defaulted, *_) = frame
    censored, parts = parts_of(built, SPLIT, now=to_micros(BEGIN) + 1_000 * DAY)

    def leaks(values):
        changed = censored.table.set_column(censored.table.column_names.index("x"), "x", pa.array(values))
        one = type(censored)(changed, ("x",), censored.at, censored.labels, censored.known_at, censored.target)
        inputs = InputSpec.learn(one.columns(parts["train"]))
        examples = {name: Examples(inputs.encode_columns(one.columns(rows)), one.labels[rows], one.target)
                    for name, rows in parts.items()}  # fmt: skip
        return {leak.kind for leak in find_leaks(one, inputs, parts, examples, SPLIT)}

    assert leaks(np.random.default_rng(0).normal(size=COUNT)) == set()
    assert leaks(defaulted - (built.at - to_micros(BEGIN)) / DAY) >= {"label_copy"}
    known = np.where(built.known_at != NEVER, 1.0, 0.0)
    noisy = np.where(np.random.default_rng(1).random(COUNT) < 0.8, known, 1 - known)
    assert leaks(known) == {"label_copy"}
    assert leaks(np.where(known == 1, 3.0, np.nan)) == {"label_copy"}  # filled in with the event, like its reason
    assert leaks(noisy) == set()
    assert leaks(np.where(np.random.default_rng(1).random(COUNT) < 0.95, known, 1 - known)) == {"single_feature"}


def model(**changes):
    recipe = {"estimator": "cox", "split": SPLIT, **{k: v for k, v in changes.items() if k in Recipe.__annotations__}}
    rest = {k: v for k, v in changes.items() if k not in recipe}
    return Model("m", **{"label": LABEL, "decide_at": "asked", "features": [columns("x")], **rest},
                 recipe=Recipe(**recipe))  # fmt: skip


REFUSED = [
    ({"estimator": "lightgbm"}, "must learn it; got \\['lightgbm'\\]. Choose one of aft, auto|must learn it"),
    ({"estimator": Vote(["cox", "logistic"])}, "must learn it; got \\['logistic'\\]"),
    ({"estimator": Stack(["cox", "aft"])}, "must be an average; got 'stack'"),
    ({"balance": Balance("over")}, "must not be balanced, cut by a threshold, or held by an interval"),
    ({"threshold": Threshold.cost(false_positive=1, false_negative=2)}, "must not be balanced"),
    ({"interval": 0.9}, "must not be balanced"),
    ({"calibrate": "isotonic"}, "must be left as they are; got 'isotonic'"),
    ({"baseline": "x > 1"}, "must be one answer"),
    ({"prepare": [Encode("target")]}, "must not read the label; got \\['target'\\]"),
    ({"tune": Tune(metric="rmse")}, "must be by a metric that it has; got 'rmse'"),
    ({"tune": Tune(ensemble=["stack"])}, "must be an average"),
    ({"task": "regression"}, "must have a label with horizons"),
    ({"gates": ["brier_7d < 0.2"]}, "must read metrics that it has; got 'brier_7d'"),
    ({"gates": ["auc > 0.7"]}, "must read metrics that it has; got 'auc'"),
    ({"gates": ["dp_ratio(x) > 0.8"]}, "must read metrics that it has; got 'dp_ratio"),
    ({"decide_at": "", "split": RandomSplit()}, "must be of rows with a moment of decision"),
    ({"label": Label("d", TABLE, "x", event="id > 3", horizons=["5d"])}, "must be of rows that have no moment"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_has_no_meaning_is_refused_where_it_is_written(changes, message):
    """With what to do instead, before anything is read or fitted."""
    with pytest.raises(DefinitionError, match=message):
        model(**changes).check()


def test_a_search_says_which_horizon_its_folds_cannot_judge(tmp_path):
    """Folds of three weeks say nothing of 40 days: the reason is counted."""
    definition = model(tune=Tune(trials=1, folds=4, metric="brier_40d"))
    with Project(tmp_path, definitions=[TABLE, definition], actor="ana",
                 clock=SimulatedClock(to_micros(BEGIN) + 1_000 * DAY)) as p:  # fmt: skip
        p.data.ingest("loans", table(*loans()))
        with pytest.raises(InputError, match=r"the brier_40d of its outputs is not a number: \d+ of \d+ rows were"):
            p.train("m")


@pytest.mark.parametrize("on", ["auc < 0.6", "auc_drop > 0.1", "label_rate > 0.5", "calibration_ratio > 2"])
def test_a_trigger_reads_what_the_task_has(on):
    """Of a yes or no alone: here each would be without a value for ever."""
    policy = Policy("keep", MODEL, decide={"call": 'event_by["40d"] >= 0.3', "wait": "otherwise"})
    for trigger, refused in ((on, True), ("psi > 0.25 and labels > 100", False)):
        monitor = Monitor(policy, triggers=[Trigger.retrain(on=trigger)])
        faults = [use.fault({}) for use in monitor.uses() if use.what == "number"]
        assert any(faults) == refused, faults
        if refused:
            assert "numbers that are measured; got" in str(next(filter(None, faults)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"until": "sold", "horizons": ()}, "must have horizons"),
        ({"classes": ["a", "b"]}, "neither classes nor a time to mature"),
        ({"event": "x > 1"}, "no until and no known_at|must be a number"),
        ({"expression": "x > 1"}, "must be a time"),
        ({"horizons": ["40d", "10d"]}, "must ascend"),
    ],
)
def test_a_label_says_what_goes_together(changes, message):
    """A definition error of the label."""
    fields = {"expression": "defaulted", "horizons": ["10d"], "until": "sold", **changes}
    with pytest.raises(DefinitionError, match=message):
        Label("d", TABLE, fields.pop("expression"), **fields)


def test_days_with_their_event_need_no_history(tmp_path):
    """A random split has events in every part; folds choose a penalty; negative days are refused by their number."""
    rng = np.random.default_rng(1)
    x, ends = rng.normal(size=600), rng.uniform(1, 100, 600)
    days = np.floor(rng.exponential(30 * np.exp(-x)))
    died = days <= ends
    patients = Table("patients", key="id", columns={"days": "int", "died": "bool", "x": "float"})
    label = Label("death", patients, "days", event="died", horizons=["10d", "50d"])
    recipe = Recipe("cox", RandomSplit(), tune=Tune(trials=3, folds=3, space={"penalty": (0.01, 100.0, "log")}))
    death = Model("death", label=label, features=[columns("x")], recipe=recipe, gates=["c_index >= 0.6"])
    rows = {"id": range(600), "days": np.minimum(days, np.floor(ends)).astype(int), "died": died, "x": x}
    with Project(tmp_path, definitions=[patients, death], actor="ana") as p:
        p.data.ingest("patients", pa.table(rows))
        run = p.train("death")
        assert run.metrics["c_index"] > 0.65
        assert run.record.data["follow_up"]["test"]["events"] > 40
        assert run.record.params["choice"].keys() == {"cox.penalty"}
        assert run.replay().exact
    rows["days"] = np.where(np.arange(600) == 3, -1, rows["days"])
    with Project(tmp_path / "odd", definitions=[patients, death], actor="ana") as p:
        p.data.ingest("patients", pa.table(rows))
        with pytest.raises(InputError, match="zero or more; got '1 others'"):
            p.train("death")


def test_the_plain_form_of_other_targets_is_as_it_was():
    """Hashes of models that are stored do not move."""
    assert "horizons" not in Target("regression").to_dict()
    target = Target("survival", horizons=("30d", "12w"))
    assert Target.from_dict(target.to_dict()) == target
