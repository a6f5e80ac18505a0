"""The filter language of runs against filters in plain Python over the same runs."""

import math
import operator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from tests.learning.test_run_shape import close, former_store, run_of

from retrodict.core.clock import format_time
from retrodict.core.errors import DefinitionError, InputError, NotFoundError
from retrodict.learning import best_run, get_run, list_runs, open_run
from retrodict.learning.runs import MetricPoint, start_run
from retrodict.learning.runs.schema import values

SIGNS = {"=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@pytest.fixture
def filled(make_project):
    """Runs that have a metric, one that is not evaluable, or none; parameters of several kinds; two models."""
    workspace = make_project()
    boosted = {"estimator": "lightgbm"}
    rows = [
        ("late", {"auc": 0.7, "rmse": 9.0}, {**boosted, "trees": 100, "deep": {"lr": 0.1}}, {"team": "risk"}),
        ("late", {"auc": 0.8, "rmse": 1.0}, {**boosted, "trees": 20, "deep": {"lr": "0.5"}}, {"team": "ops"}),
        ("lost", {"auc": None}, {"estimator": "logistic", "trees": "many", "own": True}, {}),
        ("lost", {}, {"estimator": "Logistic"}, {"my tag": "x"}),
    ]
    ids = []
    for model, numbers, params, labels in rows:
        run = replace(run_of(workspace, kind="train", params=params, tags=labels), model=model)
        start_run(workspace, run)
        points = [MetricPoint("test", name, value) for name, value in numbers.items()]
        points += [MetricPoint("train", "auc", 0.95)] if model == "late" else []
        if len(ids) < 3:
            close(workspace, run, points=points, seconds=float(len(ids)))
        ids.append(run.id)
    return workspace, ids


def places(filled, where, **options):
    workspace, ids = filled
    return [ids.index(run.id) for run in list_runs(workspace, where=where, **options)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("metrics.auc > 0.7", [1]),
        ("metrics.auc >= 0.7 and params.estimator = 'lightgbm' and tags.team = 'risk' and status = 'finished'", [0]),
        ("not metrics.auc > 0.7", [0]),  # unknown stays unknown
        ("metrics.auc is null", [3, 2]),
        ("metrics.train.auc > 0.9", [1, 0]),
        ("metrics.rmse / 2 < metrics.auc", [1]),
        ("params.trees > 50", [0]),
        ("params.trees = 'many'", [2]),
        ("params.deep.lr = 0.5", [1]),
        ("params.deep.lr in (0.1, 0.2)", [0]),
        ("params.own = true", [2]),
        ("params.trees is null", [3]),
        ("params.estimator like 'log%'", [2]),
        ("params.estimator like 'l_g%'", [2, 1, 0]),
        ("params.estimator in ('logistic', 'lightgbm') and model = 'lost'", [2]),
        ("tags.\"my tag\" = 'x'", [3]),
        ("status = 'running' or seconds between 1 and 1.5", [3, 1]),
        ("metrics.auc > 0.75 or tags.team = 'risk'", [1, 0]),
        ("name = 'metrics.auc > 1'", []),
        ("", [3, 2, 1, 0]),
    ],
)
def test_a_filter_finds_its_runs(filled, where, expected):
    assert places(filled, where) == expected


def test_times_are_compared_with_times(filled):
    workspace, _ = filled
    now = format_time(workspace.clock.now())
    assert places(filled, f"started >= timestamp '{now}'") == [3, 2, 1, 0]
    assert places(filled, f"started > timestamp '{now}'") == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("metrics.auc", [1, 0, 3, 2]),
        ("metrics.rmse", [1, 0, 3, 2]),  # less is better
        ("metrics.rmse desc", [0, 1, 3, 2]),
        ("params.trees", [1, 0, 2, 3]),
        ("model, metrics.auc asc", [0, 1, 3, 2]),
        ("seconds desc", [2, 1, 0, 3]),
    ],
)
def test_runs_come_in_order_and_what_has_no_value_last(filled, order, expected):
    assert places(filled, "", order=order) == expected


def test_an_order_has_pages(filled):
    assert [places(filled, "", order="metrics.auc", limit=2, page=page) for page in (1, 2, 3)] == [[1, 0], [3, 2], []]


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("metrics.acu > 0.7", NotFoundError, "metric that is searched by; got 'acu'. Did you mean the metric 'auc'"),
        ("params.estimatr = 'x'", NotFoundError, "Did you mean the parameter 'estimator'"),
        ("tags.teem = 'x'", NotFoundError, "Did you mean the tag 'team'"),
        ("statas = 'x'", NotFoundError, "must name what runs have; got 'statas'. Did you mean the name 'status'"),
        ("metric.auc > 1", NotFoundError, "must name what runs have; got 'metric.auc'.*'metrics.NAME'"),
        ("metrics.auc = 'high'", DefinitionError, "metrics.auc"),
        ("metrics.auc", DefinitionError, "must be a condition"),
        ("metrics.auc > 0.7 and", DefinitionError, "a value must stand here"),
        ("metrics.auc > null", DefinitionError, "must compare with values; got 'null'. Write 'is null'"),
        ("metrics.auc in (0.7, null)", DefinitionError, "must compare with values; got 'null'"),
        ("length(name) > 3", DefinitionError, "must compare metrics, parameters, tags and columns"),
    ],
)
def test_a_filter_that_cannot_be_is_said(filled, where, error, message):
    with pytest.raises(error, match=message):
        places(filled, where)


def test_the_best_goes_the_way_of_the_metric(filled):
    workspace, ids = filled
    assert best_run(workspace, "auc").id == ids[1]
    assert best_run(workspace, "rmse").id == ids[1]  # of 9 and 1
    assert best_run(workspace, "rmse", direction="higher").id == ids[0]
    assert best_run(workspace, "auc", where="tags.team = 'risk' or metrics.auc > 0.9").id == ids[0]
    with pytest.raises(NotFoundError, match="some finished run must have a value"):
        best_run(workspace, "auc", model="lost")
    with pytest.raises(NotFoundError, match="metric that is searched by; got 'profit'"):
        best_run(workspace, "profit")


def test_an_own_metric_is_better_as_was_said(make_project):
    workspace = make_project()
    with open_run(workspace) as costly:
        costly.log_metric("euros", 9.0)
    with pytest.raises(InputError, match=r"must have a direction that is known; got 'euros'.*better='lower'"):
        best_run(workspace, "euros")
    with open_run(workspace) as cheap:
        cheap.log_metric("euros", 1.0, better="lower")
    assert best_run(workspace, "euros").id == cheap.id


def test_a_store_of_the_former_version_is_searched(make_project):
    """What searches read is made from runs and metrics where it is missing."""
    workspace = make_project()
    former_store(workspace)
    assert [run.id for run in list_runs(workspace, where="metrics.auc > 0.7 and params.trees = 3")] == ["01A"]
    with workspace.records.write() as connection:
        connection.execute(delete(values))
    assert [run.id for run in list_runs(workspace, where="metrics.auc > 0.7")] == ["01A"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(["auc", "rmse", "trees"]), st.sampled_from(sorted(SIGNS)),
            st.sampled_from([0.7, 1, 20, 100]), st.booleans(),
        ),
        min_size=1, max_size=4,
    ),
    joined=st.sampled_from(["and", "or"]),
)  # fmt: skip
def test_filters_agree_with_plain_python(filled, parts, joined):
    """In three values, on numbers; the oracle reads the stored runs one by one."""
    workspace, _ = filled
    texts = [f"{'not ' if no else ''}{'params' if field == 'trees' else 'metrics'}.{field} {sign} {number}"
             for field, sign, number, no in parts]  # fmt: skip

    def truth(run, field, sign, number, no):
        value = run.params.get(field) if field == "trees" else run.metrics.get(field)
        if not isinstance(value, int | float) or math.isnan(value):
            return None
        return SIGNS[sign](value, number) is not no

    def holds(run):
        truths = [truth(run, *part) for part in parts]
        return all(t is True for t in truths) if joined == "and" else any(t is True for t in truths)

    expected = [run.id for run in list_runs(workspace) if holds(run)]
    assert [run.id for run in list_runs(workspace, where=f" {joined} ".join(texts))] == expected


def test_a_metric_said_to_be_better_the_other_way_is_refused_before_anything_is_logged(make_project):
    """Its name says so, this run did, or an earlier one; the way that is known may be said again."""
    workspace = make_project()
    with open_run(workspace) as first:
        first.log_metric("euros", 9.0, better="lower")
        first.log_metric("euros", 8.0, better="lower")
        first.log_metric("auc", 0.7, better="higher")
        for name in ("euros", "auc"):
            with pytest.raises(InputError, match="better the way that is known"):
                first.log_metric(name, 1.0, better="lower" if name == "auc" else "higher")
        first.log_metric("bias", 1.0, better="lower")  # right at one value, unless somebody says otherwise
    with open_run(workspace) as second, pytest.raises(InputError, match="got \"better='higher' where it is 'lower'\""):
        second.log_metric("euros", 9.0, better="higher")
    assert get_run(workspace, first.ref).values("test") == {"euros": 8.0, "auc": 0.7, "bias": 1.0}
    assert get_run(workspace, second.ref).values("test") == {}
