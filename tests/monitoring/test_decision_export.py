"""The log for others: joined with outcomes, as many rows out as in; as lines, each record once."""

import json
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from retrodict import Project
from retrodict.core.durations import DAY, HOUR
from retrodict.decisions.log import read_decisions
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import encode_record
from retrodict.monitoring.decision_export import joined_log, log_lines


def test_the_joined_log_is_what_pandas_joins(world, kit):
    """Every decision once, its label as known at the time, null before."""
    project, records, labels = world
    now = records[700].time + 3 * HOUR + 1
    table = joined_log(project, "warn_early", now=now)
    expected = pd.DataFrame({"id": [r.id for r in records], "time": [r.time for r in records], "label": labels})
    expected = expected[expected["time"] < now].sort_values(["time", "id"])
    known = expected["time"] + 3 * HOUR < now
    assert table.column("id").to_pylist() == expected["id"].tolist()
    assert table.column("record__label").to_pylist() == [
        float(label) if is_known else None for label, is_known in zip(expected["label"], known, strict=True)
    ]
    times = [int(time + 3 * HOUR) if is_known else None for time, is_known in zip(expected["time"], known, strict=True)]
    assert table.column("record__known_at").to_pylist() == times
    assert set(table.column("record__status").to_pylist()) == {"known", "pending"}
    assert set(table.column("record__weight").to_pylist()) == {1.0}


def test_a_sample_is_weighted_and_written(project, kit, tmp_path):
    """One of four stands for four; a decision without an outcome keeps its row, in the file too."""
    kit.log(project, [kit.record(0, share=0.25), kit.record(1)])
    project.tables.write("flights", kit.flights(["f0"], [40.0], [kit.START + HOUR]))
    table = joined_log(project, "warn_early", now=kit.START + 40 * DAY)
    assert table.column("record__weight").to_pylist() == [4.0, 1.0]
    assert len(table) == 2
    with Project(project.root, actor="tester") as face:
        face.decisions.training_set("warn_early", output=tmp_path / "log.parquet")
    assert pq.read_table(tmp_path / "log.parquet").column("record__weight").to_pylist() == [4.0, 1.0]


def test_lines_are_the_records(project, kit):
    """Of one policy, from a time on; each with its place in the log."""
    kit.log(project, [kit.record(0), kit.record(1, policy="other"), kit.record(2)])
    lines = [json.loads(line) for line in log_lines(project, "warn_early")]
    logged = {(one.stream, one.offset): one.record for one in read_decisions(project)}
    assert [logged[line["stream"], line["offset"]].id for line in lines] == [kit.record(0).id, kit.record(2).id]
    assert [line["features"] for line in lines] == [kit.record(0).features, kit.record(2).features]
    late = log_lines(project, start=kit.record(1).time)
    assert [json.loads(line)["id"] for line in late] == [kit.record(1).id, kit.record(2).id]


def test_following_gives_each_record_once(project, kit):
    """What is recorded after the first look comes next, also in a new segment and in another stream."""
    kit.log(project, [kit.record(0)])
    lines = log_lines(project, follow=True)
    seen = [json.loads(next(lines))["id"]]
    with LogWriter(project) as one, LogWriter(project) as other:
        one.append([encode_record(kit.record(1))])
        other.append([encode_record(kit.record(2))])
        seen += [json.loads(line)["id"] for line in islice(lines, 2)]
        one.append([encode_record(kit.record(3))])
        seen += [json.loads(line)["id"] for line in islice(lines, 1)]
    assert sorted(seen) == [kit.record(at).id for at in range(4)]
    assert np.unique(seen).size == 4
