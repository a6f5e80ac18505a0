"""Definitions name their features readably, hash by content and refuse what cannot be meant."""

import asyncio
import signal
import subprocess
import sys
import warnings

import numpy as np
import pyarrow as pa
import pytest

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.sources import Source
from retrodict.features import Entity, FeatureSet, FeatureView, Window, agg, derived, latest
from retrodict.features.facts.evaluation import derive_columns, derive_row
from retrodict.features.facts.times import Times
from retrodict.features.offline import training_frame
from retrodict.features.online import OnlineFeatures
from retrodict.testing import feature_worlds as worlds

SOURCE = Source("s", worlds.table, event_time="e")
LIMIT = 15


def _view(*features, source=SOURCE, name="v"):
    return FeatureView(name, Entity("k1"), source, features)


@pytest.mark.parametrize(
    ("feature", "names"),
    [
        (
            agg.mean("arr_delay", over=["2h", "24h", "7d"]),
            ["mean_arr_delay_2h", "mean_arr_delay_24h", "mean_arr_delay_7d"],
        ),
        (agg.share("arr_delay > 15", over="2h"), ["share_arr_delay_gt_15_2h"]),
        (agg.share("x >= -0.5", over="2h"), ["share_x_ge_minus_0_5_2h"]),
        (agg.count(over=["120m", "1d", "60m", "1h 30m"]), ["count_120m", "count_1d", "count_60m", "count_1h30m"]),
        (agg.count(over=Window("24h", hop="5m")), ["count_24h_hop_5m"]),
        (agg.count(over=Window("1h", include_current=True)), ["count_1h_with_current"]),
        (agg.sum("x", over="2h", where="dest = 'JFK'"), ["sum_x_where_dest_eq_jfk_2h"]),
        (agg.max("x", over=["1h", "2h"], name="top"), ["top_1h", "top_2h"]),
        (agg.max("x", over="1h", name="top"), ["top"]),
        (latest("arr_delay", "dest", max_age="24h"), ["latest_arr_delay", "latest_dest"]),
        (agg.count(over=["lifetime", Window("7d", offset="7d")]), ["count_lifetime", "count_7d_before_7d"]),
        (agg.sum("x", over=Window("7d", offset="7d", hop="1d")), ["sum_x_7d_before_7d_hop_1d"]),
        (agg.last_k("x", 5, over="1h"), ["last_5_x_1h"]),
        (agg.top_k("x", 3, over="1h"), ["top_3_x_1h"]),
        (agg.top_k("tag", 3, by="x", over="1h"), ["top_3_tag_by_x_1h"]),
        (agg.argmin("tag", by="x", over="1h"), ["argmin_tag_by_x_1h"]),
        (agg.mean_list("embedding", 64, over="1h"), ["mean_list_embedding_1h"]),
        (agg.quantile("x", 0.95, over="1h"), ["q95_x_1h"]),
        (agg.quantile("x", 0.999, over="1h"), ["q99p9_x_1h"]),
        (agg.ratio("paid", "billed", over="30d"), ["ratio_paid_to_billed_30d"]),
        (agg.rate(over="1h", per="60s"), ["rate_per_1m_1h"]),
        (agg.slope("x", over=["1h", "1d"]), ["slope_x_per_1h_1h", "slope_x_per_1h_1d"]),
        (agg.by("shop", "sum", "x", over="30d"), ["sum_x_by_shop_30d"]),
        (agg.by("shop", "count", over="30d"), ["count_by_shop_30d"]),
        (agg.decayed_sum("x", half_life="24h", over="7d"), ["decayed_sum_x_half_life_1d_7d"]),
        (agg.distinct("x", over="1h", approximate=True), ["approx_distinct_x_1h"]),
        (agg.time_since_last(over="30d", where="x > 1"), ["time_since_last_where_x_gt_1_30d"]),
    ],
)
def test_names_are_made_from_the_content(feature, names):
    """A column's name says what is in it."""
    assert feature.names() == names


def test_long_names_keep_their_ending_and_stay_apart():
    """A name beyond 63 letters is cut with a mark of its content, never silently to an equal one."""
    one, other = (
        agg.share(f"x > 1 and some_rather_long_column_name > {i} and another_long_name < 3", over="2h") for i in (1, 2)
    )
    assert one.names() != other.names()
    assert all(len(name) <= 63 and name.endswith("_2h") for name in (*one.names(), *other.names()))


def test_equal_content_is_equal_versions():
    """Spelling of durations, white space of conditions and descriptions do not change a version; content does."""
    one = _view(agg.share("x > 15", over="2h"))
    same = FeatureView(
        "v", Entity("k1"), SOURCE, [agg.share("x>15", over=["120m"], name="share_x_gt_15_2h")], description="d"
    )
    assert one.version == same.version
    assert one.version != _view(agg.share("x > 16", over="2h", name="share_x_gt_15_2h")).version
    assert one.version != _view(agg.share("x > 15", over=Window("2h", hop="1h"), name="share_x_gt_15_2h")).version


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _view(agg.count(over="2h"), agg.count(over="2h")), "every feature of a view must have a name of"),
        (lambda: agg.count(over=[]), "one or more windows, each of another span"),
        (lambda: agg.count(over=["2h", "120m"]), "one or more windows, each of another span"),
        (lambda: agg.count(over="0s"), "longer than nothing"),
        (lambda: agg.mean("", over="2h"), "agg.mean must take the name of a column"),
        (lambda: agg.share("x >", over="2h"), "agg.share"),
        (latest, "latest must name one or more columns"),
        (lambda: _view("count"), "view 'v': a view must hold aggregates and latest values; got 'str'"),
        (lambda: FeatureView("v", "k1", SOURCE, []), "view 'v': a view must have one entity"),
        (lambda: _view(agg.count(over="1h"), source=Source("s", worlds.table)), "'s': a window or an age must have"),
        (lambda: _view(agg.slope("x", over="lifetime"), source=Source("s", worlds.table)), "a window or an age must"),
        (lambda: agg.slope("x", over="1h", per="0s"), "agg.slope, per: a duration here must be text and longer than"),
        (lambda: Source("s", worlds.table, event_time="e", known_at="k", delay="1h"), "known_at or delay, not both"),
        (lambda: Source("s", worlds.table, delay="1h"), "a delay must count from an event time"),
        (lambda: Source("s", "flights", event_time="e"), "Pass the Table object, not its name"),
        (lambda: Entity("e", keys=["a", "a"]), "entity 'e': the keys of an entity must be different columns"),
        (lambda: _view(latest("x")).keyed(kk="dest"), "Did you mean the key 'k1'|Known: 'k1'"),
        (lambda: FeatureSet([_view(latest("x")), _view(latest("x"))]), "a name of its own; got 'v'"),
        (lambda: FeatureSet([_view(latest("x")), _view(latest("x"), source=Source("s", worlds.table), name="w")]),
         "one source name must mean one source"),
        (lambda: Window("lifetime", hop="1h"), "a lifetime must have no hop: it has no left edge to snap"),
        (lambda: Window("1h", offset="1h", include_current=True), "must not hold the request's own event"),
        (lambda: agg.rate(over=Window("1h", hop="5m")), "a rate must be over an exact window up to the decision"),
        (lambda: agg.top_k("x", 0, over="1h"), "agg.top_k: k must be a whole number from 1 to 1000; got 0"),
        (lambda: agg.argmax("x", by="", over="1h"), "agg.argmax must take the name of a column"),
        (lambda: agg.top_k("x", 2, by="y", over=Window("1h", include_current=True)), "agg.top_k: top_k must not take"),
        (lambda: agg.sum_list("x", 0, over="1h"), "agg.sum_list: size must be a whole number from 1 to 1000; got 0"),
        (lambda: agg.quantile("x", 1.5, over="1h"), "a quantile must be between 0 and 1"),
        (lambda: agg.by("shop", "median", "x", over="1h"), "a map must hold count, sum, mean, min or max"),
        (lambda: agg.by("shop", "count", "x", over="1h"), "count must read no column, the others one"),
        (lambda: agg.first("x", over=Window("1h", include_current=True)), "first must not take the request"),
        (lambda: Source("s", worlds.table, event_time="e", revised=True),
         "revisions of an event must share its sequence"),
        (lambda: Source("s", worlds.table, event_time="e", deleted="x = 1"),
         "a source that deletes events must have revisions"),
        (lambda: FeatureSet([SOURCE]), "a feature set must hold views and derived functions; got 'Source'"),
    ],
)  # fmt: skip
def test_mistakes_are_named_where_they_are(make, message):
    """Each error says the object, the rule and the remedy."""
    with pytest.raises(DefinitionError, match=message):
        make()


def test_definitions_load_nothing_heavy():
    """Importing what a definitions module needs loads no array library."""
    code = "import retrodict.features, sys; print([m for m in ('numpy', 'pyarrow', 'duckdb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _threshold(values):
    return values > LIMIT


@derived
def flags(q, x, tag: str):
    """Number, flag and text from a time, a number and a text."""
    return {
        "late": _threshold(x),
        "night": (q.to("Europe/Berlin").hour < 6),
        "upper": np.array([t and t.upper() for t in tag]),
    }


@derived(outputs=["twice"])
def twice(v__mean_x_1h):
    result = {}
    result["twice"] = v__mean_x_1h * 2
    return result


def test_derived_functions_give_columns_and_rows_alike():
    """One function, one meaning: the frame's row is the online value, nulls included."""
    features = FeatureSet([_view(agg.mean("x", over="1h")), flags, twice])
    spine = pa.table(
        {
            "k1": ["a"] * 3,
            "q": pa.array([worlds.BASE, worlds.BASE + 9 * 10**10, 5], worlds.TIME),
            "x": pa.array([20.0, None, -0.0]),
            "tag": pa.array(["p", None, "é"]),
        }
    )
    frame = training_frame(
        spine, "q", features, {"s": pa.table({"k1": ["a"], "e": pa.array([1], worlds.TIME), "x": [0.5]})}
    )

    class Keys:
        def get_many(self, keys):
            return [None] * len(keys)

    online = OnlineFeatures(features, Keys())
    for i, row in enumerate(spine.to_pylist()):
        request = {**row, "q": worlds.plain(row["q"])}
        read = online.read({"k1": "a"}, request, request["q"]).values
        assert list(read) == list(features.columns)
        for name in ("flags__late", "flags__night", "flags__upper"):
            assert repr(read[name]) == repr(frame.column(name)[i].as_py())
    assert frame.column("twice__twice").to_pylist() == [None, None, 1.0]
    assert frame.column("flags__late").to_pylist() == [1.0, 0.0, 0.0]
    assert features.request_columns == ("q", "x", "tag")


def test_the_version_of_a_function_is_its_code_and_its_helpers(tmp_path, monkeypatch):
    """Changing the body, a helper or a constant it names changes the version; an unrelated function does not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "from retrodict.features import derived\nK = 2\ndef help(x):\n    return x * K\ndef other():\n    return 1\n"
    text += "@derived\ndef f(x):\n    return {'y': help(x)}\n"
    versions = {}
    for name, changed in {
        "a": text,
        "b": text.replace("return 1", "return 3"),
        "c": text.replace("K = 2", "K = 3"),
        "d": text.replace("x * K", "x + K"),
        "e": text.replace("help(x)}", "help(x) + 1}"),
    }.items():
        (tmp_path / f"derived_{name}.py").write_text(changed)
        versions[name] = __import__(f"derived_{name}").f.version
    assert versions["a"] == versions["b"]
    assert len({versions[name] for name in "acde"}) == 4


def ratio(x, y):
    return x / y


def scalar_share(income, debt):
    if income <= 0:
        return {"y": 0.0}
    return {"y": debt / income}


def test_an_error_in_a_derived_function_names_its_line_and_how_it_is_called():
    features = FeatureSet([derived(scalar_share)])
    line = scalar_share.__code__.co_firstlineno + 1
    columns = pa.table({"income": [1.0, 2.0], "debt": [1.0, 2.0]})
    with pytest.raises(DefinitionError, match=f"test_definitions.py:{line}: .*called with") as it:
        derive_columns(features, columns, {})
    assert "got 'ValueError'" in str(it.value)
    assert "np.where" in str(it.value)
    row: dict[str, object] = {}
    derive_row(features, {"income": 4.0, "debt": 2.0}, row)
    assert row == {"scalar_share__y": 0.5}
    with pytest.raises(DefinitionError, match="got 'ZeroDivisionError'") as it:
        derive_columns(FeatureSet([derived(broken_helper)]), columns, {})
    assert f"test_definitions.py:{ratio_of.__code__.co_firstlineno + 1}: " in str(it.value)


def ratio_of(x):
    return x.size / 0


def broken_helper(income):
    return {"y": ratio_of(income)}


def where_share(debt, income):
    return {"y": np.where(income > 0, debt / income, np.nan)}


def test_a_condition_written_as_the_documents_say_warns_of_nothing():
    """Both sides of np.where are worked out: its warnings would fill the log of a server."""
    features = FeatureSet([derived(where_share)])
    columns: dict[str, pa.Array] = {}
    row: dict[str, object] = {}
    with warnings.catch_warnings(action="error"):
        derive_columns(features, pa.table({"income": [0.0, 2.0], "debt": [1.0, 1.0]}), columns)
        derive_row(features, {"income": 0.0, "debt": 0.0}, row)
    assert columns["where_share__y"].to_pylist() == [None, 0.5]
    assert row == {"where_share__y": None}


def leave(income, how):
    raise {3.0: SystemExit, 4.0: GeneratorExit, 5.0: asyncio.CancelledError, 6.0: KeyboardInterrupt}[float(income[0])]


@pytest.mark.parametrize("income", [3.0, 4.0, 5.0, 6.0])
def test_a_derived_function_that_ends_the_process_is_refused_like_any_other_mistake(income, monkeypatch):
    """An event loop lets such an exception end a server or a task. Ctrl-C is nobody's mistake, where it comes so."""
    features = FeatureSet([derived(outputs=["y"])(leave)])
    row = {"income": income, "how": 1.0}
    if income == 6.0:
        # As Python sets it; a process that a shell started in the background ignores the signal.
        monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            derive_row(features, row, {})
        monkeypatch.setattr(signal, "getsignal", lambda number: lambda *args: None)  # as a server sets it
    with pytest.raises(DefinitionError, match=r"test_definitions.py:\d+: .* got '\w+(Exit|Error|Interrupt)'"):
        derive_row(features, row, {})


def test_derived_mistakes_are_definition_errors():
    """Unclear outputs, defaults, unknown features and unused times are refused with a remedy."""
    with pytest.raises(DefinitionError, match="must return one dict literal"):
        derived(lambda_free_function)
    with pytest.raises(DefinitionError, match=r"got 'return x / y'.*Write it like: return \{'value': x / y\}"):
        derived(ratio)
    with pytest.raises(DefinitionError, match="plain names without defaults"):
        derived(with_default)
    with pytest.raises(DefinitionError, match=r"derived 'twice': .*Did you mean the feature 'v__mean_x_2h'"):
        FeatureSet([_view(agg.mean("x", over="2h")), twice])
    spine = pa.table({"k1": ["a"], "q": pa.array([1], worlds.TIME), "when": pa.array([1], worlds.TIME)})
    with pytest.raises(
        DefinitionError,
        match=r"derived 'opaque', input 'when': this input must arrive as a number; got .*Annotate the parameter",
    ):
        training_frame(spine, "q", FeatureSet([opaque]), {})
    with pytest.raises(InputError, match="the request must have the inputs of derived features; got 'when'"):
        OnlineFeatures(FeatureSet([opaque]), None).read({}, {}, 0)


def lambda_free_function(x):
    result = {"y": x}
    result.update()
    return result


def with_default(x=1):
    return {"y": x}


@derived
def opaque(when):
    return {"y": when}


@derived
def annotated(when: Times):
    return {"y": part(when)}


def part(moment):
    return moment.hour


def test_an_annotation_makes_an_input_a_time():
    """Where the parts are taken in a helper, the annotation says it."""
    assert annotated.times == {"when"}
    row = OnlineFeatures(FeatureSet([annotated]), None).read({}, {"when": "2013-09-01T18:00-04:00"}, 0)
    assert row.values == {"annotated__y": 22.0}
