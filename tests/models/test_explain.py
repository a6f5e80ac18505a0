"""Reasons: the strongest contributions, in the words of the definition, and never a failure for their wording."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from retrodict.core.errors import DefinitionError
from retrodict.core.tasks import Target
from retrodict.models import LinearEngine, ModelArtifact, NoCalibrator, check_words, explain_row, get_estimator
from retrodict.models.calibration import Unchanged
from retrodict.models.engines.linear import CategoryTerm, NumberTerm
from retrodict.testing.estimators import make_problem

VALUES = {"wind": 31.4159265, "visib": 2.0, "origin": "JFK", "month": 7, "tailnum": "N337JB"}


@pytest.fixture
def plain(spec) -> ModelArtifact:
    """A model whose contributions can be read off: wind +2.1.., visib -0.9, origin +0.5, month 0."""
    engine = LinearEngine(
        -1.0,
        (
            NumberTerm(10.0, 10.0, 1.0),
            NumberTerm(5.0, 10.0, 3.0),
            CategoryTerm((0.0, 0.5, 0.0), 0.25),
            CategoryTerm((0.0,) * 12, 0.0),
        ),
    )
    return ModelArtifact("late_arrival", spec, engine)


def test_reasons_come_strongest_first_and_leave_out_what_did_nothing(plain):
    """Size decides, not sign; month has no weight."""
    reasons = explain_row(plain, VALUES).reasons
    assert [(r.feature, r.direction) for r in reasons] == [
        ("wind", "raises"),
        ("visib", "lowers"),
        ("origin", "raises"),
    ]
    assert [r.contribution for r in reasons] == pytest.approx([2.14159265, -0.9, 0.5])
    assert [r.value for r in reasons] == [31.4159265, 2.0, "JFK"]


def test_reasons_can_be_asked_for_one_direction(plain):
    """An adverse decision is explained by what spoke against."""
    assert [r.feature for r in explain_row(plain, VALUES, toward="lowers").reasons] == ["visib"]
    assert [r.feature for r in explain_row(plain, VALUES, toward="raises", top=1).reasons] == ["wind"]


@pytest.mark.parametrize("top", [0, 2, 9])
def test_bias_reasons_and_rest_add_up_to_the_margin(spec, engine, top):
    """For every engine and any number of reasons."""
    told = explain_row(ModelArtifact("late_arrival", spec, engine), VALUES, top=top)
    assert len(told.reasons) <= top
    assert told.bias + sum(r.contribution for r in told.reasons) + told.rest == pytest.approx(told.margin, abs=1e-9)


def test_default_words_say_feature_value_and_direction(plain):
    """Numbers are shown to six digits."""
    texts = [r.text for r in explain_row(plain, VALUES).reasons]
    assert texts == ["wind = 31.4159 raises the score", "visib = 2 lowers the score", "origin = JFK raises the score"]


@pytest.mark.parametrize(
    ("task", "words"),
    [("binary", "the score"), ("regression", "the value"), ("count", "the value"), ("multiclass", 'p["'),
     ("quantile", "q50")],
)  # fmt: skip
def test_reasons_name_what_is_explained(task, words):
    """A number has no score: the value, the middle quantile, the likeliest class."""
    problem = make_problem(task, rows=200)
    if task == "quantile":
        target = Target("quantile", quantiles=(0.1, 0.5, 0.9))
        problem = replace(problem, train=replace(problem.train, target=target), validate=None)
    fitted = get_estimator("lightgbm").solve(replace(problem, params={"num_iterations": 5}, validate=None))
    model = ModelArtifact("m", problem.inputs, fitted.engine, Unchanged() if task != "binary" else NoCalibrator())
    values = {"wind": 30.0, "visib": None, "town": "t00001", "month": 3}
    texts = [reason.text for reason in explain_row(model, values).reasons]
    assert texts
    assert all(re.search(rf"(raises|lowers) {re.escape(words)}", text) for text in texts)


def test_a_definition_gives_its_own_words(plain):
    """With the value, the direction, other features and entity keys."""
    words = {"wind": "wind at {origin} {value:.0f} knots {direction} it for {tailnum}"}
    assert explain_row(plain, VALUES, words=words).reasons[0].text == "wind at JFK 31 knots raises it for N337JB"


@pytest.mark.parametrize(
    ("values", "words", "text"),
    [
        ({"origin": None}, "from {value}", "origin is not known, which raises the score"),
        ({}, "{value:.0f} min", "origin = JFK raises the score"),
        ({}, "{nobody}", "origin = JFK raises the score"),
        ({"tailnum": None}, "leg of {tailnum}", "origin = JFK raises the score"),
    ],
)
def test_words_that_cannot_be_filled_give_way_to_the_default(plain, values, words, text):
    """A missing or ill-fitting value never costs the decision its reason."""
    reasons = explain_row(plain, VALUES | values, words={"origin": words}).reasons
    assert next(r.text for r in reasons if r.feature == "origin") == text


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"wnid": "x"}, "belong to a feature.*'wind'"),
        ({"wind": "{valeu}"}, "a value at hand; got 'valeu'.*'value'"),
        ({"wind": "{value.__class__}"}, "a value at hand"),
        ({"wind": "{value[0]}"}, "a value at hand"),
        ({"wind": "{value"}, "words must be a format string"),
    ],
)
def test_wrong_words_are_refused_with_the_definition(words, rule):
    """Before anything is decided with them."""
    with pytest.raises(DefinitionError, match=rule):
        check_words(words, ["wind", "origin"])


def test_right_words_pass():
    """Own fields, features and keys at hand."""
    check_words({"wind": "{value:.0f} {feature} {direction} {origin} {tailnum}"}, ["wind", "origin"], ["tailnum"])
