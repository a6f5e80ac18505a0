"""Training frames on Spark, in a local session: equal to the training frame, value for value."""

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from retrodict.core.errors import InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.derived import derived
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet
from retrodict.features.spark import training_frame_on_spark
from retrodict.testing import feature_worlds as worlds
from retrodict.testing.spark import local_session, spark_missing

MINUTE, BASE, TIME = worlds.MINUTE, worlds.BASE, worlds.TIME
HOUR = 60 * MINUTE

needs_spark = pytest.mark.skipif(spark_missing() is not None, reason=spark_missing() or "")
# pyspark asks for an older pandas than there is; nothing here uses pandas.
on_spark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")


def _numbered(table, name):
    return table.append_column(name, pa.array(range(table.num_rows), pa.int64()))


def _same(features, found, frame):
    """Value for value, bit for bit, and of the same types."""
    differing = [
        name
        for name in features.columns
        if repr(found[name].to_pylist()) != repr(frame.column(name).to_pylist())
        or found[name].type != frame.schema.field(name).type
    ]
    assert differing == []


def _cards(events=20_000, requests=3_000):
    """Payments of 300 cards over a month, a third known late, some delivered twice; and requests for 330 cards."""
    draw, second = np.random.default_rng(3), 1_000_000
    at = BASE + draw.integers(0, 30 * 86_400, events) * second
    late = draw.integers(0, 3_600, events) * second * (draw.random(events) < 0.3)
    kinds = ["shop", "café", "air"]
    table = pa.table(
        {
            "card": pa.array(draw.integers(0, 300, events), pa.int64()),
            "at": pa.array(at, TIME),
            "seen": pa.array(at + late, TIME),
            "id": [f"e{number:05d}" for number in draw.integers(0, events, events)],
            "amount": pa.array(np.round(draw.lognormal(3, 1.5, events), 2), mask=draw.random(events) < 0.03),
            "merchant": draw.choice(kinds, events),
        }
    )
    again = table.take(pa.array(draw.integers(0, events, events // 50)))
    later = pc.add(again.column("seen"), pa.scalar(HOUR, pa.duration("us")))
    table = pa.concat_tables([table, again.set_column(2, "seen", later)])
    spine = pa.table(
        {
            "row": pa.array(range(requests)),
            "card": pa.array(draw.integers(0, 330, requests), pa.int64()),
            "q": pa.array(BASE + draw.integers(0, 33 * 86_400, requests) * second, TIME),
            "amount": draw.lognormal(3, 1.5, requests),
        }
    )
    source = Source("s", worlds.table, event_time="at", known_at="seen", sequence="id")
    over = ["1h", "24h", Window("30d", hop="1h"), Window("7d", offset="7d")]
    over += [Window.calendar("day", zone="America/New_York", before=1), Window.calendar("week", zone="Europe/Berlin")]
    features = [
        agg.count(over=over),
        agg.sum("amount", over=over),
        agg.mean("amount", over=over),
        agg.max("amount", over=over),
        agg.sum("amount * hour(at) / 7", over=over),
        agg.std("amount", over="7d"),
        agg.share("merchant = 'air'", over=over),
        agg.sum("amount", over=Window("1h", include_current=True), where="amount > 10"),
        latest("merchant", "amount", max_age="3d"),
    ]
    return FeatureSet([FeatureView("card", Entity("card"), source, features)]), spine, {"s": table}


@pytest.fixture(scope="module")
def session():
    found = local_session("America/New_York")  # the zone of the session must not matter
    yield found
    found.stop()


def _difference(first, second):
    return first - second


@derived
def spread(x: float, a__mean_x_lifetime, a__min_x_lifetime):
    """A function of the request and of two features, with a helper of this module, which no worker can import."""
    return {"below": _difference(a__mean_x_lifetime, a__min_x_lifetime), "above": _difference(x, a__mean_x_lifetime)}


def _world():
    """Four views of three sources, keys and clocks, with every total; and two hundred ragged events."""
    draw = np.random.default_rng(11)
    pick = lambda *values: values[draw.integers(len(values))]  # noqa: E731
    events = [
        {
            "k1": pick(*"aaaaaab", "", None),
            "k2": pick(1, 1, 1, 12, None),
            "e": pick(None, *[BASE + int(draw.integers(15)) * MINUTE + pick(0, 0, 1, -1) for _ in range(9)]),
            "late": pick(0, 0, 1, 2, 5, 13, -4, None),
            "seq": int(draw.integers(5)),
            "x": pick(None, 0.1, 0.2, -0.0, 1e9, float("nan"), float("inf"), float(draw.normal()), 15.5),
            "n": pick(None, int(draw.integers(-5, 5)), 2**53),
            "ok": pick(None, True, False),
            "tag": pick("p", "q", "é", None),
            "vec": pick(None, [1.0, 0.1], [2.0, float("nan")], [0.2, -7.0], [3.0]),
        }
        for _ in range(200)
    ]
    queries = [
        {
            "k1": pick(*"aaab", "zz", None),
            "k2": pick(1, 1, 12, 99, None),
            "q": BASE + int(draw.integers(-1, 30)) * MINUTE + pick(0, 1, -1),
            "x": pick(None, 0.1, -0.0, float("nan")),
            "ok": pick(None, True, False),
        }
        for _ in range(40)
    ]
    spine = _numbered(worlds.spine_table(queries), "row")
    days = pa.array([date(2013, 8, 31)] * spine.num_rows)
    tables = {"s": worlds.events_table(events), "n": worlds.events_table(events), "r": worlds.revisions_table(events)}
    return spine.append_column("day", days), tables


def _sets():
    plain = Source("s", worlds.table, event_time="e", known_at="k", sequence="sid", where="ok or ok is null")
    unnumbered = Source("n", worlds.table, event_time="e", delay="3m")
    revised = replace(worlds.REVISED, name="r")
    over, moved = ["7m", "lifetime"], Window("10m", offset="6m", hop="4m")
    current = Window("9m", include_current=True)
    newest = latest("x", "tag", max_age="12m"), latest("n", "ok", "e")
    picked = agg.argmax("tag", by="x", over=over), agg.top_k("n", 2, by="tag", over=over), agg.mode("tag", over=over)
    return [
        FeatureView("a", Entity("thing", keys=["k1", "k2"]), plain, [*worlds.totals(over), *newest]),
        FeatureView("b", Entity("k1"), unnumbered, [agg.sum("n", over=moved), agg.skew("x", over=moved), *newest]),
        FeatureView("f", Entity("k1"), revised, [*picked, agg.mean_list("vec", 2, over=over)]),
        FeatureView("c", Entity("k2"), revised, [*worlds.totals(["20m"]), agg.rate(over="7m", per="1m"), *newest]),
        FeatureView("d", Entity("k1"), plain, [agg.sum("x", over=current), agg.max("x", over=current, where="ok")]),
        FeatureView("e", None, plain, [agg.sum("n", over=moved), agg.median("x", over="20m"), *newest]),
        spread,
    ]


def _on_spark(session, spine, features, tables):
    frames = {name: session.createDataFrame(table) for name, table in tables.items()}
    frame = training_frame_on_spark(session, session.createDataFrame(spine).repartition(2), "q", features, frames)
    assert frame.columns == [*spine.column_names, *features.columns]
    found = frame.toArrow().sort_by("row")
    assert found.select(["row", "k1"]) == spine.select(["row", "k1"]) if "k1" in spine.column_names else True
    return {name: found.column(name).combine_chunks() for name in features.columns}


@pytest.mark.slow
@needs_spark
@on_spark
@pytest.mark.timeout(600)
def test_spark_equals_the_training_frame(session):
    """Views of several keys, clocks and kinds of source, null keys and a derived feature, in a session not in UTC."""
    spine, tables = _world()
    features = FeatureSet(_sets())
    _same(features, _on_spark(session, spine, features, tables), training_frame(spine, "q", features, tables))


@pytest.mark.slow
@needs_spark
@on_spark
@pytest.mark.timeout(600)
def test_spark_equals_it_on_a_month_of_payments(session):
    """Twenty thousand events, three thousand requests, prices in cents: no value differs."""
    features, spine, tables = _cards()
    _same(features, _on_spark(session, spine, features, tables), training_frame(spine, "q", features, tables))


@pytest.mark.slow
@needs_spark
@on_spark
def test_spark_computes_functions_of_the_window(session):
    """Lists, maps, quantiles and decays, looked up by other columns of the request."""
    spine, tables = _world()
    spine = spine.rename_columns([{"k1": "who"}.get(name, name) for name in spine.column_names])
    source = Source("s", worlds.table, event_time="e", known_at="k", sequence="seq")
    features = FeatureSet([FeatureView("v", Entity("k1"), source, worlds.bags(["20m"])).keyed(name="v", k1="who")])
    _same(features, _on_spark(session, spine, features, tables), training_frame(spine, "q", features, tables))


@pytest.mark.slow
@needs_spark
@on_spark
def test_mistakes_are_named_before_anything_runs(session):
    """A missing column and a missing source are errors of ours, not of Spark."""
    spine, tables = _world()
    asked, events = session.createDataFrame(spine), session.createDataFrame(tables["s"])
    view = FeatureView("v", Entity("k1"), Source("s", worlds.table, event_time="e"), [agg.sum("x", over="1h")])
    features = FeatureSet([view])
    with pytest.raises(InputError, match=r"column must exist.*got 'x'"):
        training_frame_on_spark(session, asked, "q", features, {"s": events.drop("x")})
    with pytest.raises(InputError, match=r"every source must have a data frame.*got 's'"):
        training_frame_on_spark(session, asked, "q", features, {})


# -- a project's tables ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_spark
@on_spark
@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_project_is_computed_from_its_files(session, tmp_path, monkeypatch, where):
    """Ties of a source without sequence break by place in the table, however Spark shares out its files; in pieces."""
    from pyarrow.fs import S3FileSystem

    from retrodict.features.offline.work import local_work
    from retrodict.features.spark import work
    from retrodict.workspace import Workspace

    (tmp_path / "retrodict.toml").write_text('[project]\nname = "far"\n')
    monkeypatch.setattr(work, "_TOGETHER", 30)
    if where == "bucket":  # its files are not read by the workers
        monkeypatch.setattr(work, "LocalFileSystem", S3FileSystem)
    source = Source("s", worlds.table, event_time="e")
    view = FeatureView("v", Entity("k1"), source, [latest("n"), agg.last_k("n", 5, over="1h"), agg.sum("x", over="1h")])
    features, spine = FeatureSet([view]), _world()[0]
    with Workspace(tmp_path) as project:
        for place, size in enumerate([3, 400, 7, 90]):  # Spark would begin with the largest
            rows = [{"k1": "ab"[i % 2], "e": BASE, "n": place * 1000 + i, "x": i / 10} for i in range(size)]
            project.tables.write(worlds.table.name, pa.Table.from_pylist(rows, schema=worlds.EVENTS))
        near = pa.concat_tables(local_work(project, "q", features).batches(spine))
        with work.spark_work(project, "q", features) as far:
            found = list(far.batches(spine))
    assert [piece.num_rows for piece in found] == [30, 10]
    assert pa.concat_tables(found).schema == near.schema
    assert repr(pa.concat_tables(found).to_pylist()) == repr(near.to_pylist())


@pytest.mark.slow
@needs_spark
@on_spark
def test_what_a_worker_says_is_said(session, tmp_path):
    """A mistake in rows that only a worker sees comes back with our words, and the session of the caller stays."""
    from retrodict.features.spark.work import spark_work
    from retrodict.workspace import Workspace

    (tmp_path / "retrodict.toml").write_text('[project]\nname = "far"\n')
    source = Source("s", worlds.table, event_time="e", sequence="seq")
    features = FeatureSet([FeatureView("v", Entity("k1"), source, [latest("n")])])
    with Workspace(tmp_path) as project:
        rows = [{"k1": "a", "e": BASE, "seq": None, "n": 1}]
        project.tables.write(worlds.table.name, pa.Table.from_pylist(rows, schema=worlds.EVENTS))
        with (
            spark_work(project, "q", features) as work,
            pytest.raises(
                InputError, match=r"engine spark: .*sequence of an event must be a whole number or text.*1 nulls"
            ),
        ):
            list(work.batches(_world()[0]))
    assert session.range(3).count() == 3
