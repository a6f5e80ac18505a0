"""What happened after a decision: the other side of a feature, with nothing between them and nothing twice."""

import pyarrow as pa
import pytest

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.sources import Source
from retrodict.features import Entity, FeatureSet, FeatureView, Window, agg
from retrodict.features.offline import training_frame
from retrodict.features.offline.outcomes import Outcome, outcome_frame
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
    with pytest.raises(DefinitionError, match="outcome 'n': the horizon of an outcome is one plain window"):
        Outcome("n", Entity("k1"), SOURCE, agg.count(over=over))


def test_a_name_that_is_taken_is_refused():
    """A column of the spine is never replaced."""
    with pytest.raises(InputError, match="no column with an outcome's name; got 'spent'"):
        outcome_frame(SPINE.append_column("spent", SPINE["q"]), "q", _outcome(), {"s": EVENTS}, as_of=0)
