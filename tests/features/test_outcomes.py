"""What happened after a decision: the other side of a feature, with nothing between them and nothing twice."""

import pyarrow as pa
import pytest

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.definitions import Table
from retrodict.data.sources import Source
from retrodict.features import Entity, FeatureSet, FeatureView, Window, agg
from retrodict.features.labels import Outcome
from retrodict.features.offline import training_frame
from retrodict.features.offline.outcomes import outcome_frame, outcome_labels
from retrodict.models.definitions import Model, Recipe
from retrodict.models.splits import TimeSplit
from retrodict.testing import feature_worlds as worlds

MINUTE = worlds.MINUTE
TIME = pa.timestamp("us", "UTC")
SOURCE = Source("s", worlds.table, event_time="e", known_at="k")
EVENTS = pa.table(
    {
        "k1": ["a", "a", "a", "b"],
        "e": pa.array([10 * MINUTE, 20 * MINUTE, 30 * MINUTE, 20 * MINUTE], TIME),
        "k": pa.array([10 * MINUTE, 35 * MINUTE, 30 * MINUTE, 20 * MINUTE], TIME),
        "x": [1.0, 2.0, 4.0, 8.0],
    }
)
SPINE = pa.table({"k1": ["a", "b", "a"], "q": pa.array([20 * MINUTE, 20 * MINUTE, 30 * MINUTE], TIME)})


def _outcome(wait=None):
    return Outcome("spent", Entity("k1"), SOURCE, agg.sum("x", over="10m"), wait=wait)


def test_an_outcome_is_what_happens_from_the_decision_on():
    """The event at the decision counts, the one at the end of the horizon does not; late facts need the wait."""
    plain = outcome_frame(SPINE, "q", _outcome(), {"s": EVENTS}, as_of=10**15)
    assert plain.column("spent").to_pylist() == [None, 8.0, 4.0]
    waited = outcome_frame(SPINE, "q", _outcome("6m"), {"s": EVENTS}, as_of=10**15)
    assert waited.column("spent").to_pylist() == [2.0, 8.0, 4.0]
    assert waited.column("spent_known_at").cast(pa.int64()).to_pylist() == [36 * MINUTE, 36 * MINUTE, 46 * MINUTE]
    assert waited.select(SPINE.column_names).equals(SPINE)


def test_what_has_not_matured_is_null():
    """An outcome is known only once its horizon and its wait are over."""
    found = outcome_frame(SPINE, "q", _outcome("6m"), {"s": EVENTS}, as_of=36 * MINUTE)
    assert found.column("spent").to_pylist() == [2.0, 8.0, None]
    assert found.column("spent_known_at").null_count == 1


def test_feature_and_outcome_share_every_fact_once():
    """Before q is the feature, from q on the outcome: together they are the window around q."""
    before = training_frame(
        SPINE, "q", FeatureSet([FeatureView("v", Entity("k1"), SOURCE, [agg.count(over="10m")])]), {"s": EVENTS}
    )
    counted = Outcome("n", Entity("k1"), SOURCE, agg.count(over="10m"), wait="1h")
    after = outcome_frame(SPINE, "q", counted, {"s": EVENTS}, as_of=10**15)
    assert before.column("v__count_10m").to_pylist() == [1, 0, 0]
    assert after.column("n").to_pylist() == [1, 1, 1]


@pytest.mark.parametrize("over", ["lifetime", ["1h", "2h"], Window("1h", hop="5m"), Window("1h", offset="1h")])
def test_a_horizon_is_one_plain_window(over):
    """Anything else has no meaning after a decision."""
    with pytest.raises(DefinitionError, match="outcome 'n': the horizon of an outcome must be one plain window"):
        Outcome("n", Entity("k1"), SOURCE, agg.count(over=over))


def test_a_name_that_is_taken_is_refused():
    """A column of the spine is never replaced."""
    with pytest.raises(InputError, match="no column with an outcome's name; got 'spent'"):
        outcome_frame(SPINE.append_column("spent", SPINE["q"]), "q", _outcome(), {"s": EVENTS}, as_of=0)


LOANS = Table("loans", key="id")


def _label(aggregate=None, **more):
    return Outcome("n", Entity("k1"), SOURCE, aggregate or agg.count(over="1h"), **more)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: _label(table=LOANS), "'n': .*both a table and an expression.*'no expression'.*count_1h > 0"),
        (lambda: _label(expression="count_1h > 0"), "got 'no table'"),
        (lambda: _label(table="loans", expression="count_1h > 0"), "a label must be of a table.*'str'.*not its name"),
        (lambda: _label(table=Table("t"), expression="count_1h > 0"), "the table of a label must have a key.*Say key="),
        (lambda: _label(table=LOANS, expression="count_2h > 0"), "got 'count_2h'. Did you mean the column 'count_1h'"),
        (lambda: _label(table=LOANS, expression="'yes'"), "a label must be true or false, or a number"),
        (lambda: _label(table=LOANS, expression="count_1h = 'x'"), "outcome 'n'.*values of one kind"),
        (
            lambda: _label(agg.last_k("x", 2, over="1h"), table=LOANS, expression="last_2_x_1h is null"),
            "a label must be made of one value, not of a list or a map; got 'last_k'.*agg.count",
        ),
        (
            lambda: Outcome("n", Entity("k1"), Source("s", worlds.table), agg.count(over="1h")),
            "outcome 'n', source 's': .*must have facts with a time; got 'count_1h'. Give the source event_time=",
        ),
        (lambda: Outcome("n", Entity("k1"), "s", agg.count(over="1h")), "a view must have one source"),
        (lambda: Outcome("n", Entity("k1"), SOURCE, "count"), "an outcome must be one aggregate; got 'str'"),
        (
            lambda: Model("m", label=_label(), decide_at="q", features=[_label().view],
                          recipe=Recipe("logistic", TimeSplit("2024-01-01/2024-02-01"))),
            "model m, outcome 'n': .*Add table=… and expression='count_1h > 0' to the outcome",
        ),
    ],
    ids=["no expression", "no table", "text", "no key", "near name", "number", "kinds", "list", "no clock", "no source",
         "no aggregate", "model"],
)  # fmt: skip
def test_what_cannot_be_a_label_is_refused_where_it_is_written(make, said):
    """Before there is any data, with the name of the outcome and what to write instead."""
    with pytest.raises(DefinitionError, match=said):
        make()


def test_labels_are_yes_no_or_nothing():
    """The expression over the aggregate by its name; where no fact gives a value there is no outcome."""
    outcome = _label(agg.max("x", over="10m", name="most"), table=LOANS, expression="most > 5")
    found = outcome_labels(SPINE, "q", outcome, {"s": EVENTS})
    assert found.column("label").to_pylist() == [None, True, False]
    assert found.column("known_at").cast(pa.int64()).to_pylist() == [30 * MINUTE, 30 * MINUTE, 40 * MINUTE]


def test_an_expression_that_does_not_fit_the_values_names_the_type():
    """What a column holds is known with the rows only; no value of them is told."""
    outcome = _label(agg.last("x", over="10m", name="final"), table=LOANS, expression="final")
    with pytest.raises(
        DefinitionError, match=r"outcome 'n': the expression 'final' .* got {'final': 'double'}"
    ) as error:
        outcome_labels(SPINE, "q", outcome, {"s": EVENTS})
    assert "8.0" not in str(error.value)
