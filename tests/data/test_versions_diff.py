"""diff: schema, rows by key and as bags, statistics; judged by dictionaries and counters."""

from __future__ import annotations

import csv
import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.data.versions import Diff, diff
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Table
sales = Table("sales", key="id")
pairs = Table("pairs", key=["a", "b"])
"""
NAN = float("nan")
NUMBERS = itertools.count()
Row = tuple[Any, ...]


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    return make_project(DEFINITIONS)


def write(project: Workspace, name: str, mode: Any = "append", **columns: Any) -> int:
    return project.tables.write(name, pa.table(columns), mode=mode)


# the oracle: plain Python, no SQL --------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Value under which equal ones are equal: NaN is one value, -0.0 is 0.0."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return tuple(map(plain, value)) if isinstance(value, list) else value


def oracle(a: list[Row], b: list[Row], key: list[int]) -> tuple[int, int, int, dict[int, int], int]:
    """(added, removed, changed, changed by column, repeated keys) of two lists of rows."""
    sides: list[dict[Row, list[Row]]] = [{}, {}]
    for rows, side in zip((a, b), sides, strict=True):
        for row in rows:
            as_plain = tuple(map(plain, row))
            side.setdefault(tuple(as_plain[i] for i in key) if key else as_plain, []).append(as_plain)
    added = removed = changed = repeated = 0
    columns: Counter[int] = Counter()
    for name in sides[0].keys() | sides[1].keys():
        old, new = sides[0].get(name, []), sides[1].get(name, [])
        if len(old) == len(new) == 1:
            differ = [i for i, pair in enumerate(zip(old[0], new[0], strict=True)) if pair[0] != pair[1]]
            changed += bool(differ)
            columns.update(differ)
            continue
        gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
        removed, added = removed + gone.total(), added + come.total()
        repeated += bool(key and old and new and (gone or come))
    return added, removed, changed, dict(columns), repeated


FLOATS = st.sampled_from([None, 0.0, -0.0, 1.0, NAN, math.inf])
ROWS = st.lists(
    st.tuples(st.sampled_from([None, 0.0, -0.0, 1.0, 2.0, 3.0, NAN]), st.integers(0, 2), FLOATS,
              st.sampled_from([None, "", "x"]), st.sampled_from([None, [], [1.0], [NAN], [None]])),
    max_size=6,
)  # fmt: skip
NAMES = ("a", "b", "x", "t", "l")
SCHEMA = pa.schema(
    {"a": pa.float64(), "b": pa.int64(), "x": pa.float64(), "t": pa.string(), "l": pa.list_(pa.float64())}
)


def table_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in rows], schema=SCHEMA)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(common=ROWS, a=ROWS, b=ROWS, key=st.sampled_from([[], [0], [0, 1], [1]]))
def test_diff_counts_what_the_oracle_counts(
    project: Workspace, common: list[Row], a: list[Row], b: list[Row], key: list[int]
) -> None:
    """With and without keys, repeated keys, files in common, nulls, NaN and lists, in either direction."""
    name = f"t{next(NUMBERS)}"
    project.tables.write(name, table_of(common))
    project.tables.write(name, table_of(a))
    # A file that both sides hold needs a common ancestor: 1 and 2 + 3 share the file of version 0.
    project.tables.restore(name, 0)
    project.tables.write(name, table_of(b))
    names = [NAMES[i] for i in key]
    found = diff(project, f"{name}@1", f"{name}@3", key=names, statistics=False)
    assert found.files_shared == bool(common)
    _check(found, common + a, common + b, key)
    _check(diff(project, f"{name}@3", f"{name}@1", key=names, statistics=False), common + b, common + a, key)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=ROWS, b=ROWS, key=st.sampled_from([[], [0], [0, 1], [1]]), parts=st.sampled_from([1, 3]))
def test_diff_of_whole_versions(project: Workspace, a: list[Row], b: list[Row], key: list[int], parts: int) -> None:
    """The same without a file in common, in one pass or more, with statistics and every difference in a file."""
    name = f"t{next(NUMBERS)}"
    project.tables.write(name, table_of(a))
    project.tables.write(name, table_of(b), mode="overwrite")
    output = project.root / f"{name}.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["retrodict.data.versions.diff"], "_parts", lambda *_: parts)
        found = diff(project, f"{name}@0", f"{name}@1", key=[NAMES[i] for i in key], output=output)
    _check(found, a, b, key)
    listed = pq.read_table(output).to_pylist()
    counts: Counter[str] = Counter()
    for row in listed:
        counts[row["_change"]] += row["_count"]
    assert (counts["added"], counts["removed"], counts["changed"]) == (found.added, found.removed, found.changed)


def _check(found: Diff, a: list[Row], b: list[Row], key: list[int]) -> None:
    added, removed, changed, columns, repeated = oracle(a, b, key)
    assert (found.added, found.removed, found.changed) == (added, removed, changed)
    by_column = {name: n for name, n in found.changed_by_column.items() if n}
    assert by_column == {NAMES[i]: n for i, n in columns.items()}
    assert found.repeated_keys == repeated
    assert found.rows == (len(a), len(b))


# rows ------------------------------------------------------------------------------------------------------------


def test_rows_by_the_key_of_the_definition(project: Workspace) -> None:
    """Added, removed, changed, per column, with a sample that names key and columns."""
    write(project, "sales", id=[1, 2, 3, 4], x=[1.0, None, NAN, 0.0], t=["a", "b", "c", "d"])
    write(project, "sales", "overwrite", id=[1, 3, 4, 5], x=[2.0, NAN, -0.0, 1.0], t=["z", "c", "d", "e"])
    found = diff(project, "sales@0", "sales@1")
    assert (found.added, found.removed, found.changed, found.by) == (1, 1, 1, "by key id")
    assert found.changed_by_column == {"x": 1, "t": 1}
    assert found.sample == (
        {"change": "changed", "key": {"id": 1}, "columns": ["x", "t"]},
        {"change": "removed", "key": {"id": 2}},
        {"change": "added", "key": {"id": 5}},
    )
    assert not found.same


def test_the_same_version_is_the_same(project: Workspace) -> None:
    """Nothing to read: all files are shared."""
    write(project, "sales", id=[1, 2])
    found = diff(project, "sales", "sales@0")
    assert found.same
    assert (found.files_shared, found.statistics, found.sample) == (1, (), ())


def test_a_table_without_a_key_is_compared_as_bags_and_says_so(project: Workspace) -> None:
    """A row that occurs once less is removed once."""
    write(project, "notes", t=["a", "a", "b"])
    write(project, "notes", "overwrite", t=["a", "c"])
    found = diff(project, "notes@0", "notes@1")
    assert found.by == "as bags of rows: no definition gives notes a key"
    assert (found.added, found.removed, found.changed) == (1, 2, 0)
    assert {"change": "removed", "row": {"t": "a"}, "count": 1} in found.sample


def test_a_repeated_key_does_not_explode(project: Workspace) -> None:
    """A constant key on both sides would make a billion pairs; it is compared as a bag in a moment."""
    n = 30_000
    write(project, "sales", id=[7] * n, x=list(range(n)))
    write(project, "sales", "overwrite", id=[7] * n, x=list(range(1, n + 1)))
    found = diff(project, "sales@0", "sales@1", statistics=False)
    assert (found.added, found.removed, found.changed, found.repeated_keys) == (1, 1, 0, 1)


def test_system_columns_are_not_compared(project: Workspace) -> None:
    """The same rows out of another batch are the same rows."""
    write(project, "sales", id=[1], _batch=["a"], _row=[0])
    write(project, "sales", "overwrite", id=[1], _batch=["b"], _row=[9])
    assert diff(project, "sales@0", "sales@1").same


def test_columns_called_like_the_words_of_the_query(project: Workspace) -> None:
    """A table may call its columns what it likes."""
    names = ["p", "q", "x", "n", "a", "b", "select", "rows", "from", "k", "d0", "r", "s", "here"]
    write(project, "pairs", **{name: [1, 2] for name in names})
    write(project, "pairs", "overwrite", **{name: [1, 3] for name in names})
    found = diff(project, "pairs@0", "pairs@1", output=project.root / "o.csv")
    assert (found.added, found.removed, found.key) == (1, 1, ("a", "b"))


def test_two_tables(project: Workspace) -> None:
    """The key of either definition serves, if both have its columns."""
    write(project, "sales", id=[1, 2], x=[1, 2])
    write(project, "other", id=[2, 3], x=[2, 3])
    found = diff(project, "other", "sales@0")
    assert (found.added, found.removed, found.changed, found.by) == (1, 1, 0, "by key id")


# schema ----------------------------------------------------------------------------------------------------------


def test_schema_changes(project: Workspace) -> None:
    """Added, removed, widened (compared all the same), changed to what cannot be compared."""
    write(
        project,
        "sales",
        id=pa.array([1, 2], pa.int32()),
        old=[1, 2],
        w=pa.array([1.5, 2.5], pa.float32()),
        c=["1", "2"],
    )
    write(project, "sales", "overwrite", id=[1, 2], w=[1.5, 9.5], c=[1, 2], new=[0, 0])
    found = diff(project, "sales@0", "sales@1")
    assert [(c.column, c.change, c.before, c.after, c.compared) for c in found.schema] == [
        ("id", "widened", "int32", "int64", True),
        ("old", "removed", "int64", None, False),
        ("w", "widened", "float", "double", True),
        ("c", "changed", "string", "int64", False),
        ("new", "added", None, "int64", False),
    ]
    assert (found.changed, found.changed_by_column, found.not_compared) == (1, {"w": 1}, ("c",))


@pytest.mark.parametrize(
    ("old", "new", "change", "differs"),
    [
        (pa.decimal128(5, 1), pa.decimal128(9, 2), "widened", 0),
        (pa.decimal128(9, 2), pa.decimal128(5, 1), "changed", 0),
        (pa.int32(), pa.float64(), "widened", 0),
        (pa.float64(), pa.int16(), "changed", 0),
        (pa.int64(), pa.int8(), "changed", 0),
    ],
)
def test_types_with_a_common_one_are_compared(
    project: Workspace, old: Any, new: Any, change: str, differs: int
) -> None:
    """Equal numbers are equal in either type."""
    write(project, "sales", id=[1, 2], x=pa.array([Decimal(3), Decimal(4)]).cast(old))
    write(project, "sales", "overwrite", id=[1, 2], x=pa.array([Decimal(3), Decimal(4)]).cast(new))
    found = diff(project, "sales@0", "sales@1")
    assert [(c.change, c.compared) for c in found.schema] == [(change, True)]
    assert found.changed == differs


def test_a_large_whole_number_is_not_taken_for_a_float(project: Workspace) -> None:
    """2**53 + 1 is no float64: int64 and float64 are not compared, and it says so."""
    write(project, "sales", id=[1], x=[2**53 + 1])
    write(project, "sales", "overwrite", id=[1], x=[float(2**53)])
    found = diff(project, "sales@0", "sales@1")
    assert (found.not_compared, found.same) == (("x",), False)


def test_a_key_that_is_gone(project: Workspace) -> None:
    """Bags then, with the reason."""
    write(project, "sales", id=[1], x=[1])
    write(project, "sales", "overwrite", x=[1])
    assert diff(project, "sales@0", "sales@1").by.startswith("as bags of rows: key column id is not in both")


def test_a_given_key_has_to_exist(project: Workspace) -> None:
    """The message lists what there is."""
    write(project, "sales", id=[1], x=[1])
    with pytest.raises(InputError, match=r"a key must name columns.*got \['z'\]\. Columns of both: id, x\."):
        diff(project, "sales", "sales", key=["z"])


# statistics ------------------------------------------------------------------------------------------------------


def test_statistics_that_moved(project: Workspace) -> None:
    """A shifted column, new nulls and a new category are found; noise is not."""
    n = 4000
    ids = list(range(n))
    steady = [(i * 7919) % 1000 / 10 for i in ids]
    word = [["a", "b"][i % 2] for i in ids]
    write(
        project, "sales", id=ids, steady=steady, shifted=steady, gaps=steady, word=word, empty=pa.nulls(n, pa.float64())
    )
    again = [(i * 104729) % 1000 / 10 for i in ids]
    write(project, "sales", "overwrite", id=[i + n for i in ids], steady=again, shifted=[v * 2 for v in steady],
          gaps=[None if i % 5 == 0 else v for i, v in enumerate(steady)],
          word=["c" if i % 3 == 0 else w for i, w in enumerate(word)], empty=pa.nulls(n, pa.float64()))  # fmt: skip
    found = {one.column: one for one in diff(project, "sales@0", "sales@1").statistics}
    assert found["steady"].moved == found["empty"].moved == ()
    assert {"mean", "std", "psi"} <= set(found["shifted"].moved)
    assert found["shifted"].mean == pytest.approx((49.95, 99.9))
    assert "nulls" in found["gaps"].moved
    assert found["gaps"].nulls == (0.0, 0.2)
    assert set(found["word"].moved) == {"distinct", "psi"}
    assert found["word"].distinct == (2, 3)


def test_ids_that_grow_with_the_rows_have_not_moved_in_number(project: Workspace) -> None:
    """Twice the rows have twice the ids."""
    write(project, "sales", id=list(range(1000)), x=["w"] * 1000)
    write(project, "sales", id=list(range(1000, 2000)), x=["w"] * 1000)
    found = {one.column: one for one in diff(project, "sales@0", "sales@1").statistics}
    assert "distinct" not in found["id"].moved
    assert found["x"].moved == ()


def test_few_rows_are_not_evaluable(project: Workspace) -> None:
    """Fewer than a hundred on a side say nothing."""
    write(project, "sales", id=[1], x=[1.0])
    write(project, "sales", "overwrite", id=[2], x=[1e9])
    found = diff(project, "sales@0", "sales@1")
    assert {one.status for one in found.statistics} == {"not evaluable"}
    assert found.moved == []


def test_numbers_at_the_edge_of_floats(project: Workspace) -> None:
    """Infinities, NaN and numbers whose square is infinite break nothing; means leave them out."""
    write(project, "sales", id=list(range(200)), x=[1e300, math.inf, -math.inf, NAN] + [1.0] * 196)
    write(project, "sales", "overwrite", id=list(range(200)), x=[1.0] * 200)
    found = {one.column: one for one in diff(project, "sales@0", "sales@1").statistics}
    assert found["x"].mean == (1.0, 1.0)
    assert found["x"].nulls == (0.005, 0.0)


def test_a_sample_of_a_large_table_is_the_same_twice(project: Workspace) -> None:
    """With a key by its hash, without one by a seed: the report does not flicker."""
    n = 450_000
    values = pa.array(range(n))
    write(project, "sales", id=values, x=values)
    write(project, "sales", "overwrite", id=values.slice(1), x=values.slice(1))
    for key in (["id"], []):
        one, two = (diff(project, "sales@0", "sales@1", key=key) for _ in range(2))
        assert [(s.psi, s.distinct, s.moved) for s in one.statistics] == [
            (s.psi, s.distinct, s.moved) for s in two.statistics
        ]
        assert one.moved == []


# output ----------------------------------------------------------------------------------------------------------


def test_all_differences_in_a_file(project: Workspace) -> None:
    """By key, with both values of each column; a limit keeps the first."""
    write(project, "sales", id=[1, 2, 3], x=[1, 2, 3])
    write(project, "sales", "overwrite", id=[2, 3, 4], x=[2, 9, 4])
    path = project.root / "changes.csv"
    assert diff(project, "sales@0", "sales@1", output=path).output == str(path)
    with path.open(newline="") as stream:
        rows = [list(row.values()) for row in csv.DictReader(stream)]
    assert rows == [
        ["removed", "", "1", "1", "1", ""],
        ["changed", "x", "1", "3", "3", "9"],
        ["added", "", "1", "4", "", "4"],
    ]
    diff(project, "sales@0", "sales@1", output=path, rows=1)
    assert len(path.read_text().splitlines()) == 2


def test_no_difference_is_a_file_without_rows(project: Workspace) -> None:
    """A program that reads it needs no special case."""
    write(project, "sales", id=[1], x=[1])
    path = project.root / "changes.parquet"
    diff(project, "sales", "sales", output=path)
    assert (pq.read_table(path).num_rows, pq.read_schema(path).names[:4]) == (
        0,
        ["_change", "_columns", "_count", "id"],
    )


def test_an_unknown_format_is_refused_before_any_work(project: Workspace) -> None:
    """The message says which there are."""
    write(project, "sales", id=[1])
    with pytest.raises(InputError, match=r"go to a \.parquet or \.csv file"):
        diff(project, "sales", "sales", output="changes.xlsx")


# bounds and damage -----------------------------------------------------------------------------------------------


def test_little_memory_is_enough(project: Workspace) -> None:
    """A comparison that does not fit spills into the project's folder and leaves nothing there."""
    n = 400_000
    ids = pa.array(range(n))
    text = pa.array([f"{i:040d}" for i in range(n)])
    write(project, "sales", id=ids, t=text)
    write(project, "sales", "overwrite", id=ids, t=text)
    found = diff(project, "sales@0", "sales@1", memory="90MB", statistics=False)
    assert found.same
    assert list((project.root / "state" / "temp").iterdir()) == []


def test_what_a_killed_process_left_is_swept(project: Workspace) -> None:
    """Its folder names a process that is no more."""
    write(project, "sales", id=[1])
    left = project.root / "state" / "temp" / f"{2**22 + 1}-X"
    left.mkdir(parents=True)
    diff(project, "sales", "sales")
    assert not left.exists()


def test_a_damaged_file_is_an_integrity_error(project: Workspace) -> None:
    """Never fewer rows."""
    write(project, "sales", id=list(range(1000)))
    write(project, "sales", "overwrite", id=list(range(1000)))
    (file,) = project.tables.files("sales", 0)
    path = next(Path(project.root).rglob(file.path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IntegrityError):
        diff(project, "sales@0", "sales@1")


def test_an_unknown_version(project: Workspace) -> None:
    """As everywhere."""
    write(project, "sales", id=[1])
    with pytest.raises(NotFoundError, match=r"the table must have this version; got 3\. Known: 0 to 0"):
        diff(project, "sales", "sales@3")
