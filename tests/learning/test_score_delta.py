"""Scores from Delta tables and into them: each job's rows once, whatever is killed or said again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.learning.test_score_job import TREES
from tests.project.test_tasks import LATE, rows, write
from tests.serving.project import DAYS, START

from retrodict import Project
from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError
from retrodict.core.identity import digest_file
from retrodict.learning.score_delta import DeltaOutput, open_delta


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parcels")
    write(folder, LATE, TREES, '{"call": "score > 0.5", "ok": "otherwise"}')
    with Project(folder, actor="ana", clock=SimulatedClock(START + DAYS * DAY)) as p:
        p.data.ingest("parcels", rows())
        p.train("parcel")
        yield p


@pytest.fixture(scope="module")
def scores(project):
    table = project.models.score("parcel@1", rows())
    return dict(zip(table.column("id").to_pylist(), table.column("score").to_pylist(), strict=True))


def pairs(folder):
    table = DeltaTable(folder).to_pyarrow_table()
    return Counter(zip(table.column("id").to_pylist(), table.column("score").to_pylist(), strict=True))


def score(project, source, output, **options):
    return project.models.score_files("parcel@1", input=str(source), output=str(output),
                                      **{"columns": ["id"], "chunk": 100} | options)  # fmt: skip


def parquet(path, table):
    pq.write_table(table, path)
    return path


def test_a_delta_table_is_scored_at_a_version(project, scores, tmp_path):
    """The newest, or the one that is named, with its partitions; job and ledger say which."""
    lake = tmp_path / "lake"
    write_deltalake(lake, rows().slice(0, 300), partition_by=["depot"])
    write_deltalake(lake, rows().slice(300, 100), mode="append")
    newest = score(project, lake, tmp_path / "new.parquet")
    first = score(project, f"{lake}@0", tmp_path / "old.parquet")
    assert (newest.rows, first.rows) == (400, 300)
    table = pq.read_table(tmp_path / "new.parquet")
    assert dict(zip(table.column("id").to_pylist(), table.column("score").to_pylist(), strict=True)) == {
        name: scores[name] for name in rows().column("id").to_pylist()[:400]}  # fmt: skip
    entries = project.workspace.ledger.entries(action="scores.write")[-2:]
    number = DeltaTable(lake).metadata().id
    assert [entry.payload["input"] for entry in entries] == [f"delta:lake:{number}@1", f"delta:lake:{number}@0"]
    DeltaTable(lake).optimize.compact()
    again = score(project, f"delta:{lake}@1", tmp_path / "new.parquet")
    assert (again.job, again.earlier) == (newest.job, newest.chunks)
    for source in (f"delta:{tmp_path}", f"{lake}@9"):
        with pytest.raises(InputError, match="a Delta table must be"):
            score(project, source, tmp_path / "other.parquet")


def test_jobs_add_their_rows_once(project, scores, tmp_path):
    """Said again, also with other chunks, nothing is added; other rows are, in a commit of their own."""
    one, two = (
        parquet(tmp_path / "1.parquet", rows().slice(0, 250)),
        parquet(tmp_path / "2.parquet", rows().slice(250, 50)),
    )
    lake = tmp_path / "lake"
    first = score(project, one, f"delta:{lake}")
    assert (first.output, first.scored, first.earlier) == (str(lake), 250, 0)
    again = score(project, one, lake)
    assert (again.job, again.earlier, again.scored) == (first.job, first.chunks, 250)
    score(project, one, lake, chunk=70)
    assert DeltaTable(lake).version() == 0
    score(project, two, lake)
    table = DeltaTable(lake)
    assert (table.version(), pairs(lake)) == (1, Counter([*scores.items()][:300]))
    assert set(table.to_pyarrow_table().column("model").to_pylist()) == {"parcel@1"}
    entry = project.workspace.ledger.entries(action="scores.write")[-1].payload
    (file,) = [file for file in lake.glob("*.parquet") if digest_file(file) in entry["sha256"]]
    assert [found.action for found in project.ledger.log(file=file)] == ["scores.write"]
    assert not [*lake.with_name("lake.jobs").glob("*/part-*")]


def test_rows_that_are_set_aside_are_beside_the_table(project, tmp_path):
    table = rows().slice(0, 50)
    sent = [None if place == 7 else value for place, value in enumerate(table.column("sent").to_pylist())]
    place = table.schema.get_field_index("sent")
    source = parquet(
        tmp_path / "in.parquet", table.set_column(place, "sent", pa.array(sent, table.schema.field("sent").type))
    )
    job = score(project, source, f"delta:{tmp_path / 'lake'}")
    assert (job.rows, job.scored, job.aside, sum(pairs(tmp_path / "lake").values())) == (50, 49, 1, 49)
    assert [json.loads(line)["row"] for line in Path(job.aside_file).read_text().splitlines()] == [7]
    assert str(tmp_path / "lake.jobs") in job.aside_file


@pytest.mark.parametrize("dies", ["finish", "publish", "write_aside"])
def test_a_kill_around_the_commit_doubles_nothing(project, scores, tmp_path, monkeypatch, dies):
    """Before it, the rows are added by the next call; after it, the next call finds them there."""
    source, lake = parquet(tmp_path / "in.parquet", rows().slice(0, 250)), tmp_path / "lake"
    with monkeypatch.context() as patch:
        patch.setattr(DeltaOutput, dies, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(project, source, f"delta:{lake}")
    assert lake.exists() == (dies == "finish")
    job = score(project, source, f"delta:{lake}")
    assert (job.earlier, job.chunks) == (3, 3)
    assert (DeltaTable(lake).version(), pairs(lake)) == (0, Counter([*scores.items()][:250]))
    assert score(project, source, lake).scored == 250


def test_killed_by_the_system_at_chance_it_adds_each_row_once(project, scores, tmp_path):
    """By the command line: while chunks are written, and as soon as the log has the commit."""
    many = pa.concat_tables([rows()] * 10).set_column(
        0, "id", pa.array([str(at) for at in range(rows().num_rows * 10)])
    )
    source, lake = parquet(tmp_path / "in.parquet", many), tmp_path / "lake"
    command = [sys.executable, "-m", "retrodict", "score", "parcel@1", "--project", str(project.folder), "--json",
               "--input", str(source), "--output", f"delta:{lake}", "--columns", "id", "--chunk", "1000"]  # fmt: skip
    for goal in (3, 9, None):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None:
            parts = len([*tmp_path.glob("lake.jobs/*/part-*.json")])
            if (lake / "_delta_log" / f"{0:020}.json").exists() if goal is None else parts >= goal:
                break
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    for _ in range(2):
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert report["rows"] == report["scored"] == many.num_rows
    assert DeltaTable(lake).version() == 0
    expected = [scores[name] for name in rows().column("id").to_pylist()] * 10
    assert pairs(lake) == Counter(zip(many.column("id").to_pylist(), expected, strict=True))


def test_replace_writes_the_partitions_of_its_rows_over(project, scores, tmp_path):
    """Text with quotes, dates and nulls; said again it is the same table; without partitions all is replaced."""
    days = [date(2024, 1, 1), date(2024, 1, 2), None]
    words = ["o'hare", 'a "b"', "c;--"]

    def source(name, start, count):
        table = rows().slice(start, count)
        table = table.append_column("day", pa.array([days[at % 3] for at in range(count)], pa.date32()))
        return parquet(tmp_path / name, table.append_column("word", pa.array([words[at % 2] for at in range(count)])))

    lake, how = tmp_path / "lake", {"columns": ["id", "day", "word"], "partition": ["day", "word"]}
    score(project, source("1.parquet", 0, 60), f"delta:{lake}", **how)
    later = parquet(tmp_path / "2.parquet", pq.read_table(source("x.parquet", 60, 60)).filter(
        pa.array([at % 6 in (0, 5) for at in range(60)])))  # day 1 with o'hare, and no day with the other  # fmt: skip
    for _ in range(2):
        score(project, later, lake, columns=how["columns"], replace=True)
        table = DeltaTable(lake).to_pyarrow_table()
        kept = [name for at, name in enumerate(rows().column("id").to_pylist()[:60]) if at % 6 not in (0, 5)]
        fresh = [name for at, name in enumerate(rows().column("id").to_pylist()[60:120]) if at % 6 in (0, 5)]
        assert sorted(table.column("id").to_pylist()) == sorted([*kept, *fresh])
        assert pairs(lake) == Counter((name, scores[name]) for name in [*kept, *fresh])
    whole = tmp_path / "whole"
    score(project, tmp_path / "1.parquet", f"delta:{whole}")
    score(project, later, whole, replace=True)
    assert sorted(DeltaTable(whole).to_pyarrow_table().column("id").to_pylist()) == sorted(fresh)
    assert DeltaTable(whole, version=0).to_pyarrow_table().num_rows == 60


def test_what_does_not_fit_is_refused_before_a_row_is_scored(project, tmp_path):
    source, lake = parquet(tmp_path / "in.parquet", rows().slice(0, 20)), tmp_path / "lake"
    score(project, source, f"delta:{lake}", columns=["id", "depot"], partition=["depot"])
    other = parquet(tmp_path / "other.parquet", rows().slice(20, 20))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for output, options, words in (
        (lake, {"columns": ["id"]}, "must have the columns of the scores"),
        (lake, {"columns": ["id", "depot"], "partition": ["id"]}, "must be what the Delta table is partitioned by"),
        (f"delta:{tmp_path / 'mine'}", {}, "must be a Delta table, or not be there yet"),
        (f"delta:{tmp_path / 'new'}", {"partition": ["deppot"]}, "must be a column of the output"),
        (tmp_path / "o.parquet", {"partition": ["id"]}, "must be a Delta table"),
    ):
        with pytest.raises(InputError, match=words):
            score(project, other, output, **options)
    assert (DeltaTable(lake).version(), (tmp_path / "new").exists()) == (0, False)
    huge = rows().slice(0, 5).append_column("size", pa.array([2**64 - 1] * 5, pa.uint64()))
    with pytest.raises(InputError, match="must have a type that tables keep"):
        score(project, parquet(tmp_path / "u.parquet", huge), f"delta:{tmp_path / 'u'}", columns=["id", "size"])
    assert not (tmp_path / "u").exists()


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(calls=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([40, 100]), st.booleans()), min_size=2, max_size=6))
def test_any_order_of_jobs_repeats_and_kills_gives_their_union(project, scores, tmp_path_factory, calls):
    """Against a set that knows nothing of logs."""
    folder, expected = tmp_path_factory.mktemp("any"), set()
    for which, chunk, killed in calls:
        table = rows().slice(which * 60, 60)
        source = parquet(folder / f"{which}.parquet", table)
        with pytest.MonkeyPatch.context() as patch:
            if killed:
                patch.setattr(DeltaOutput, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            try:
                score(project, source, f"delta:{folder / 'lake'}", chunk=chunk)
            except KeyboardInterrupt:
                assert killed
        expected |= {*table.column("id").to_pylist()}
        assert pairs(folder / "lake") == Counter((name, scores[name]) for name in expected)
    assert np.unique(DeltaTable(folder / "lake").to_pyarrow_table().column("id")).size == len(expected)


def test_other_chunks_after_a_kill_reuse_no_part_of_other_rows(project, scores, tmp_path, monkeypatch):
    """The second part of 40 and 20 rows has as many as the second of three by 20, and is of other rows."""
    source, lake = parquet(tmp_path / "in.parquet", rows().slice(0, 60)), tmp_path / "lake"
    with monkeypatch.context() as patch:
        patch.setattr(DeltaOutput, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(project, source, f"delta:{lake}", chunk=40)
    assert score(project, source, f"delta:{lake}", chunk=20).earlier == 0
    assert pairs(lake) == Counter([*scores.items()][:60])


def test_files_are_read_by_name_and_a_version_makes_another_job(project, tmp_path):
    """Delta promises no order; equal rows of a later version are another job."""
    lake = tmp_path / "lake"
    for start in range(0, 60, 10):
        write_deltalake(lake, rows().slice(start, 10), mode="append")
    order = [name for file in sorted(lake.glob("*.parquet")) for name in pq.read_table(file).column("id").to_pylist()]
    assert open_delta(str(lake))[0].read_all().column("id").to_pylist() == order
    write_deltalake(tmp_path / "twice", rows().slice(0, 10))
    write_deltalake(tmp_path / "twice", rows().slice(0, 10), mode="overwrite")
    jobs = [score(project, f"{tmp_path / 'twice'}@{version}", tmp_path / f"{version}.parquet") for version in (0, 1)]
    assert jobs[0].job != jobs[1].job
