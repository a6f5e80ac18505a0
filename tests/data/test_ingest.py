"""Ingest: rows in = accepted + quarantined, one batch one version, whatever dies and whoever else is at it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import BusyError, DefinitionError, InputError, RefusedError
from retrodict.data.ingest import ingest
from retrodict.ledger import verify
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Table
sales = Table("sales", key="id", columns={"id": "int", "amount": "float", "at": "time"}, checks=[
    Check.between("amount", 0, 100),
    Check.not_null("at", severity="critical", tolerance=0.25),
    Check.between("amount", 0, 50, severity="low"),
])
"""
COLUMNS = ("id", "amount", "at")


def csv_of(rows: list[tuple[object, ...]], header: tuple[str, ...] = COLUMNS) -> str:
    return "\n".join(",".join("" if v is None else str(v) for v in row) for row in [header, *rows]) + "\n"


AT = "2024-01-01T10:00:00Z"
GOOD = [(1, 10, AT), (2, 20, AT), (3, 60, AT), (4, 40, AT)]
MIXED = [*GOOD, (4, 1, AT), (5, -1, AT), (None, 1, AT), ("x", 1, AT), (6, "1_0", AT)]


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    return make_project(DEFINITIONS)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV file of rows."""

    def write(rows: list[tuple[object, ...]], name: str = "f.csv", header: tuple[str, ...] = COLUMNS) -> Path:
        path = tmp_path / name
        path.write_text(csv_of(rows, header))
        return path

    return write


def state(project: Workspace) -> tuple[int, ...]:
    """What there is: versions and rows of the table and of its quarantine, entries of the ledger."""
    tables = project.tables
    sizes = [n for name in ("sales", "sales__quarantine") for n in
             (len(tables.history(name)), tables.read(name).num_rows if tables.history(name) else 0)]  # fmt: skip
    return (*sizes, len(project.ledger.entries()))


def audit(project: Workspace) -> list[Any]:
    report = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    return report.findings


# what one ingest does -----------------------------------------------------------------------------------------


def test_a_batch_becomes_a_version_with_its_reasons(project: Workspace, file: Callable[..., Path]) -> None:
    """Typed rows in the table, the others as they came in quarantine, the counts in report, version and ledger."""
    report = ingest(project, "sales", file(MIXED))
    assert (report.version, report.rows_in, report.accepted, report.quarantined) == (0, 9, 4, 5)
    assert report.reasons == {
        "type(id, int)": 1, "type(amount, float)": 1, "not_null(id)": 2, "unique(id)": 1, "between(amount, 0, 100)": 1,
        "between(amount, 0, 50)": 2,
    }  # fmt: skip
    rows = project.tables.read("sales")
    assert rows.column("id").to_pylist() == [1, 2, 3, 4]
    assert rows.column("_row").to_pylist() == [0, 1, 2, 3]
    assert str(rows.schema.field("at").type) == "timestamp[us, tz=UTC]"
    aside = project.tables.read("sales__quarantine").to_pylist()
    assert [(row["row"], row["checks"]) for row in aside] == [
        (4, ["unique(id)"]), (5, ["between(amount, 0, 100)"]), (6, ["not_null(id)"]),
        (7, ["type(id, int)", "not_null(id)"]), (8, ["type(amount, float)"]),
    ]  # fmt: skip
    assert json.loads(aside[3]["original"]) == {"id": "x", "amount": "1", "at": AT}
    assert {(row["batch"], row["origin"]) for row in aside} == {(report.batch, "f.csv")}


def test_the_ledger_vouches_for_rows_quarantine_and_the_log(project: Workspace, file: Callable[..., Path]) -> None:
    """One entry, whose files an auditor checks; a version that is made to lose a file is found out."""
    ingest(project, "sales", file(MIXED))
    (entry,) = project.ledger.entries(action="dataset.version")
    assert (entry.object_id, entry.payload["rows_in"], entry.payload["reasons"]["unique(id)"]) == (
        "dataset:sales@0",
        9,
        1,
    )
    kinds = sorted((path.split("/")[0], path.rpartition(".")[2]) for path in entry.payload["files"])
    assert kinds == [
        ("sales", "json"),
        ("sales", "parquet"),
        ("sales__quarantine", "json"),
        ("sales__quarantine", "parquet"),
    ]
    assert audit(project) == []
    log = project.root / "state/tables/sales/_delta_log/00000000000000000000.json"
    log.write_text(log.read_text() + "\n")
    assert [(finding.kind, finding.where) for finding in audit(project)] == [("altered", "dataset:sales@0 (entry 2)")]


def test_the_same_batch_again_changes_nothing(project: Workspace, file: Callable[..., Path]) -> None:
    """By content, not by name; the report says the same."""
    first = ingest(project, "sales", file(MIXED))
    before = state(project)
    again = ingest(project, "sales", file(MIXED, "other.csv"))
    assert again.already
    assert {**again.to_dict(), "already": False} == first.to_dict()
    assert state(project) == before


def test_a_key_that_was_there_before_is_set_aside(project: Workspace, file: Callable[..., Path]) -> None:
    """And the new rows make the next version, made from the last one."""
    ingest(project, "sales", file(GOOD))
    report = ingest(project, "sales", file([(4, 1, AT), (5, 1, AT)], "g.csv"))
    assert (report.version, report.accepted, report.reasons) == (1, 1, {"new_key(id)": 1})
    assert project.tables.read("sales").column("id").to_pylist() == [1, 2, 3, 4, 5]
    assert ("dataset:sales@1", "previous version", "dataset:sales@0") in project.ledger.upstream("dataset:sales@1")


def test_a_batch_may_replace_the_table_and_come_back(project: Workspace, file: Callable[..., Path]) -> None:
    """Done is what the newest version holds, not what once was there."""
    one, two = file(GOOD, "1.csv"), file([(9, 9, AT)], "2.csv")
    assert [ingest(project, "sales", f, mode="overwrite").version for f in (one, two, one)] == [0, 1, 2]
    assert ingest(project, "sales", one, mode="overwrite").already
    assert ingest(project, "sales", one).already
    assert ingest(project, "sales", two).version == 3
    assert project.tables.read("sales").column("id").to_pylist() == [1, 2, 3, 4, 9]
    assert ingest(project, "sales", one, mode="overwrite").version == 4
    assert project.ledger.upstream("dataset:sales@4") == [
        ("dataset:sales@4", "rows", f"batch:{ingest(project, 'sales', one).batch}")
    ]


TURNS = itertools.count()
ROW = st.tuples(
    st.sampled_from([None, 1, 2, 3, "x", 1.5]),
    st.sampled_from([None, -1, 0, 50, 100, 101, "a"]),
    st.sampled_from([None, AT, "2024-01-01"]),
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(ROW, min_size=1, max_size=8), min_size=1, max_size=3))
def test_nothing_is_lost_and_nothing_doubled(
    batches: list[list[tuple[object, ...]]], make_project: Callable[..., Workspace], file: Callable[..., Path]
) -> None:
    """Over several batches: every row is in the table once, in quarantine once, or in a batch that was refused."""
    project = make_project(DEFINITIONS, folder=f"shop{next(TURNS)}")
    keys: list[int] = []
    for number, rows in enumerate(batches):
        path = file(rows, f"{number}.csv")
        missing = sum(at != AT for *_, at in rows)
        halted = missing / len(rows) > 0.25
        accepted = accepted_by_hand(rows, keys)
        if halted or not accepted:
            before = project.tables.history("sales")
            with pytest.raises(RefusedError):
                ingest(project, "sales", path)
            assert project.tables.history("sales") == before
            continue
        report = ingest(project, "sales", path)
        if report.already:
            continue
        assert (report.rows_in, report.accepted) == (len(rows), len(accepted))
        assert report.accepted + report.quarantined == report.rows_in
        keys += accepted
        assert project.tables.read("sales").column("id").to_pylist() == keys
    assert audit(project) == []


def accepted_by_hand(rows: list[tuple[object, ...]], known: list[int]) -> list[int]:
    """Keys of the rows that pass every check."""
    found = []
    for place, (key, amount, at) in enumerate(rows):
        passes = isinstance(key, int) and key not in known and key not in [row[0] for row in rows[:place]]
        passes = passes and (amount is None or (isinstance(amount, int) and 0 <= amount <= 100)) and at == AT
        if passes:
            found.append(key)
    return found  # type: ignore[return-value]


# refused ------------------------------------------------------------------------------------------------------


def test_a_critical_check_halts_the_batch(project: Workspace, file: Callable[..., Path]) -> None:
    """Beyond its tolerance; the table stays, the rows are in quarantine, the ledger says so once."""
    ingest(project, "sales", file(GOOD))
    bad = file([(7, 1, None), (8, 1, None), (9, 1, AT), (10, 1, AT)], "bad.csv")
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"not_null\(at\) \(critical\).*got '2 of 4 rows'.*sales__quarantine"):
            ingest(project, "sales", bad)
        assert state(project) == (1, 4, 1, 2, 3)
    assert project.ledger.entries(action="dataset.refuse")[0].payload["failed"] == {"not_null(at)": 2}
    assert audit(project) == []


def test_a_share_at_the_tolerance_does_not_halt(project: Workspace, file: Callable[..., Path]) -> None:
    """One of four is 25 %."""
    report = ingest(project, "sales", file([(7, 1, None), (8, 1, AT), (9, 1, AT), (10, 1, AT)]))
    assert (report.accepted, report.quarantined) == (3, 1)


def test_a_refused_batch_passes_by_other_checks(
    make_project: Callable[..., Workspace], file: Callable[..., Path]
) -> None:
    """With a quarantine of its own: what is set aside now is not what was set aside then."""
    bad = file([(7, 1, None), (8, 200, AT), (9, 1, AT)])
    with make_project(DEFINITIONS) as project, pytest.raises(RefusedError):
        ingest(project, "sales", bad)
    with make_project(DEFINITIONS.replace('"critical"', '"low"')) as project:
        assert ingest(project, "sales", bad).quarantined == 1
        newest = project.tables.history("sales__quarantine")[-1].version
        assert newest == 1
        assert project.tables.read("sales__quarantine").column("row").to_pylist() == [0, 1, 1]


def test_a_batch_of_which_nothing_passes(project: Workspace, file: Callable[..., Path]) -> None:
    """Refused, with the reasons in quarantine."""
    with pytest.raises(
        RefusedError, match=r"at least one row.*got '0 of 1 rows, most by type.*data quarantine show sales"
    ):
        ingest(project, "sales", file([("x", 1, AT)]))
    assert state(project) == (0, 0, 1, 1, 2)


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "a column missing": (("id", "amount"), "the declared column must be in the batch; got 'at'"),
    "two names that differ in case": (("id", "amount", "at", "AT"), "upper and lower case"),
    "a name of the platform": (("id", "amount", "at", "_batch"), "underscore"),
    "no header": (("1", "10", "2024-01-01T10:00:00Z"), "none of them known"),
    "no rows": (COLUMNS, "at least one row"),
}


@pytest.mark.parametrize("first", [True, False], ids=["new table", "known table"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_batch_that_does_not_fit_leaves_everything_as_it_was(
    case: str, first: bool, project: Workspace, file: Callable[..., Path]
) -> None:
    """No version, no quarantine, no entry."""
    header, said = REFUSED[case]
    if not first:
        ingest(project, "sales", file(GOOD))
    before = state(project)
    rows = [] if case == "no rows" else [("x", *[1] * (len(header) - 1)), (5, *[1] * (len(header) - 1))]
    with pytest.raises((InputError, DefinitionError), match=said):
        ingest(project, "sales", file(rows, "odd.csv", header))
    assert state(project) == before


def test_another_type_in_a_known_column(project: Workspace) -> None:
    """Said before anything is written, with both types."""
    rows = {"id": [1], "amount": [1.0], "at": [AT], "n": [1]}
    ingest(project, "sales", pa.table(rows))
    before = state(project)
    with pytest.raises(InputError, match=r"type: n is int64 and arrives as double.*--replace"):
        ingest(project, "sales", pa.table({**rows, "id": [2], "n": [0.5]}))
    with pytest.raises(InputError, match=r"missing: n.*--replace"):
        ingest(project, "sales", pa.table({"id": [2], "amount": [1.0], "at": [AT]}))
    assert state(project) == before
    report = ingest(project, "sales", pa.table({**rows, "id": [2], "n": pa.nulls(1)}))
    assert (report.version, project.tables.read("sales").column("n").to_pylist()) == (1, [1, None])


@pytest.mark.parametrize("names", [("a.b", 'q"x', "select"), ("größe", "t", "known"), ("order", "it's", "x-y")])
def test_odd_column_names_go_through(names: tuple[str, ...], project: Workspace, file: Callable[..., Path]) -> None:
    """From the header to the table and to the quarantine."""
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    rows = [(1, 1, AT, "a", "b", "c"), ("x", 1, AT, "a", "b", "c")]
    ingest(project, "sales", file(rows, header=(*COLUMNS, *quoted)))
    assert [project.tables.read("sales").column(name).to_pylist() for name in names] == [["a"], ["b"], ["c"]]
    assert json.loads(project.tables.read("sales__quarantine").column("original")[0].as_py())[names[1]] == "b"


def test_an_unknown_table_names_the_near_ones(project: Workspace, file: Callable[..., Path]) -> None:
    """Before the file is looked at."""
    with pytest.raises(InputError, match="Did you mean the table 'sales'"):
        ingest(project, "slaes", "no such file")


# deaths and crowds --------------------------------------------------------------------------------------------

DIES = """
import fcntl, os, signal, sys
import duckdb, pyarrow.parquet
from retrodict.data.ingest import ingest
from retrodict.workspace import Workspace
path, moment, turns, calls = sys.argv[1], sys.argv[2], eval(sys.argv[3]), [0]
def deadly(real, n):
    def call(*args, **kwargs):
        calls[0] += 1
        mine = calls[0] == n
        if mine and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*args, **kwargs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return call
def run(root, n):
    project = Workspace(root)
    project.ledger
    if moment == "disk":
        os.fsync = deadly(os.fsync, n)
    else:
        project.tables.write = deadly(project.tables.write, n)
        project.records.write = deadly(project.records.write, n)
        fcntl.flock = deadly(fcntl.flock, n)  # held by writers of tables, and to sign
    ingest(project, "sales", path)
for n, root in zip(turns, sys.argv[4:]):
    pid = os.fork()
    if pid == 0:
        run(root, n)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


# Calls of one ingest: its lock, the quarantine (2, it has a lock too, begins the chain, with a signature, and is
# announced), the rows (7, with a lock, and announced), the entry (10), its signature (11).
DEATHS = [
    pytest.param("before", [7, 10, 11], id="between the steps"),
    pytest.param("before", range(1, 14), id="before each call", marks=pytest.mark.slow),
    pytest.param("after", range(1, 14), id="after each call", marks=pytest.mark.slow),
    pytest.param("disk", range(1, 45), id="at each sync of the disk", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("moment", "turns"), DEATHS)
def test_a_death_is_completed_by_the_same_call(
    moment: str,
    turns: Sequence[int],
    make_project: Callable[..., Workspace],
    file: Callable[..., Path],
    python: Callable[..., Any],
) -> None:
    """Killed at the n-th call until it lives: afterwards one version, one quarantine, one entry, all verified."""
    path = file(MIXED)
    roots = [make_project(DEFINITIONS, folder=f"shop{n}").root for n in turns]
    code, out, said = python(DIES, path, moment, list(turns), *roots).end()
    assert code == 0, said
    ends = [int(line) for line in out.split()]
    assert ends == sorted(ends)
    assert set(ends) == ({-9} if len(turns) == 3 else {-9, 0})
    for root in roots[: ends.count(-9)]:
        with Workspace(root, actor="ann") as project:
            report = ingest(project, "sales", path)
            assert (report.version, report.accepted, report.quarantined, report.reasons["unique(id)"]) == (0, 4, 5, 1)
            assert state(project) == (1, 4, 1, 5, 2)
            assert project.ledger.entries(action="dataset.version")[0].payload["reasons"]["unique(id)"] == 1
            assert audit(project) == []


CROWD = """
import sys
from retrodict.data.ingest import ingest
from retrodict.workspace import Workspace
project = Workspace(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for path in sys.argv[2:]:
    print(ingest(project, "sales", path).version, flush=True)
"""


def test_two_processes_ingest_into_one_table(
    project: Workspace, file: Callable[..., Path], python: Callable[..., Any]
) -> None:
    """Some batches are the same, some keys are the same: nothing is lost, nothing is twice."""
    shared = file([(100, 1, AT), (101, 1, AT)], "shared.csv")
    own = [[file([(10 * p + i, 1, AT), (200 + i, 1, AT)], f"{p}-{i}.csv") for i in range(3)] for p in range(2)]
    children = [python(CROWD, project.root, shared, *paths) for paths in own]
    for child in children:
        assert child.line() == "ready", child.end()
    for child in children:
        child.go()
    ends = [child.end() for child in children]
    assert [code for code, *_ in ends] == [0, 0], [err for *_, err in ends]
    keys = project.tables.read("sales").column("id").to_pylist()
    assert sorted(keys) == [0, 1, 2, 10, 11, 12, 100, 101, 200, 201, 202]
    assert len(project.tables.history("sales")) == 7
    assert project.tables.read("sales__quarantine").num_rows == 3
    assert [e.object_id for e in project.ledger.entries(action="dataset.version")] == [
        f"dataset:sales@{v}" for v in range(7)
    ]
    assert audit(project) == []


def test_whoever_waits_is_told_who_holds_the_table(project: Workspace) -> None:
    """Not for ever, and with the process."""
    with project.lock("ingest/sales"), pytest.raises(BusyError, match=r"ingest/sales.*process \d+"):
        project.lock("ingest/sales", timeout_s=0.01)
