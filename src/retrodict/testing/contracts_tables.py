"""Contract suite of the table stores: subclass it, override ``reopen``, and every promise is tested.

::

    class TestMyTables(TablesContract):
        @pytest.fixture
        def reopen(self, tmp_path):
            return lambda: MyTables(tmp_path)
"""

from __future__ import annotations

import decimal
import math
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError, NotFoundError
from retrodict.stores.tables.base import TableStore

__all__ = ["TablesContract"]

_MOMENT = datetime(2013, 9, 1, 18, 0, 0, 123456, tzinfo=UTC)


def _numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"i": pa.array(range(start, stop), pa.int64())})


class TablesContract:
    """What every :class:`~retrodict.stores.tables.base.TableStore` does."""

    @pytest.fixture
    def reopen(self) -> Callable[[], TableStore]:
        """Open the store under test (empty at first), each time as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Callable[[], TableStore]) -> TableStore:
        """Give the store under test."""
        return reopen()

    def test_versions_count_from_zero_without_gaps(self, store: TableStore) -> None:
        """Each write makes exactly one version, also one without rows."""
        assert [store.write("t", _numbers(0, n)) for n in (3, 0, 2)] == [0, 1, 2]
        assert [v.version for v in store.history("t")] == [0, 1, 2]

    def test_rows_come_back_in_the_order_of_writing(self, store: TableStore) -> None:
        """Many appends of uneven size, one of them of several row groups, keep their order."""
        sizes = [1, 300_000, 2, 7, 1, 150_000, *[1] * 8]
        total = 0
        for size in sizes:
            store.write("t", _numbers(total, total + size))
            total += size
        assert store.read("t").equals(_numbers(0, total))

    def test_an_old_version_never_changes(self, store: TableStore) -> None:
        """What a version held is what it holds after appends, overwrites and other columns."""
        store.write("t", _numbers(0, 3))
        store.write("t", _numbers(3, 5))
        store.write("t", pa.table({"other": ["x"]}), mode="overwrite")
        assert store.read("t", 0).equals(_numbers(0, 3))
        assert store.read("t", 1).equals(_numbers(0, 5))
        assert store.read("t", 2).equals(pa.table({"other": ["x"]}))
        assert store.schema("t", 1).names == ["i"]
        assert store.schema("t").names == ["other"]

    def test_a_new_process_sees_what_was_written(self, store: TableStore, reopen: Callable[[], TableStore]) -> None:
        """Versions, rows and names do not live in the object that wrote them."""
        store.write("t", _numbers(0, 3), metadata={"batch": "b1"})
        other = reopen()
        assert other.read("t").equals(_numbers(0, 3))
        assert other.names() == ["t"]
        assert dict(other.history("t")[0].metadata) == {"batch": "b1"}

    def test_metadata_belongs_to_its_version(self, store: TableStore) -> None:
        """What the writer said comes back with the commit it was said of, and times do not go back."""
        store.write("t", _numbers(0, 1), metadata={"batch": "b1", "rows in": "1"})
        store.write("t", _numbers(1, 2))
        store.write("t", _numbers(2, 3), metadata={"batch": "β"})
        history = store.history("t")
        assert [dict(v.metadata) for v in history] == [{"batch": "b1", "rows in": "1"}, {}, {"batch": "β"}]
        assert [v.time for v in history] == sorted(v.time for v in history)
        assert history[0].time > 1_600_000_000_000_000

    def test_types_come_back_unchanged(self, store: TableStore) -> None:
        """Decimals, bools, ints, floats, dates, bytes, lists and structs keep type and value, nulls included."""
        rows = pa.table(
            {
                "int8": pa.array([1, None], pa.int8()),
                "int32": pa.array([1, None], pa.int32()),
                "int64": pa.array([2**62, None], pa.int64()),
                "float32": pa.array([0.5, None], pa.float32()),
                "float64": pa.array([float("inf"), None], pa.float64()),
                "bool": pa.array([True, None], pa.bool_()),
                "decimal": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(10, 2)),
                "date": pa.array([date(2013, 9, 1), None], pa.date32()),
                "text": pa.array(["ä", None], pa.string()),
                "bytes": pa.array([b"\x00\xff", None], pa.binary()),
                "list": pa.array([["a", None], None], pa.list_(pa.string())),
                "struct": pa.array([{"a": 1.5}, None], pa.struct([("a", pa.float64())])),
                "moment": pa.array([_MOMENT, None], pa.timestamp("us", tz="UTC")),
            }
        )
        store.write("t", rows)
        store.write("t", rows)
        back = store.read("t")
        assert back.schema.equals(rows.schema)
        assert back.equals(pa.concat_tables([rows, rows]))

    def test_nan_is_not_null(self, store: TableStore) -> None:
        """A NaN comes back as NaN beside a null."""
        store.write("t", pa.table({"x": pa.array([float("nan"), None, 1.0])}))
        back = store.read("t")["x"].to_pylist()
        assert math.isnan(back[0] or 0.0)
        assert back[1:] == [None, 1.0]

    def test_times_come_back_in_utc_microseconds(self, store: TableStore) -> None:
        """Other units and zones name the same instant afterwards."""
        zone = timezone(timedelta(hours=-4))
        there = pa.array([_MOMENT.replace(microsecond=0).astimezone(zone)], pa.timestamp("s", tz="America/New_York"))
        store.write("t", pa.table({"s": there, "ns": pa.array([_MOMENT], pa.timestamp("ns", tz="UTC"))}))
        back = store.read("t")
        assert {str(kind) for kind in back.schema.types} == {"timestamp[us, tz=UTC]"}
        assert back.to_pylist() == [{"s": _MOMENT.replace(microsecond=0), "ns": _MOMENT}]

    @pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
    def test_text_comes_back_as_string(self, store: TableStore, kind: pa.DataType) -> None:
        """However text is encoded when written, it is a ``string`` column when read."""
        store.write("t", pa.table({"s": pa.array(["a", None, "b"]).cast(kind)}))
        assert store.read("t").equals(pa.table({"s": pa.array(["a", None, "b"], pa.string())}))

    def test_a_time_without_zone_is_refused(self, store: TableStore) -> None:
        """A naive timestamp is an error that names the column, wherever it hides; nothing is made."""
        naive = pa.array([datetime(2013, 9, 1)], pa.timestamp("us"))  # noqa: DTZ001 - that is the point
        with pytest.raises(InputError, match=r"column 'when'.*zone"):
            store.write("t", pa.table({"when": naive}))
        with pytest.raises(InputError, match=r"column 'nested'.*zone"):
            store.write("t", pa.table({"nested": pa.array([[None]], pa.list_(pa.timestamp("s")))}))
        assert store.names() == []

    def test_a_time_finer_than_a_microsecond_is_refused(self, store: TableStore) -> None:
        """Nanoseconds that would be lost are an error that shows no data."""
        with pytest.raises(InputError, match="microsecond") as caught:
            store.write("t", pa.table({"when": pa.array([1_234_567_891], pa.timestamp("ns", tz="UTC"))}))
        assert "1234567891" not in str(caught.value)

    def test_an_append_with_other_columns_names_the_difference(self, store: TableStore) -> None:
        """Missing, added and changed columns are each named, and no version is made."""
        store.write("t", pa.table({"a": [1], "b": ["x"], "c": [1.0]}))
        with pytest.raises(InputError) as caught:
            store.write("t", pa.table({"a": ["1"], "c": [1.0], "d": [True]}))
        text = str(caught.value)
        assert "missing: b" in text
        assert "added: d" in text
        assert "a is string, kept as int64" in text
        assert len(store.history("t")) == 1

    def test_an_append_may_order_its_columns_otherwise(self, store: TableStore) -> None:
        """Columns go by name; the table keeps its own order."""
        store.write("t", pa.table({"a": [1], "b": ["x"]}))
        store.write("t", pa.table({"b": ["y"], "a": [2]}))
        assert store.read("t").equals(pa.table({"a": [1, 2], "b": ["x", "y"]}))

    def test_a_column_of_untyped_nulls_takes_the_kept_type(self, store: TableStore) -> None:
        """An append whose column holds nothing fits; as the first write it has no type and is refused."""
        with pytest.raises(InputError, match="null"):
            store.write("t", pa.table({"a": pa.nulls(1)}))
        store.write("t", pa.table({"a": ["x"]}))
        store.write("t", pa.table({"a": pa.nulls(1)}))
        assert store.read("t")["a"].to_pylist() == ["x", None]

    def test_create_only_refuses_an_existing_table(self, store: TableStore) -> None:
        """The first write with ``create_only`` passes, the second changes nothing."""
        store.write("t", _numbers(0, 1), create_only=True)
        with pytest.raises(InputError, match="does not exist yet"):
            store.write("t", _numbers(1, 2), create_only=True)
        assert store.read("t").equals(_numbers(0, 1))

    def test_columns_are_chosen_in_the_order_asked_for(self, store: TableStore) -> None:
        """Only the columns asked for come back, over all files; an unknown one is near a known one."""
        for value in range(3):
            store.write("t", pa.table({"origin": ["JFK"], "delay": [value], "carrier": ["B6"]}))
        assert store.read("t", columns=["delay", "origin"]).equals(
            pa.table({"delay": [0, 1, 2], "origin": ["JFK"] * 3})
        )
        with pytest.raises(NotFoundError, match="'origin'"):
            store.read("t", columns=["orgin"])

    def test_an_unknown_table_names_near_ones(self, store: TableStore) -> None:
        """The message holds what was meant; history of nothing is empty."""
        store.write("flights", _numbers(0, 1))
        for call in (store.read, store.schema, store.files):
            with pytest.raises(NotFoundError, match="'flights'"):
                call("flihgts")
        assert store.history("flihgts") == []

    @pytest.mark.parametrize("version", [-1, 1, 99])
    def test_an_unknown_version_names_the_known_ones(self, store: TableStore, version: int) -> None:
        """The message holds the first and the last version."""
        store.write("t", _numbers(0, 1))
        with pytest.raises(NotFoundError, match="0 to 0"):
            store.read("t", version)

    @pytest.mark.parametrize("name", ["", "..", "../t", "a/b", "A", "1a", "a b", ".locks", "a\n"])
    def test_a_bad_name_is_refused(self, store: TableStore, name: str) -> None:
        """A name that could leave the store or clash on some disk is no name."""
        with pytest.raises(InputError, match="name of a table"):
            store.write(name, _numbers(0, 1))

    def test_files_hold_all_rows_of_their_version(self, store: TableStore) -> None:
        """Sizes and rows of the data files add up, by version, sorted by path."""
        store.write("t", _numbers(0, 3))
        store.write("t", _numbers(3, 8))
        store.write("t", _numbers(0, 2), mode="overwrite")
        assert [sum(f.rows for f in store.files("t", v)) for v in (0, 1, 2)] == [3, 8, 2]
        files = store.files("t", 1)
        assert [f.path for f in files] == sorted(f.path for f in files)
        assert all(f.size > 0 for f in files)
        assert set(store.files("t", 0)) <= set(files)

    def test_a_file_has_a_digest_that_stays(self, store: TableStore) -> None:
        """The SHA-256 of a data file is the same after later writes; an unknown file is not found."""
        store.write("t", _numbers(0, 3))
        path = f"t/{store.files('t')[0].path}"
        before = store.file_digest(path)
        store.write("t", _numbers(0, 1), mode="overwrite")
        assert len(before) == 64
        assert store.file_digest(path) == before
        with pytest.raises(NotFoundError):
            store.file_digest("t/none.parquet")

    def test_names_are_sorted(self, store: TableStore) -> None:
        """Tables with a version, and only those."""
        for name in ("b", "a_2", "a.part"):
            store.write(name, _numbers(0, 1))
        assert store.names() == ["a.part", "a_2", "b"]

    def test_writers_in_threads_follow_one_another(self, reopen: Callable[[], TableStore]) -> None:
        """Appends from several threads all become versions of their own, none is lost or doubled."""
        versions: list[int] = []

        def append(start: int) -> None:
            store = reopen()
            versions.extend(store.write("t", _numbers(i, i + 1)) for i in range(start, start + 3))

        threads = [threading.Thread(target=append, args=(start,)) for start in (0, 10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(versions) == list(range(9))
        assert reopen().read("t").sort_by("i")["i"].to_pylist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]
