"""What a pipeline is made of is checked where it is written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learning.pipeline.project import write

from retrodict import Pipeline, step
from retrodict.core.errors import DefinitionError, InputError
from retrodict.learning.pipeline.partitions import FORMATS, last_over, partition_range


@step
def raw():
    """Rows."""
    return [1]


@step(retries=3, timeout="10m", memory="2GB")
def cleaned(raw, threshold: float = 0.5):
    """Some of them."""
    return [n for n in raw if n > threshold]


@step
def judged(cleaned):
    """Whether they suffice."""
    return len(cleaned)


def test_arguments_name_the_steps_that_are_needed() -> None:
    """In any order of writing; a default is a parameter."""
    pipeline = Pipeline("p", [judged, cleaned, raw])
    assert pipeline.graph() == {"raw": [], "cleaned": ["raw"], "judged": ["cleaned"]}
    assert dict(cleaned.params) == {"threshold": 0.5}
    assert (cleaned.retries, cleaned.timeout, cleaned.memory) == (3, "10m", "2GB")
    assert cleaned([0.2, 0.7]) == [0.7]  # still a function


def test_nouns_need_what_they_read() -> None:
    """A table that a step fills comes before those that read it, an audit after everything."""
    reader = step(name="reader")(reads_flights)
    steps = [step.audit(), reader, step.ingest("flights", cleaned), cleaned, raw, step.ingest("planes", "planes.csv")]
    graph = Pipeline("p", steps).graph()
    assert graph["ingest_flights"] == ["cleaned"]
    assert graph["reader"] == ["ingest_flights"]
    assert set(graph["audit"]) == set(graph) - {"audit"}


def reads_flights(flights):
    return flights.num_rows


@step
def part(partition):
    """Takes a partition."""
    return partition


@step
def head(tail):
    """Needs the end."""
    return tail


@step
def tail(head):
    """Needs the beginning."""
    return head


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pipeline("p", [head, tail]), r"must not need each other in a circle; got '(head|tail) → "),
        (lambda: Pipeline("p", [raw, raw]), r"each with a name of its own; got \['raw'\]"),
        (lambda: Pipeline("p", [lambda: 1]), r"must be made by step"),
        (lambda: Pipeline("p", []), r"must be made by step"),
        (lambda: Pipeline("p", [step(name="x", after=("rav",))(reads_flights), raw]), r"Did you mean the step 'raw'"),
        (lambda: step(retrys=3), r"Did you mean the option 'retries'"),
        (lambda: step(retries=-1)(reads_flights), r"retries must be a whole number from 0 to 1000; got -1"),
        (lambda: step(memory="2 gigs")(reads_flights), r"Write it like '2GB'"),
        (lambda: step(timeout="soon")(reads_flights), r"a duration must be"),
        (lambda: step(lambda n: n), r"must be a function at the top of a module"),
        (lambda: cleaned.using(treshold=1), r"Did you mean the parameter 'threshold'"),
        (lambda: cleaned.using(threshold=object()), r"a parameter of a step must be plain"),
        (lambda: Pipeline("p", [raw], schedule="0 25 * * *"), r"five fields of cron"),
        (lambda: Pipeline("p", [raw], schedule="0 3 * * *", timezone="Mars/Base"), r"known time zone"),
        (lambda: Pipeline("p", [raw], schedule="0 0 30 2 *"), r"that some time meets"),
        (lambda: Pipeline("p", [raw], schedule="30 0 3 * * *"), r"five fields of cron"),
        (lambda: Pipeline("p", [part], partitions=[]), r"partitions must be names, each once; got \[\]"),
        (lambda: Pipeline("p", [part], partitions=["a", "a"]), r"partitions must be names, each once"),
        (lambda: Pipeline("p", [part], partitions=[1, 2]), r"a partition must be a text of one line; got 1"),
        (lambda: Pipeline("p", [part], partitions=["a", ""]), r"a partition must be a text of one line; got ''"),
        (lambda: Pipeline("p", [part], partitions=["a\0b"]), r"a partition must be a text of one line"),
        (lambda: Pipeline("p", [part], partitions=["a\nb"]), r"a partition must be a text of one line"),
        (lambda: Pipeline("p", [part], partitions=["x" * 71]), r"Write 1 to 70 characters"),
        (lambda: Pipeline("p", [raw], partitions="month"), r"exactly where a step takes one"),
        (lambda: Pipeline("p", [step.ingest("flights", "{partition}.csv")]), r"exactly where a step takes one"),
        (lambda: Pipeline("p", [step.ingest("flights", "{partition}.csv")], partitions="mnth"), r"the kind 'month'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_where_it_is_written(make, message) -> None:
    """With what must hold, and the near names."""
    with pytest.raises((DefinitionError, InputError), match=message):
        make()


def test_an_argument_that_nobody_provides_is_refused_with_the_near_names(tmp_path) -> None:
    """Among the steps and the tables of the project; the error names the line."""
    text = """
from retrodict import Pipeline, Table, step
flights = Table("flights", key="id")

@step
def cleaned(fligths):
    return 1

@step
def late(cleand):
    return 1

nightly = Pipeline("nightly", [{}])
"""
    for steps, near in (("cleaned", "'flights'"), ("cleaned, late", "'flights'"), ("late", "There|Known|flights")):
        project = write(tmp_path, text.replace("{}", steps))
        with pytest.raises(DefinitionError, match=rf"definitions.py:13: pipeline nightly, step \w+: .*{near}"):
            _ = project.definitions
    with pytest.raises(DefinitionError, match="Did you mean the step or table 'cleaned'"):
        _ = write(tmp_path, text.replace("{}", "late, cleaned").replace("fligths", "flights")).definitions
    noun = text.replace("{}", "late, step.audit(), step.replay('cleaner'), step.build()").replace("cleand", "replay")
    with pytest.raises(
        DefinitionError, match=r"Did you mean the step or table 'replay_cleaner'|Known: 'replay_cleaner'"
    ):
        _ = write(tmp_path, noun).definitions


def test_a_noun_that_is_not_defined_is_refused_before_anything_runs(tmp_path) -> None:
    """With the near names."""
    text = "from retrodict import Pipeline, step\nnightly = Pipeline('nightly', [step.train('late')])\n"
    project = write(tmp_path, text)
    with pytest.raises(InputError, match=r"the project must define this model; got 'late'"):
        project.pipelines.run("nightly")


MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1))  # noqa: DTZ001  # the zone is put on later


@st.composite
def graphs(draw):
    """Numbered steps, each needing some of the earlier ones."""
    size = draw(st.integers(1, 8))
    return [draw(st.sets(st.integers(0, n - 1))) if n else set() for n in range(size)], draw(
        st.permutations(range(size))
    )


@given(graphs())
def test_the_order_is_one_in_which_everything_is_there(graph) -> None:
    """However the steps are written down: as a plain topological sort of the same edges has it."""
    needs, order = graph
    steps = [step(name=f"s{n}", after=tuple(f"s{need}" for need in needs[n]))(_nothing) for n in order]
    planned = Pipeline("p", steps).graph()
    assert {name: set(names) for name, names in planned.items()} == {
        f"s{n}": {f"s{need}" for need in needs[n]} for n in range(len(needs))
    }
    seen: set[str] = set()
    for name, names in planned.items():
        assert set(names) <= seen
        seen.add(name)
    assert set(TopologicalSorter(planned).static_order()) == seen


def _nothing():
    return None


@given(st.sampled_from(sorted(FORMATS)), MOMENTS, st.integers(0, 40))
@settings(deadline=None, max_examples=40)
def test_partitions_follow_each_other_without_a_gap(kind, moment, more) -> None:
    """Each of a range is the one that is over when the next begins; counted hour by hour by an oracle."""
    moment = moment.replace(tzinfo=UTC)
    first, end = (
        moment.strftime(FORMATS[kind]),
        moment + timedelta(hours=more * {"hour": 1, "day": 24, "month": 700, "year": 2000}[kind]),
    )
    names = partition_range(kind, f"{first}..{end.strftime(FORMATS[kind])}", where="test")
    hours = {
        (moment + timedelta(hours=n)).strftime(FORMATS[kind])
        for n in range(int((end - moment).total_seconds() // 3600) + 1)
    }
    assert names == sorted(hours | {end.strftime(FORMATS[kind])})
    for earlier, later in pairwise(names):
        assert last_over(kind, datetime.strptime(later, FORMATS[kind]).replace(tzinfo=UTC)) == earlier


@pytest.mark.parametrize("text", ["2013-1", "2013-13", "2013-05-01", "", "2013-06..2013-05", "x..y"])
def test_a_partition_that_is_none_is_refused(text) -> None:
    """With an example."""
    with pytest.raises(InputError, match="Write it like"):
        partition_range("month", text, where="backfill")


def test_a_schedule_keeps_to_the_clock_of_its_place() -> None:
    """Three in the morning of Berlin, in winter and in summer."""
    pipeline = Pipeline("p", [raw], schedule="0 3 * * *", timezone="Europe/Berlin")
    assert pipeline.next_time(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1, 2, tzinfo=UTC)
    assert pipeline.next_time(datetime(2026, 7, 1, tzinfo=UTC)) == datetime(2026, 7, 1, 1, tzinfo=UTC)


def test_the_version_of_a_pipeline_is_its_content() -> None:
    """Another parameter is another version; an owner is none."""
    first = Pipeline("p", [raw, cleaned])
    assert first.version == Pipeline("p", [raw, cleaned], owner="ops").version
    assert first.version != Pipeline("p", [raw, cleaned.using(threshold=0.6)]).version
