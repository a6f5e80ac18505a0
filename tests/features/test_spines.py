"""Rows of tables, files and memory as spines: text gets the types of what it is compared with; files are whole."""

from contextlib import ExitStack
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict.core.clock import SimulatedClock
from retrodict.core.errors import InputError, RetryableError
from retrodict.data.sources import Source
from retrodict.features.catalogue.tables import choose_features, newest_versions, source_schemas
from retrodict.features.definitions import Entity, FeatureView, agg
from retrodict.features.derived import derived
from retrodict.features.labels import Outcome
from retrodict.features.offline.files import check_output, write_rows
from retrodict.features.offline.outcomes import add_outcomes, choose_outcomes, known_until, outcome_types
from retrodict.features.offline.spine import is_table, open_spine
from retrodict.features.offline.texts import request_types
from retrodict.features.plan import FeatureSet
from retrodict.testing import feature_worlds as worlds
from retrodict.workspace import Workspace

HOUR = 60 * worlds.MINUTE
PAID = Source("paid", SimpleNamespace(name="orders"), event_time="at", known_at="seen", sequence="id")
SPENDING = FeatureView("spending", Entity("customer"), PAID, [agg.count(over="2h")])
SPENT = Outcome("spent", Entity("customer"), PAID, agg.sum("amount", over="2h"))
CSV = "customer,at,note\n007,1970-01-01T03:00Z,x\n,1970-01-01T05:00:00Z,\n"


@derived
def basket(amount, asked_at, shop: str):
    return {"over": amount, "hour": asked_at.hour}


def orders(hours=5):
    return pa.table({
        "id": pa.array(range(hours), pa.int64()), "customer": pa.array([7] * hours, pa.int64()),
        "at": pa.array([n * HOUR for n in range(hours)], worlds.TIME),
        "seen": pa.array([n * HOUR + 1 for n in range(hours)], worlds.TIME), "amount": [float(n) for n in range(hours)],
    })  # fmt: skip


@pytest.fixture
def project(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "spines"\n')
    (tmp_path / "definitions.py").write_text("")
    with Workspace(tmp_path, clock=SimulatedClock(9 * HOUR)) as opened:
        opened.tables.write("orders", orders())
        yield opened


def types_of(project):
    features = FeatureSet([SPENDING, basket])
    return {**request_types(features, source_schemas(project, features)), "at": worlds.TIME}


def test_request_types_are_those_of_keys_and_inputs(project):
    """A key has the type of the source's column, an input of a function that of its annotation."""
    found = types_of(project)
    assert found == {"amount": pa.float64(), "asked_at": worlds.TIME, "shop": pa.string(), "customer": pa.int64(),
                     "at": worlds.TIME}  # fmt: skip


def test_a_spine_is_a_file_a_table_or_memory(project, tmp_path):
    """All give the same typed rows, twice; text that nothing compares with stays text, an empty field is null."""
    path = tmp_path / "asked.csv"
    path.write_text(CSV)
    plain = pa.table({"customer": ["007", None], "at": ["1970-01-01T03:00Z", "1970-01-01T05:00:00Z"],
                      "note": ["x", None]})  # fmt: skip
    project.tables.write("asked", plain)
    for source in (str(path), path, plain, plain.to_reader(), plain.to_pandas(), "asked", "asked@0"):
        with open_spine(project, source, types_of(project)) as spine:
            first, second = spine.rows().read_all(), spine.rows().read_all()
        assert first == second
        assert (spine.count, first["customer"].to_pylist()) == (2, [7, None])
        assert first["at"].cast(pa.int64()).to_pylist() == [3 * HOUR, 5 * HOUR]
        assert first["note"].to_pylist() == ["x", None]
    assert (spine.ref, spine.origin) == ("dataset:asked@0", "asked@0")
    assert [is_table(text) for text in ("-", "asked.csv", "a/b", "asked", "dataset:x.y")] == [False] * 3 + [True] * 2


def test_a_wrong_value_is_named_by_its_row_never_by_itself(project):
    """The message has file, row and column; of a later batch also how many rows came before."""
    rows = pa.table({"customer": ["1", "secret"]})
    with open_spine(project, rows, {"customer": pa.int64()}) as spine, pytest.raises(InputError) as error:
        spine.rows().read_all()
    assert "spine, column 'customer', row 2: the value must be a whole number of 64 bits or null; got 'str'" in str(
        error.value
    )
    assert "secret" not in str(error.value)


def test_tables_that_are_read_hold_rows(project):
    """One empty table is named with the command that fills it."""
    assert newest_versions(project.tables, ["orders"], where="x") == {"orders": 0}
    with pytest.raises(InputError, match="x: every table that is read must hold rows; got 'visits'"):
        newest_versions(project.tables, ["orders", "visits"], where="x")
    features, columns = choose_features(project, [SPENDING], ["spending.count_2h"])
    assert (features.tables, columns) == (("orders",), ["spending__count_2h"])


def test_outcomes_count_until_the_newest_fact(project):
    """What matured by then is added; the rest is null, and so is everything where a table holds no fact."""
    (spent,) = choose_outcomes(project, [SPENT], ["spent"])
    assert outcome_types(project, [spent]) == {"customer": pa.int64()}
    until = known_until(project, [spent])
    assert until == 4 * HOUR + 1
    frame = pa.table({"customer": [7, 7], "q": pa.array([2 * HOUR, 3 * HOUR], worlds.TIME)})
    (told,) = add_outcomes(project, [spent], "q", [frame], until)
    assert told["spent"].to_pylist() == [5.0, None]
    (nothing,) = add_outcomes(project, [spent], "q", [frame], None)
    assert nothing["spent"].null_count == nothing["spent_known_at"].null_count == 2
    with pytest.raises(InputError, match="the outcome must be defined; got 'spend'"):
        choose_outcomes(project, [SPENT], ["spend"])


def test_a_file_is_whole_or_not_there(project, tmp_path):
    """Pieces follow each other; if one fails, what was there stays and no draft does."""
    path = tmp_path / "frame.csv"
    piece = pa.table({"id": [1, None], "m": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))})
    assert write_rows([piece, piece], path) == (4, {"id": 2, "m": 2})
    text = path.read_text()
    assert text.splitlines()[:2] == ['"id","m"', '1,"{""a"": 1}"']

    def broken():
        yield piece
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_rows(broken(), path)
    assert path.read_text() == text
    assert [found.name for found in tmp_path.iterdir() if found.name.startswith(".")] == []
    write_rows(piece, tmp_path / "frame.parquet")
    assert pq.read_table(tmp_path / "frame.parquet") == piece
    with pytest.raises(InputError, match=r"rows must go to a \.csv or \.parquet file"):
        check_output(tmp_path / "frame.xlsx")


def test_a_file_that_changes_while_it_is_read_is_no_spine(project, tmp_path):
    """What was computed from one half of each is not kept: the block ends with an error."""
    path = tmp_path / "asked.parquet"
    pq.write_table(pa.table({"customer": [7]}), path)
    block = ExitStack()
    spine = block.enter_context(open_spine(project, path, {}))
    assert spine.rows().read_all().num_rows == 1
    pq.write_table(pa.table({"customer": [7, 8]}), path)
    with pytest.raises(RetryableError):
        block.close()


def test_facts_from_the_future_do_not_make_outcomes_known(project):
    """A fact that is dated after now says nothing of what is known until now."""
    project.tables.write("orders", orders(30))
    assert known_until(project, [SPENT]) == 9 * HOUR == project.clock.now()


def test_an_outcome_counts_from_the_microsecond_it_matures(project):
    """At its maturity it is there, one microsecond before it is null."""
    frame = pa.table({"customer": [7], "q": pa.array([HOUR], worlds.TIME)})
    for as_of, expected in ((3 * HOUR - 1, [None]), (3 * HOUR, [3.0])):
        (piece,) = add_outcomes(project, [SPENT], "q", [frame], as_of)
        assert piece["spent"].to_pylist() == expected
