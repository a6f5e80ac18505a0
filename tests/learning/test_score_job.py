"""Scores of files: the same numbers as of a frame, every row accounted for, and kills that cost nothing but time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.project.test_tasks import LATE, SPLIT, rows, write
from tests.serving.project import DAYS, START

from retrodict import Project
from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import BusyError, InputError, InternalError, NotFoundError, RefusedError, RetryableError
from retrodict.core.identity import digest_file
from retrodict.learning import Scorer, score_faults, score_job
from retrodict.learning.score_output import ScoreOutput

LATER = datetime(2031, 1, 1, tzinfo=UTC)
TREES = f'recipe=Recipe("lightgbm", {SPLIT}, params={{"num_iterations": 20}})'


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parcels")
    write(folder, LATE, TREES, '{"call": "score > 0.5", "ok": "otherwise"}')
    with Project(folder, actor="ana", clock=SimulatedClock(START + DAYS * DAY)) as p:
        p.data.ingest("parcels", rows())
        p.train("parcel")
        yield p


@pytest.fixture(scope="module")
def expected(project):
    return project.models.score("parcel@1", rows()).column("score").to_pylist()


def by_id(path):
    table = pq.read_table(path)
    return dict(zip(table.column("id").to_pylist(), table.column("score").to_pylist(), strict=True))


def copy_project(project, folder):
    """By another process: a file of SQLite that is opened and closed in this one loses the locks that it holds."""
    subprocess.run(["cp", "-r", project.folder, folder], check=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_is_scored_as_a_frame_is(project, expected, tmp_path, jobs):
    """Chunk by chunk, in order, whatever the number of processes; the columns come along."""
    pq.write_table(rows(), tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    job = project.models.score_files(
        "parcel", input=str(tmp_path / "in.parquet"), output=str(out), chunk=300, jobs=jobs
    )
    table = pq.read_table(out)
    assert table.column("score").to_pylist() == expected
    assert table.drop_columns(["score", "model"]).equals(rows())
    assert set(table.column("model").to_pylist()) == {"parcel@1"}
    assert (job.rows, job.scored, job.aside, job.ok) == (len(expected), len(expected), 0, True)
    assert job.chunks == -(-len(expected) // 300)
    assert 0 <= job.psi < 0.2
    assert not (tmp_path / "out.parquet.parts").exists()


def test_rows_that_are_none_of_the_model_are_set_aside_with_their_reasons(project, expected, tmp_path):
    """In is scored and set aside; the places are those of the input, and the neighbours have their scores."""
    table = rows().slice(0, 500)
    columns = {name: [None if v is None else str(v) for v in table.column(name).cast(pa.string()).to_pylist()]
               for name in table.column_names}  # fmt: skip
    columns["sent"][7], columns["weight"][450], columns["sent"][450] = None, "heavy", "yesterday"
    pacsv.write_csv(pa.table(columns), tmp_path / "in.csv")
    out = tmp_path / "out.csv"
    job = project.models.score_files("parcel@1", input=str(tmp_path / "in.csv"), output=str(out), chunk=100,
                                     columns=["id"])  # fmt: skip
    assert (job.rows, job.scored, job.aside) == (500, 498, 2)
    aside = [json.loads(line) for line in Path(job.aside_file).read_text().splitlines()]
    assert [row["row"] for row in aside] == [7, 450]
    assert sum(job.reasons.values()) >= 3
    assert "heavy" in aside[1]["original"]
    scored = pacsv.read_csv(out)
    assert scored.column_names == ["id", "score", "model"]
    kept = [score for place, score in enumerate(expected[:500]) if place not in (7, 450)]
    assert scored.column("score").to_pylist() == pytest.approx(kept, rel=1e-12)


def test_nothing_but_bad_rows_is_a_no(project, tmp_path):
    table = rows().slice(0, 3)
    table = table.set_column(table.column_names.index("sent"), "sent", pa.nulls(3, pa.timestamp("us", "UTC")))
    pq.write_table(table, tmp_path / "in.parquet")
    job = project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.parquet"))
    assert (job.scored, job.aside, job.ok, job.psi) == (0, 3, False, None)
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 0


def test_the_same_job_does_nothing_and_another_one_is_refused(project, tmp_path):
    """Also where its file was altered meanwhile; `replace` writes over it; other rows are another job."""
    pq.write_table(rows().slice(0, 50), tmp_path / "in.parquet")
    out, entries = tmp_path / "o.parquet", project.workspace.ledger.entries
    before = len([*entries(action="scores.write")])
    first = project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(out))
    again = project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(out))
    assert (again.job, again.earlier, again.scored) == (first.job, first.chunks, 50)
    entry = [*entries(action="scores.write")][before:]
    assert [one.object_id for one in entry] == [f"scores:{first.job[:16]}"]
    assert "model:parcel@1" in str(project.workspace.ledger.upstream(entry[0].object_id))
    pq.write_table(rows().slice(0, 51), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="the output must not be there yet, or be this job's"):
        project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(out))
    assert pq.read_table(out).num_rows == 50
    assert project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(out),
                                      replace=True).rows == 51  # fmt: skip


@pytest.mark.parametrize("name", ["o.parquet", "folder"])
def test_an_altered_output_is_told_from_what_was_written(project, tmp_path, name):
    """Of the same size too: the ledger names its contents no longer, and the same call says so."""
    pq.write_table(rows().slice(0, 50), tmp_path / "in.parquet")
    out = tmp_path / name
    options = {"input": str(tmp_path / "in.parquet"), "output": str(out), "chunk": 20}
    first = project.models.score_files("parcel", **options)
    file = out if out.is_file() else out / "part-00001.parquet"
    assert [one.action for one in project.ledger.log(file=file)] == ["scores.write"]
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)
    assert list(project.ledger.log(file=file)) == []
    with pytest.raises(InputError, match="must be as this job wrote it, and was altered since"):
        project.models.score_files("parcel", **options)
    assert file.read_bytes() == bytes(body)
    side = tmp_path / "o.parquet.json" if out.is_file() else out / "job.json"
    report = json.loads(side.read_text())
    digests = [digest_file(one) for one in ([out] if out.is_file() else sorted(out.glob("part-*.parquet")))]
    for forged in ({**report, "sha256": digests}, {**report, "scored": 999}):  # the ledger says otherwise
        side.write_text(json.dumps(forged))
        with pytest.raises(InputError, match="was altered since"):
            project.models.score_files("parcel", **options)
    file.unlink()
    with pytest.raises(InputError, match="was altered since"):
        project.models.score_files("parcel", **options)
    again = project.models.score_files("parcel", **options, replace=True)
    assert (again.job, again.earlier) == (first.job, 0)
    assert [one.action for one in project.ledger.log(file=file)][-1] == "scores.write"
    with pytest.raises(NotFoundError, match="Name one file"):
        project.ledger.log(file=tmp_path)


def test_every_file_of_a_folder_has_parts_of_its_own(project, expected, tmp_path):
    """A part holds rows of one file; a folder that is not such an output is never replaced."""
    (tmp_path / "in").mkdir()
    for number, (start, count) in enumerate([(0, 120), (120, 10), (130, 70)]):
        pq.write_table(rows().slice(start, count), tmp_path / "in" / f"{number}.parquet")
    job = project.models.score_files("parcel", input=str(tmp_path / "in"), output=str(tmp_path / "out"), chunk=100)
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [100, 20, 10, 70]
    assert [s for part in parts for s in pq.read_table(part).column("score").to_pylist()] == expected[:200]
    assert job.chunks == 4
    assert project.models.score_files("parcel", input=str(tmp_path / "in"), output=str(tmp_path / "out"),
                                      chunk=100).earlier == 4  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="must be the output of such a job"):
        project.models.score_files("parcel", input=str(tmp_path / "in"), output=str(tmp_path / "mine"), replace=True)
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_rows_without_a_column_are_refused_before_anything_is_written(project, tmp_path):
    pq.write_table(rows().drop_columns(["depot"]), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="'depot'"):
        project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.parquet"))
    pq.write_table(rows().append_column("score", rows().column("weight")), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="must have no column with the name of an output"):
        project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.parquet"))
    with pytest.raises((InputError, NotFoundError)):
        project.models.score_files("parcel", input="nowhere.parquet", output=str(tmp_path / "o.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet"]


def test_a_table_of_the_project_is_read_by_its_name(project, expected, tmp_path):
    job = project.models.score_files("parcel", input="parcels@0", output=str(tmp_path / "o.parquet"), columns=["id"])
    assert by_id(tmp_path / "o.parquet") == dict(zip(rows().column("id").to_pylist(), expected, strict=True))
    assert list(job.versions) == ["parcels"]


def test_a_chunk_of_a_release_that_did_not_count_is_scored_again(tmp_path):
    """Its report has no counts, without which there is no history."""
    place = ScoreOutput(tmp_path / "parts")
    place.parts.mkdir()
    place.part(0).write_bytes(b"rows")
    report = {"start": 0, "rows": 2, "sha256": digest_file(place.part(0)), "counts": {}, "span": None}
    for absent in ("", "counts", "span"):
        body = {name: value for name, value in report.items() if name != absent}
        place.part(0, ".json").write_text(json.dumps(body))
        assert (place.chunk(0, 0, 2) is None) == bool(absent)


def test_a_name_of_both_a_table_and_a_path_is_refused(project, tmp_path, monkeypatch):
    """Else the working directory would decide which rows are scored."""
    (tmp_path / "parcels").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"parcels@VERSION for the table, ./parcels for the path"):
        project.models.score_files("parcel", input="parcels", output="o.parquet")
    assert project.models.score_files("parcel", input="parcels@0", output="o.parquet").rows > 0


def test_killed_five_times_it_writes_what_it_writes_unkilled(project, expected, tmp_path):
    """By the command line, with two processes, at chance; what was done is not done again, later rows do not count."""
    many = pa.concat_tables([rows()] * 40)
    many = many.set_column(0, "id", pa.array(np.arange(many.num_rows)))
    pq.write_table(many, tmp_path / "in.parquet")
    out, parts = tmp_path / "o.parquet", tmp_path / "o.parquet.parts"
    options = {"input": tmp_path / "in.parquet", "output": out, "chunk": 1000, "jobs": 2, "columns": "id"}
    command = [sys.executable, "-m", "retrodict", "score", "parcel@1", "--project", str(project.folder), "--json"]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    total, kills, written = -(-many.num_rows // 1000), 0, dict[str, int]()
    while kills < 5 and not out.exists():  # a machine that is busy elsewhere may miss its moment
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        goal = len(written) + (total - 4) // 6
        while process.poll() is None and len([*parts.glob("part-*.json")]) < goal:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.json")}
        assert written.items() <= done.items() or out.exists()
        written, kills = done, kills + 1
    assert kills > 1
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads(answer.stdout)
    assert len(written) <= report["earlier"] <= report["chunks"] == total
    assert report["rows"] == report["scored"] == many.num_rows
    assert pq.read_table(out).column("score").to_pylist() == expected * 40


def test_a_resumed_job_reads_the_tables_that_it_began_with(project, tmp_path, monkeypatch):
    """An append between a kill and the next call would give the second half other features."""
    pq.write_table(rows().slice(0, 200), tmp_path / "in.parquet")
    whole = score_job._Worker.__call__

    def dies(worker, number, *rest):
        if number == 1:
            raise KeyboardInterrupt
        return whole(worker, number, *rest)

    monkeypatch.setattr(score_job._Worker, "__call__", dies)
    how = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "o.parquet"), "chunk": 100}
    with pytest.raises(KeyboardInterrupt):
        project.models.score_files("parcel", **how)
    monkeypatch.undo()
    late = rows().slice(0, 1).to_pylist()[0] | {"id": "later", "sent": LATER, "arrived": LATER}
    project.data.ingest("parcels", pa.Table.from_pylist([late], schema=rows().schema))
    job = project.models.score_files("parcel", **how)
    assert (job.earlier, job.versions) == (1, {"parcels": 0})
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 200


def test_another_job_does_not_take_an_unfinished_output(project, tmp_path):
    """Parts of a job that was stopped are not thrown away by another one; the job itself goes on."""
    pq.write_table(rows().slice(0, 200), tmp_path / "in.parquet")
    how = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "o.parquet"), "chunk": 100}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_job, "_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            project.models.score_files("parcel", **how)
    with pytest.raises(InputError, match="the output must not be there yet, or be this job's"):
        project.models.score_files("parcel", **how, columns=["id"])
    assert project.models.score_files("parcel", **how).scored == 200


def test_a_job_of_another_project_is_not_gone_on_with_on_other_rows_of_the_same_number(project, tmp_path):
    """Copies of a project have the same model, and versions with one number may hold other rows: features would mix."""
    copies = [tmp_path / "left", tmp_path / "right"]
    for place, copy in enumerate(copies):
        copy_project(project, copy)
        if place:
            with Project(copy, actor="bo", clock=SimulatedClock(START + DAYS * DAY)) as p:
                late = rows().slice(0, 5)
                p.data.ingest("parcels", late.set_column(0, "id", pa.array([f"new{i}" for i in range(5)])))
    with Project(copies[0], actor="ana", clock=SimulatedClock(START + DAYS * DAY)) as p:
        p.data.ingest("parcels", rows().slice(5, 5).set_column(0, "id", pa.array([f"old{i}" for i in range(5)])))
    pq.write_table(rows().slice(11, 180), tmp_path / "in.parquet")
    how = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "o.parquet"), "chunk": 100}
    left, right = (Project(copy, actor="ana", clock=SimulatedClock(START + DAYS * DAY)) for copy in copies)
    with pytest.MonkeyPatch.context() as patch, left, right:
        patch.setattr(score_job, "_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            left.models.score_files("parcel@1", **how)
        patch.undo()
        with pytest.raises(InputError, match="must not be there yet, or be this job's"):
            right.models.score_files("parcel@1", **how)
        assert left.models.score_files("parcel@1", **how).scored == 180
        with pytest.raises(InputError, match=r"must be written by one project.*a job that the ledger does not have"):
            right.models.score_files("parcel@1", **how)
        assert right.models.score_files("parcel@1", **how, replace=True).scored == 180


@pytest.mark.parametrize("name", ["o.parquet", "o", "delta:o"])
def test_no_other_project_and_no_other_spelling_writes_an_output_that_is_being_written(project, tmp_path, name):
    """Two projects held a lock each and wrote one file; so did two calls, one of which went through a link."""
    kind, _, plain = name.rpartition(":")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    other = tmp_path / "other"
    copy_project(project, other)
    pq.write_table(rows().slice(0, 200), tmp_path / "in.parquet")
    prefix = f"{kind}:" if kind else ""

    def score(p, output):
        return p.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=output, chunk=100)

    begun, ran = threading.Event(), score_job._run

    def slow(*options):
        begun.set()
        ended.wait(60)
        return ran(*options)

    ended, results = threading.Event(), []
    clock = SimulatedClock(START + DAYS * DAY)
    with pytest.MonkeyPatch.context() as patch, Project(other, actor="bo", clock=clock) as second:
        patch.setattr(score_job, "_run", slow)
        output = f"{prefix}{tmp_path / 'real' / plain}"
        job = threading.Thread(target=lambda: results.append(score(project, output)))
        job.start()
        assert begun.wait(60)
        try:
            for p in (project, second):
                for folder in ("real", "link", "real/../link"):
                    with pytest.raises(BusyError, match=r"one writer at a time.* got 'process \d+ since"):
                        score(p, f"{prefix}{tmp_path}/{folder}/{plain}")
        finally:
            ended.set()
            job.join()
    assert results[0].scored == 200
    assert not [path.name for path in (tmp_path / "real").iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_said_and_the_job_goes_on_later(project, tmp_path, monkeypatch):
    pq.write_table(rows().slice(0, 200), tmp_path / "in.parquet")
    how = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "o.parquet"), "chunk": 100}
    with monkeypatch.context() as patch:
        patch.setattr(score_job.pq, "write_table", lambda *_: (_ for _ in ()).throw(OSError(28, "no room")))
        with pytest.raises(RetryableError, match="what is written must find its place"):
            project.models.score_files("parcel", **how)
    assert project.models.score_files("parcel", **how).scored == 200


def test_lists_are_refused_for_csv_and_the_job_can_still_write_parquet(project, tmp_path):
    """What CSV cannot hold is said once all is scored; nothing stands under the name that was asked for."""
    table = rows().slice(0, 50)
    pq.write_table(table.append_column("tags", pa.array([["a", "b"]] * 50)), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="must hold plain values only"):
        project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.csv"))
    assert not (tmp_path / "o.csv").exists()
    job = project.models.score_files("parcel", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.parquet"))
    assert job.scored == 50


def test_a_name_alone_never_means_a_rejected_version(project):
    """The newest approved one, else the newest that nobody judged; where all were rejected it is refused."""
    newer = project.train("parcel", again=True).version.ref
    assert Scorer(project.workspace, "parcel").ref == newer
    project.models.reject(newer, reason="worse")
    assert Scorer(project.workspace, "parcel").ref == "parcel@1"
    assert Scorer(project.workspace, newer).ref == newer  # who names it means it
    project.models.reject("parcel@1", reason="worse, too")
    with pytest.raises(RefusedError, match="approved, or not rejected"):
        Scorer(project.workspace, "parcel")
    with Project(project.workspace.root, actor="ben", clock=project.workspace.clock) as other:
        other.models.approve("parcel@1", reason="good after all")
    assert Scorer(project.workspace, "parcel").ref == "parcel@1"


def test_a_version_that_is_not_approved_is_scored_with_a_warning(project, tmp_path, caplog):
    """Scores of it are for looking at before it is approved; whoever does more with them has been told."""
    pq.write_table(rows().slice(0, 20), tmp_path / "in.parquet")
    new = project.train("parcel", again=True).version.ref
    task = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out.parquet")}
    assert project.models.score_files(new, **task).scored == 20
    assert f"model:{new} is not approved" in caplog.text
    with Project(project.workspace.root, actor="ben", clock=project.workspace.clock) as other:
        other.models.approve(new, reason="good")
    caplog.clear()
    project.models.score_files(new, **task)
    assert not caplog.text
    project.models.reject(new, reason="as before")


@pytest.mark.slow
def test_on_ray_the_parts_are_those_of_this_process(project, tmp_path):
    """Byte for byte, on a cluster of this machine with two actors; what is done is not done again."""
    pytest.importorskip("ray", reason="the extra ray: make ray")
    pq.write_table(rows(), tmp_path / "in.parquet")
    how = {"input": str(tmp_path / "in.parquet"), "chunk": 300}
    here = project.models.score_files("parcel@1", output=str(tmp_path / "here"), **how)
    there = project.models.score_files("parcel@1", output=str(tmp_path / "there"), engine="ray", jobs=2, **how)
    assert (there.chunks, there.scored, there.earlier) == (here.chunks, here.scored, 0)
    parts = [sorted((tmp_path / name).glob("part-*.parquet")) for name in ("here", "there")]
    assert [*map(digest_file, parts[0])] == [*map(digest_file, parts[1])]
    again = project.models.score_files("parcel@1", output=str(tmp_path / "there"), engine="ray", jobs=2, **how)
    assert again.earlier == again.chunks


@pytest.mark.slow
def test_a_node_of_ray_that_dies_is_said_and_the_job_goes_on(project, tmp_path):
    """The actor that scores is killed by the system; the next call does what is missing."""
    pytest.importorskip("ray", reason="the extra ray: make ray")
    pq.write_table(rows(), tmp_path / "in.parquet")
    how = {"input": str(tmp_path / "in.parquet"), "chunk": 100, "output": str(tmp_path / "o.parquet")}

    def kill(_what, done, _total):
        for path in Path("/proc").glob("[0-9]*") if done else ():
            with suppress(OSError):
                ours = b"a_node_of_ray_that_dies" in (path / "environ").read_bytes()
                if ours and b"_Worker" in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)

    with pytest.raises(RetryableError, match="every process must live"):
        score_job.score_files(Scorer(project.workspace, "parcel@1"), how["input"], how["output"], chunk=100,
                              engine="ray", progress=kill)  # fmt: skip
    job = project.models.score_files("parcel@1", **how)
    assert 0 < job.earlier < job.chunks
    assert job.scored == rows().num_rows


FAULTY = """
@derived
def size(weight: float, express: bool):
    if (weight < 0).any():
        raise ValueError(f"a weight of {weight.min()}")
    return {"weight": weight, "express": express}
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A model that reads a number as it comes, and by a function that raises for a negative one."""
    folder = tmp_path_factory.mktemp("faulty")
    write(folder, LATE, TREES, '{"call": "score > 0.5", "ok": "otherwise"}')
    text = (folder / "definitions.py").read_text()
    before, _, after = text.partition("\n@derived\ndef size")
    after = after.partition('"express": express}\n')[2].replace("size, moment]", "size, moment, columns('hint')]")
    text = before + FAULTY + after
    (folder / "definitions.py").write_text(text)
    with Project(folder, actor="ana", clock=SimulatedClock(START + DAYS * DAY)) as p:
        p.data.ingest("parcels", hinted(rows()))
        p.train("parcel")
        yield p


def hinted(table):
    return table.append_column("hint", table.column("weight"))


def spoiled(table, name, values):
    """The table with other numbers at some places."""
    column = table.column(name).to_pylist()
    for place, value in values.items():
        column[place] = value
    return table.set_column(table.column_names.index(name), name, pa.array(column))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_fault_of_single_rows_costs_these_rows_only(faulty, tmp_path, jobs):
    """An infinity, and what a function raises for: set aside, with the kind and no value; all else as of a frame."""
    plain = hinted(rows().slice(0, 500))
    bad = spoiled(spoiled(plain, "hint", {0: float("inf"), 7: float("-inf"), 450: float("inf")}), "weight",
                  {8: -5.25, 9: -6.25, 450: -7.25})  # fmt: skip
    pq.write_table(bad, tmp_path / "in.parquet")
    job = faulty.models.score_files("parcel@1", input=str(tmp_path / "in.parquet"),
                                    output=str(tmp_path / "o.parquet"), chunk=200, jobs=jobs)  # fmt: skip
    assert (job.rows, job.scored, job.aside) == (500, 495, 5)
    infinite, raised = sorted(job.reasons, key=job.reasons.get)
    assert (job.reasons[infinite], job.reasons[raised]) == (2, 3)
    assert infinite == "feature 'hint': numbers must be finite or missing"
    assert raised.startswith("derived 'size', definitions.py:")
    assert raised.endswith(" (ValueError)")
    aside = [json.loads(line) for line in Path(job.aside_file).read_text().splitlines()]
    assert [row["row"] for row in aside] == [0, 7, 8, 9, 450]
    assert json.loads(aside[0]["original"])["hint"] == "inf"
    expected = faulty.models.score("parcel@1", plain).column("score").to_pylist()
    kept = [score for place, score in enumerate(expected) if place not in (0, 7, 8, 9, 450)]
    assert pq.read_table(tmp_path / "o.parquet").column("score").to_pylist() == kept


def test_nothing_but_faults_is_a_no_and_many_of_them_end_the_job(faulty, tmp_path, monkeypatch):
    """A few rows are set aside one by one; where rows all over a chunk fail alike, it is no matter of rows."""
    table = hinted(rows())
    everywhere = spoiled(table, "weight", dict.fromkeys(range(table.num_rows), -5.25))
    how = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "o.parquet")}
    pq.write_table(everywhere.slice(0, 30), how["input"])
    job = faulty.models.score_files("parcel@1", **how)
    assert (job.rows, job.scored, job.aside, job.ok) == (30, 0, 30, False)
    monkeypatch.setattr(score_faults, "LIMIT", 40)
    pq.write_table(everywhere, how["input"])
    with pytest.raises(InputError, match=r"the model can score them \(derived 'size'.*\(ValueError\)\)") as caught:
        faulty.models.score_files("parcel@1", **how, replace=True)
    assert "5.25" not in str(caught.value)


def test_one_row_of_many_is_found_by_halves():
    calls = []

    def attempt(places):
        calls.append(len(places))
        if 77_777 in places:
            raise ValueError

    assert score_faults.find_faults(attempt, 100_000) == {77_777: "model (ValueError)"}
    assert len(calls) < 40

    def full(places):
        raise OSError(28, "no room")

    with pytest.raises(OSError, match="no room"):
        score_faults.find_faults(full, 100)


def test_what_no_row_can_pass_ends_the_job_before_anything_is_written(project, tmp_path):
    table = rows().slice(0, 50)
    place = table.column_names.index("sent")
    naive = table.set_column(place, "sent", table.column("sent").cast(pa.timestamp("us")))
    for wrong, how in ((naive, {}), (table, {"at": "weight"})):
        pq.write_table(wrong, tmp_path / "in.parquet")
        with pytest.raises(InputError, match=r"a column declared as time|must be a time"):
            project.models.score_files("parcel@1", input=str(tmp_path / "in.parquet"),
                                       output=str(tmp_path / "o.parquet"), **how)  # fmt: skip
        assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_rows_that_got_lost_are_no_end_of_a_job(project, tmp_path, monkeypatch):
    """In must be scored and set aside: nothing is published else."""
    pq.write_table(rows().slice(0, 50), tmp_path / "in.parquet")
    scored = score_job._Worker.__call__
    monkeypatch.setattr(score_job._Worker, "__call__", lambda *chunk: {**scored(*chunk), "scored": 49})
    with pytest.raises(InternalError, match=r"rows in must be scored \+ set aside; got \(50, 50, 49, 0\)"):
        project.models.score_files("parcel@1", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.parquet"))
    assert not (tmp_path / "o.parquet").exists()


def test_throughput_is_shown_of_a_job_that_was_done_in_one_call(project, tmp_path):
    """A rate over chunks of an earlier call would be too high."""
    pq.write_table(rows().slice(0, 50), tmp_path / "in.parquet")
    how = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "o.parquet")}
    job = replace(project.models.score_files("parcel@1", **how), seconds=0.02)
    assert "throughput 2,500 rows/s" in " ".join(str(job).split())
    again = project.models.score_files("parcel@1", **how)
    assert "rows/s" not in str(replace(again, seconds=0.02))
