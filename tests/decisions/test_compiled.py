"""The compiled policy: rules first, thresholds in order, unknown never fires."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.conftest import MODEL

from retrodict.core.errors import DefinitionError
from retrodict.data.definitions import Table
from retrodict.decisions.compiled import CompiledPolicy, PolicyDecision
from retrodict.decisions.definitions import Policy, Rule
from retrodict.features.labels import Label

FEATURES = ["weather_now__latest_visib", "origin__count_2h", "carrier__count_2h"]


def compiled(*rules: Rule) -> CompiledPolicy:
    policy = Policy("p", MODEL, decide={"warn": "score >= 0.6", "look": "score >= 0.3", "ok": "otherwise"}, rules=rules)
    return CompiledPolicy(policy, FEATURES, ["origin"])


@given(st.floats(0, 1))
def test_thresholds_decide_in_order(score):
    """The first condition that holds decides, the last one always does."""
    expected = "warn" if score >= 0.6 else "look" if score >= 0.3 else "ok"
    assert compiled().decide({}, {"score": score}) == PolicyDecision(expected)


def test_a_rule_decides_before_the_score():
    """A rule that fires decides with its reason, whatever the score."""
    policy = compiled(Rule("fog", when="visib < 0.25", then="warn", reason="Fog"))
    assert policy.decide({"weather_now__latest_visib": 0.1}, {"score": 0.0}) == PolicyDecision("warn", "fog", "Fog")


@pytest.mark.parametrize("values", [{}, {"weather_now__latest_visib": None}])
def test_a_rule_on_an_unknown_value_does_not_fire(values):
    """Null is unknown, and unknown is not true."""
    policy = compiled(Rule("fog", when="visib < 0.25", then="warn", reason="Fog"))
    assert policy.decide(values, {"score": 0.0}) == PolicyDecision("ok")


def test_rules_are_looked_at_in_order():
    """Of two rules that fire, the first one decides."""
    first = Rule("first", when="origin = 'JFK'", then="look", reason="a")
    second = Rule("second", when="score < 2", then="warn", reason="b")
    assert compiled(first, second).decide({"origin": "JFK"}, {"score": 0.5}).rule == "first"
    assert compiled(second, first).decide({"origin": "JFK"}, {"score": 0.5}).rule == "second"


def test_a_rule_without_a_score_uses_null():
    """In a fallback the score is unknown: a rule on it does not fire, the others do."""
    policy = compiled(
        Rule("high", when="score > 0", then="warn", reason="a"), Rule("fog", when="visib < 1", then="look", reason="b")
    )
    assert policy.by_rules({"weather_now__latest_visib": 0.5}, {}) == PolicyDecision("look", "fog", "b")


def test_an_ambiguous_name_is_refused():
    """Two features share the short name: the error lists the full ones."""
    with pytest.raises(
        DefinitionError,
        match=r"must mean one value; got 'count_2h'. Write one of 'origin__count_2h', 'carrier__count_2h'",
    ):
        compiled(Rule("busy", when="count_2h > 3", then="ok", reason="x"))


def test_an_unknown_name_is_refused_with_near_names():
    """A rule on a name that does not exist is found when the policy is compiled."""
    with pytest.raises(DefinitionError, match="visib"):
        compiled(Rule("fog", when="visibb < 1", then="ok", reason="x"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"decide": {"warn": "score >= 0.6"}}, "otherwise"),
        ({"decide": {"ok": "otherwise", "warn": "score > 1"}}, "otherwise"),
        ({"decide": {"warn": "visib > 1", "ok": "otherwise"}}, "must read score"),
        ({"fallback": ["previous"]}, "previous_version"),
        ({"rules": [Rule("r", when="score > 1", then="wran", reason="x")]}, "'warn'"),
        ({"deadline": "fast"}, "deadline"),
        ({"model": None}, "must have a model"),
    ],
)
def test_a_policy_that_could_end_without_a_decision_is_refused(changes, text):
    """Each mistake is named when the definition is made."""
    given_ = {"name": "p", "model": MODEL, "decide": {"warn": "score >= 0.6", "ok": "otherwise"}, **changes}
    with pytest.raises(ValueError, match=text):
        Policy(**given_)


@given(st.floats(0, 1))
def test_a_decision_for_never_is_made_by_rules_alone(score):
    """No score reaches it, whatever its place among the decisions."""
    decide = {"hold": "never", "warn": "score >= 0.6", "ok": "otherwise"}
    rule = Rule("fog", when="visib < 0.25", then="hold", reason="Fog")
    policy = CompiledPolicy(Policy("p", MODEL, decide=decide, rules=[rule]), FEATURES, ["origin"])
    assert policy.decide({"weather_now__latest_visib": 1.0}, {"score": score}).decision == (
        "warn" if score >= 0.6 else "ok"
    )
    assert policy.decide({"weather_now__latest_visib": 0.1}, {"score": score}).decision == "hold"


def test_conditions_and_rules_read_outputs_of_any_name():
    """Each output by its name, of classes as ``p["name"]`` in either quotes; an unknown one has near names."""
    label = Label("outcome", Table("flights", key="id"), "outcome", known_at="seen")
    decide = {"call": """p["late"] >= 0.5 or p['very late'] > 0.2""", "wait": "otherwise"}
    rule = Rule("sure", when='p["on time"] > 0.9', then="wait", reason="sure")
    policy = Policy("p", replace(MODEL, label=label, task="multiclass"), decide=decide, rules=[rule])
    names = ('p["late"]', 'p["on time"]', 'p["very late"]')
    chosen = CompiledPolicy(policy, [], [], names)
    assert chosen.decide({}, dict(zip(names, (0.1, 0.6, 0.3), strict=True))).decision == "call"
    assert chosen.decide({}, dict(zip(names, (0.1, 0.8, 0.1), strict=True))).decision == "wait"
    assert chosen.decide({}, dict(zip(names, (0.04, 0.95, 0.01), strict=True))).rule == "sure"
    with pytest.raises(DefinitionError, match="must read outputs of the model and nothing else"):
        CompiledPolicy(policy, [], [], names[:2])
