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
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from retrodict.core.errors import InputError, NotFoundError
from retrodict.stores.tables.base import TableStore

__all__ = ["TablesContract"]

_MOMENT = datetime(2013, 9, 1, 18, 0, 0, 123456, tzinfo=UTC)


def _numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"i": pa.array(range(start, stop), pa.int64())})


def _reader(start: int, stop: int, *, step: int = 50_000, fail: bool = False) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(start, stop, step):
            yield from _numbers(first, min(first + step, stop)).to_batches()
        if fail:
            raise RuntimeError("the source broke off")

    return pa.RecordBatchReader.from_batches(_numbers(0, 0).schema, batches())


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
        # By a cast: some libraries, once imported, make Arrow lose the offset of a Python datetime.
        utc = pa.array([_MOMENT.replace(microsecond=0)], pa.timestamp("s", tz="UTC"))
        elsewhere = utc.cast(pa.timestamp("s", tz="America/New_York"))
        store.write("t", pa.table({"s": elsewhere, "ns": pa.array([_MOMENT], pa.timestamp("ns", tz="UTC"))}))
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
        """Nanoseconds that would be lost are an error that names the column, of all of them, and shows no data."""
        kind = pa.timestamp("ns", tz="UTC")
        rows = {"id": [1], "when": pa.array([1_234_567_891], kind), "whole": pa.array([1_000], kind)}
        with pytest.raises(InputError, match=r"microsecond.*\['when is timestamp\[ns") as caught:
            store.write("t", pa.table(rows))
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
        with pytest.raises(InputError, match="must not exist yet"):
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

    def test_a_reader_is_written_in_order(self, store: TableStore) -> None:
        """A stream of batches of uneven size becomes one version, over several files, in its order."""
        store.write("t", _numbers(0, 3))
        assert store.write("t", _reader(3, 1_300_000, step=77_777)) == 1
        assert store.read("t").equals(_numbers(0, 1_300_000))
        assert sum(file.rows for file in store.files("t")) == 1_300_000
        assert store.write("t", _reader(0, 0), mode="overwrite") == 2
        assert store.read("t").num_rows == 0

    def test_a_reader_that_breaks_off_leaves_nothing(self, store: TableStore) -> None:
        """What it raises comes through, and the table is as before; the first write makes no table."""
        with pytest.raises(RuntimeError, match="broke off"):
            store.write("t", _reader(0, 10, fail=True))
        assert store.names() == []
        store.write("t", _numbers(0, 3))
        before = store.files("t")
        with pytest.raises(RuntimeError, match="broke off"):
            store.write("t", _reader(3, 1_300_000, fail=True), mode="overwrite")
        assert store.files("t") == before
        assert [v.version for v in store.history("t")] == [0]
        assert store.vacuum("t", keep=[], dry_run=True).files == ()

    def test_a_time_too_fine_in_a_late_batch_is_refused(self, store: TableStore) -> None:
        """What is wrong far into a stream undoes all of it, and shows no data."""
        kind = pa.timestamp("ns", tz="UTC")
        parts = [pa.record_batch({"when": pa.array([value], kind)}) for value in (1000, 2000, 1_234_567_891)]
        with pytest.raises(InputError, match="microsecond") as caught:
            store.write("t", pa.RecordBatchReader.from_batches(parts[0].schema, parts))
        assert "1234567891" not in str(caught.value)
        assert store.names() == []

    def test_batches_are_bounded_and_in_order(self, store: TableStore) -> None:
        """A large version comes piece by piece; an older one and chosen columns likewise."""
        store.write("t", pa.table({"i": range(300_000), "x": [0.5] * 300_000}))
        store.write("t", pa.table({"i": range(300_000, 300_005), "x": [0.5] * 5}))
        reader = store.batches("t", columns=["i"])
        assert reader.schema.names == ["i"]
        sizes, end = [], 0
        for batch in reader:
            assert batch.column(0).equals(pa.array(range(end, end + batch.num_rows)))
            sizes.append(batch.num_rows)
            end += batch.num_rows
        assert end == 300_005
        assert max(sizes) <= 1 << 17
        assert store.batches("t", 0).read_all().num_rows == 300_000
        with pytest.raises(NotFoundError, match="'i'"):
            store.batches("t", columns=["ii"])

    def test_a_dataset_holds_a_version_or_some_of_its_files(self, store: TableStore) -> None:
        """Filters and columns work on it; an unknown file is not found."""
        for start in (0, 3, 5):
            store.write("t", _numbers(start, start + 2 + (start == 0)))
        assert store.dataset("t").to_table().sort_by("i").equals(_numbers(0, 7))
        assert store.dataset("t", 0).to_table().equals(_numbers(0, 3))
        assert store.dataset("t").to_table(filter=ds.field("i") >= 4).num_rows == 3
        (added,) = {f.path for f in store.files("t", 1)} - {f.path for f in store.files("t", 0)}
        assert store.dataset("t", paths=[added]).to_table().equals(_numbers(3, 5))
        assert store.dataset("t", paths=[]).to_table().equals(_numbers(0, 0))
        with pytest.raises(NotFoundError, match="must have the file"):
            store.dataset("t", 0, paths=[added])

    def test_a_dataset_of_an_evolved_table_has_its_columns(self, store: TableStore) -> None:
        """Files from before give nulls and widened values, also to filters, and alone."""
        store.write("t", pa.table({"i": pa.array([1, 2], pa.int32())}))
        (old,) = store.files("t")
        store.write("t", pa.table({"i": [2**40], "s": ["x"]}), evolve=True)
        dataset = store.dataset("t")
        assert dataset.schema.equals(pa.schema([("i", pa.int64()), ("s", pa.string())]))
        assert dataset.to_table(filter=ds.field("i") > 1).sort_by("i").to_pylist() == [
            {"i": 2, "s": None},
            {"i": 2**40, "s": "x"},
        ]
        assert dataset.to_table(filter=ds.field("s").is_null()).num_rows == 2
        assert store.dataset("t", paths=[old.path]).to_table().to_pylist() == [{"i": i, "s": None} for i in (1, 2)]

    def test_evolved_columns_are_null_before(self, store: TableStore) -> None:
        """Added columns come last and are null in earlier rows; an older version keeps its own columns."""
        store.write("t", pa.table({"a": [1], "b": ["x"]}))
        store.write("t", pa.table({"c": [[1.5]], "b": ["y"], "a": [2]}), evolve=True)
        store.write("t", pa.table({"a": [3], "b": ["z"], "c": pa.nulls(1)}), evolve=True)
        assert store.read("t").to_pylist() == [
            {"a": 1, "b": "x", "c": None},
            {"a": 2, "b": "y", "c": [1.5]},
            {"a": 3, "b": "z", "c": None},
        ]
        assert store.read("t", 0).equals(pa.table({"a": [1], "b": ["x"]}))
        assert store.schema("t", 0).names == ["a", "b"]
        with pytest.raises(InputError, match="missing: c"):
            store.write("t", pa.table({"a": [4], "b": ["z"]}))

    @pytest.mark.parametrize(
        ("narrow", "wide"),
        [
            (pa.int8(), pa.int16()),
            (pa.int16(), pa.int64()),
            (pa.int32(), pa.int64()),
            (pa.float32(), pa.float64()),
            (pa.int8(), pa.float64()),
            (pa.int32(), pa.float64()),
            (pa.decimal128(5, 2), pa.decimal128(20, 2)),
        ],
        ids=str,
    )
    def test_a_widened_column_keeps_its_values(self, store: TableStore, narrow: pa.DataType, wide: pa.DataType) -> None:
        """Rows of before read in the wider type, an older version in its own; narrower rows are refused after."""
        rows = pa.table({"x": pa.array([1, None, -7]).cast(pa.decimal128(38, 2)).cast(narrow)})
        store.write("t", rows)
        with pytest.raises(InputError, match="x is "):
            store.write("t", rows.cast(pa.schema([("x", wide)])))
        store.write("t", rows.cast(pa.schema([("x", wide)])), evolve=True)
        expected = rows.cast(pa.schema([("x", wide)]))
        assert store.read("t").equals(pa.concat_tables([expected, expected]))
        assert store.read("t", 0).equals(rows)
        assert store.dataset("t").to_table().equals(pa.concat_tables([expected, expected]))
        with pytest.raises(InputError, match="x is "):
            store.write("t", rows, evolve=True)

    @pytest.mark.parametrize(
        ("stored", "other"),
        [
            (pa.int64(), pa.float64()),
            (pa.int64(), pa.int32()),
            (pa.float64(), pa.float32()),
            (pa.decimal128(10, 2), pa.decimal128(12, 3)),
            (pa.decimal128(10, 2), pa.decimal128(9, 2)),
            (pa.date32(), pa.timestamp("us", tz="UTC")),
            (pa.int32(), pa.string()),
            (pa.bool_(), pa.int8()),
        ],
        ids=str,
    )
    def test_what_would_lose_is_no_evolution(self, store: TableStore, stored: pa.DataType, other: pa.DataType) -> None:
        """A type that does not hold every kept value exactly is refused by the name of its column."""
        store.write("t", pa.table({"x": pa.nulls(1, stored)}))
        with pytest.raises(InputError, match="x is "):
            store.write("t", pa.table({"x": pa.nulls(1, other)}), evolve=True)
        assert len(store.history("t")) == 1

    def test_evolution_does_not_remove_columns(self, store: TableStore) -> None:
        """A missing or renamed column is refused by name, an added one without a type too."""
        store.write("t", pa.table({"a": [1], "b": ["x"]}))
        with pytest.raises(InputError, match="missing: b"):
            store.write("t", pa.table({"a": [1], "bb": ["x"]}), evolve=True)
        with pytest.raises(InputError, match="null"):
            store.write("t", pa.table({"a": [1], "b": ["x"], "c": pa.nulls(1)}), evolve=True)
        with pytest.raises(InputError, match="upper and lower case"):
            store.write("t", pa.table({"a": [1], "b": ["x"], "A": [1]}), evolve=True)
        assert len(store.history("t")) == 1

    def test_column_names_may_hold_what_people_write(self, store: TableStore) -> None:
        """Spaces, dots, quotes, other alphabets and words of SQL come back, from files of each kind."""
        names = ["a b", "x.y", "x", 'the "so-called" one', "größe", "空港", "select", "it's", "a,b;{c}(d)=e"]
        first = pa.table({name: [i] for i, name in enumerate(names)})
        store.write("t", first)
        store.write("t", pa.table({**{name: [-i] for i, name in enumerate(names)}, "new one.z": ["n"]}), evolve=True)
        assert store.read("t", 0).equals(first)
        assert store.read("t").schema.names == [*names, "new one.z"]
        for i, name in enumerate(names):
            assert store.read("t", columns=[name]).to_pydict() == {name: [i, -i]}
        assert store.dataset("t").to_table().equals(store.read("t"))
        store.compact("t")
        assert store.read("t").equals(store.read("t", 1))

    def test_restore_brings_content_and_columns_back(self, store: TableStore) -> None:
        """A new version is as an old one was, in order, with no new file; the versions between stay."""
        for start in (0, 2, 4):
            store.write("t", _numbers(start, start + 2))
        store.write("t", pa.table({"other": ["x"]}), mode="overwrite")
        assert store.restore("t", 1, metadata={"why": "a bad batch"}) == 4
        assert store.read("t").equals(_numbers(0, 4))
        assert store.schema("t").names == ["i"]
        assert store.files("t") == store.files("t", 1)
        assert dict(store.history("t")[4].metadata) == {"why": "a bad batch"}
        store.write("t", _numbers(4, 5))
        assert store.restore("t", 3) == 6
        assert store.read("t").to_pylist() == [{"other": "x"}]
        assert store.restore("t", 5) == 7
        assert store.read("t").equals(_numbers(0, 5))
        assert store.read("t", 2).equals(_numbers(0, 6))
        with pytest.raises(NotFoundError, match="0 to 7"):
            store.restore("t", 8)

    def test_compaction_keeps_rows_and_versions(self, store: TableStore) -> None:
        """Fewer files, the same rows in the same order, all versions readable; a second one has nothing to do."""
        store.write("t", pa.table({"i": pa.array([0], pa.int32())}))
        for i in range(1, 6):
            store.write(
                "t",
                pa.table({"i": [i], "s": ["x"]} if i > 1 else {"i": [i], "s": pa.nulls(1, pa.string())}),
                evolve=True,
            )
        before = store.read("t")
        assert store.compact("t", metadata={"by": "night"}) == 6
        assert store.read("t").equals(before)
        assert len(store.files("t")) == 1
        assert dict(store.history("t")[6].metadata) == {"by": "night"}
        assert store.compact("t") is None
        assert [store.read("t", version).num_rows for version in range(7)] == [1, 2, 3, 4, 5, 6, 6]
        assert store.schema("t", 0).field("i").type == pa.int32()

    def test_order_outlives_compactions_between_appends_and_restores(self, store: TableStore) -> None:
        """Old and new files, joined or not, stay where their rows were written."""
        total = 0
        for turn in range(3):
            for _ in range(3):
                store.write("t", _numbers(total, total + 2))
                total += 2
            assert store.compact("t") == 4 * turn + 3
        assert store.read("t").equals(_numbers(0, total))
        store.restore("t", 4)  # between two compactions
        store.write("t", _numbers(8, 9))
        store.compact("t")
        assert store.read("t").equals(_numbers(0, 9))
        assert store.read("t", 10).equals(_numbers(0, total))

    def test_a_vacuum_ends_versions_that_are_not_kept(self, store: TableStore) -> None:
        """Kept versions and the newest read as before; the others say when they were vacuumed, and stay in history."""
        for start in (0, 2, 4):
            store.write("t", _numbers(start, start + 2), mode="overwrite")
        store.write("t", _numbers(6, 7))
        file = store.files("t", 0)[0]
        trial = store.vacuum("t", keep=[1], dry_run=True)
        assert [store.read("t", v).num_rows for v in range(4)] == [2, 2, 2, 3]
        assert len(store.history("t")) == 4
        report = store.vacuum("t", keep=[1])
        assert report == trial
        assert (report.versions, report.retained, report.files) == ((0,), (1, 2, 3), (file,))
        for call in (store.read, store.batches, store.dataset, store.restore):
            with pytest.raises(NotFoundError, match=r"vacuumed at 20\d\d-"):
                call("t", 0)
        assert store.read("t", 1).equals(_numbers(2, 4))
        assert store.read("t").equals(store.read("t", 3))
        assert [v.version for v in store.history("t")] == [0, 1, 2, 3, 4]
        assert (store.files("t", 0), store.schema("t", 0).names) == ([file], ["i"])  # what the log knows, it tells
        with pytest.raises(NotFoundError):
            store.file_digest(f"t/{file.path}")
        with pytest.raises(NotFoundError, match="vacuumed"):
            store.vacuum("t", keep=[0])
        with pytest.raises(NotFoundError, match="0 to 4"):
            store.vacuum("t", keep=[9])

    def test_a_vacuum_with_nothing_to_delete_makes_no_version(self, store: TableStore) -> None:
        """All versions share the files of the newest: nothing ends."""
        store.write("t", _numbers(0, 2))
        store.write("t", _numbers(2, 4))
        report = store.vacuum("t", keep=[])
        assert (report.versions, report.files, report.retained) == ((), (), (0, 1))
        assert len(store.history("t")) == 2

    def test_work_goes_on_after_a_vacuum(self, store: TableStore, reopen: Callable[[], TableStore]) -> None:
        """Appends, compactions and further vacuums find what they need, in another process too."""
        for start in range(4):
            store.write("t", _numbers(start, start + 1))
        store.compact("t")
        assert store.vacuum("t", keep=[1]).versions == (2, 3)
        other = reopen()
        other.write("t", _numbers(4, 5))
        other.compact("t")
        assert other.read("t").equals(_numbers(0, 5))
        assert other.read("t", 1).equals(_numbers(0, 2))
        assert other.vacuum("t", keep=[]).versions == (0, 1, 4, 5, 6)
        assert store.read("t").equals(_numbers(0, 5))

    def test_a_rewrite_takes_rows_out_of_every_version(
        self, store: TableStore, reopen: Callable[[], TableStore]
    ) -> None:
        """Others stay in their order, also where versions share files, come back, or have columns of their time."""
        store.write("t", _numbers(0, 4))
        store.write("t", _numbers(4, 6).append_column("more", pa.array(["a", "b"])), evolve=True)
        store.write("t", _numbers(6, 9), mode="overwrite")
        entries = [entry.digest for entry in store.log_entries("t")]
        old = [store.files("t", version) for version in (0, 1)]

        def odd(batch: pa.RecordBatch) -> Any:
            return batch.column("i").to_numpy() % 2 == 1

        assert store.rewrite("t", odd, columns=["i"], spare=[2], metadata={"why": "test"}) == 3
        for other in (store, reopen()):
            reads = [other.read("t", version) for version in range(4)]
            assert [rows["i"].to_pylist() for rows in reads] == [[0, 2], [0, 2, 4], [6, 7, 8], [6, 7, 8]]
            assert reads[1]["more"].to_pylist() == [None, None, "a"]
            assert [rows.schema.names for rows in reads] == [["i"], ["i", "more"], ["i"], ["i"]]
            assert [version.rewritten for version in other.history("t")] == [(3,), (3,), (), ()]
        assert [(file.rows, file.removed) for file in store.files("t", 1)] == [(2, 2), (1, 1)]
        log = store.log_entries("t")
        assert [entry.digest for entry in log[:3]] == entries
        assert log[3].replaced == {a.path: b for a, b in zip(old[1], store.files("t", 1), strict=True)}
        assert store.rewrite("t", odd, columns=["i"], spare=[2]) is None
        report = store.vacuum("t", keep=range(4))
        assert (report.versions, sorted(file.path for file in report.files)) == ((), sorted(log[3].replaced))
        store.restore("t", 1)
        store.write("t", _numbers(8, 9).append_column("more", pa.array(["c"])))
        store.compact("t")
        assert store.rewrite("t", lambda batch: batch.column("i").to_numpy() == 2, columns=["i"]) == 7
        assert store.rewrite("t", lambda batch: batch.column("i").to_numpy() == 0, columns=["i"]) == 8
        reads = [reopen().read("t", version)["i"].to_pylist() for version in (0, 1, 3, 4, 5, 6, 8)]
        assert reads == [[], [4], [6, 7, 8], [4], [4, 8], [4, 8], [4, 8]]
        store.vacuum("t", keep=[0])
        assert store.read("t", 0).num_rows == 0
        assert store.read("t")["i"].to_pylist() == [4, 8]

    @pytest.mark.parametrize(
        ("call", "more"),
        [
            ("restore", {"version": 0}),
            ("vacuum", {"keep": []}),
            ("compact", {}),
            ("batches", {}),
            ("dataset", {}),
            ("rewrite", {"belongs": len, "columns": ["i"]}),
        ],
    )
    def test_what_is_asked_of_no_table_names_near_ones(
        self, store: TableStore, call: str, more: dict[str, object]
    ) -> None:
        """Like reading: an unknown name is not found, and nothing is made."""
        store.write("flights", _numbers(0, 1))
        with pytest.raises(NotFoundError, match="'flights'"):
            getattr(store, call)("flihgts", **more)
        assert store.names() == ["flights"]

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

        threads = [threading.Thread(target=append, args=(start,), daemon=True) for start in (0, 10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(versions) == list(range(9))
        assert reopen().read("t").sort_by("i")["i"].to_pylist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]
