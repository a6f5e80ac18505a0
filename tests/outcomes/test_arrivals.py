"""Outcomes that come in files of their own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from retrodict.core.clock import format_time
from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import InputError, RefusedError
from retrodict.ledger import verify
from retrodict.outcomes import arrivals
from retrodict.outcomes.arrivals import ingest_outcomes
from retrodict.outcomes.status import outcomes


@pytest.fixture
def logged(project, kit):
    """Four decisions on f0 … f3."""
    kit.log(project, [kit.record(at) for at in range(4)])
    return project


def _csv(folder, text: str, name: str = "outcomes.csv"):
    path = folder / name
    path.write_text(text)
    return path


def _known(kit, hours: int) -> str:
    return format_time(kit.START + hours * HOUR)


def _labels(project, kit) -> list[object]:
    found = outcomes(project, "warn_early", now=kit.NOW)
    return [f"{s} {x:.0f}" if s == "known" else str(s) for s, x in zip(found.status, found.label, strict=True)]


def test_outcomes_join_by_id_by_key_and_by_key_column(logged, kit, tmp_path):
    """Three files, three ways to say whose outcome it is; the id may be written as a reference."""
    ids = [logged_id(at) for at in range(2)]
    ingest_outcomes(
        logged, "warn_early", _csv(tmp_path, f"decision_id,label,known_at\ndecision:{ids[0]},1,{_known(kit, 9)}\n")
    )
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf1,0,{_known(kit, 9)}\n"))
    report = ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"flight_id,label,known_at\nf2,1,{_known(kit, 9)}\n"))
    assert report.unmatched == 0
    assert _labels(logged, kit) == ["known 1", "known 0", "known 1", "void"]


def logged_id(number: int) -> str:
    """Id that the log gives a decision."""
    return f"{number:026d}"


def test_the_same_batch_twice_changes_nothing(logged, kit, tmp_path):
    """One version, one entry; the second report says that it was there."""
    path = _csv(tmp_path, f"key,label,known_at\nf1,1,{_known(kit, 9)}\n")
    first, second = (ingest_outcomes(logged, "warn_early", path) for _ in range(2))
    assert (first.already, second.already, second.version) == (False, True, 0)
    assert second.accepted == first.accepted == 1
    assert len(logged.tables.history("warn_early__outcomes")) == 1
    assert len(logged.ledger.entries(action="outcomes.ingest")) == 1


def test_overlapping_files_store_each_outcome_once(logged, kit, tmp_path):
    """Yesterday's export is in today's; rows in = accepted + repeated + quarantined."""
    one, two = f"f1,1,{_known(kit, 9)}\n", f"f2,0,{_known(kit, 9)}\n"
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, "key,label,known_at\n" + one))
    report = ingest_outcomes(logged, "warn_early", _csv(tmp_path, "key,label,known_at\n" + one + two + two))
    assert (report.rows_in, report.accepted, report.repeated, report.quarantined) == (3, 1, 2, 0)
    assert logged.tables.read("warn_early__outcomes").num_rows == 2


def test_the_last_known_outcome_counts_whatever_the_order_of_arrival(logged, kit, tmp_path):
    """A correction known later wins although its file came first, and the disagreement is counted."""
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf1,1,{_known(kit, 20)}\n"))
    report = ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf1,0,{_known(kit, 9)}\n"))
    assert report.revised == 1
    found = outcomes(logged, "warn_early", now=kit.NOW)
    assert (found.label[1], found.revised) == (1.0, 1)
    before = outcomes(logged, "warn_early", now=kit.START + 10 * HOUR)
    assert (before.label[1], before.revised) == (0.0, 0)


def test_an_ingested_outcome_wins_over_the_label_table_at_the_same_instant(logged, kit, tmp_path):
    """Somebody said so on purpose; known earlier, it would not."""
    logged.tables.write("flights", kit.flights(["f0", "f1"], [60.0, 60.0], [kit.START + 9 * HOUR] * 2))
    text = f"key,label,known_at\nf0,0,{_known(kit, 9)}\nf1,0,{_known(kit, 8)}\n"
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, text))
    assert _labels(logged, kit)[:2] == ["known 0", "known 1"]


def test_an_empty_label_says_that_there_will_be_none(logged, kit, tmp_path):
    """Void at once, before it has matured."""
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf1,,{_known(kit, 2)}\n"))
    found = outcomes(logged, "warn_early", now=kit.START + 3 * HOUR)
    assert found.status.tolist() == ["pending", "void", "pending"]


def test_rows_that_break_a_rule_are_set_aside_with_their_reason(logged, kit, tmp_path):
    """A label of 2, a time without a zone, nobody's outcome: the rest is published."""
    known = _known(kit, 9)
    path = _csv(tmp_path, f"key,label,known_at\nf0,2,{known}\nf1,1,2013-03-01T09:00\n,1,{known}\nf3,1,{known}\n")
    report = ingest_outcomes(logged, "warn_early", path)
    assert (report.accepted, report.quarantined) == (1, 3)
    assert set(report.reasons) == {"in_set(label)", "type(known_at, time)", "not_null(subject, known_at)"}
    assert logged.tables.read("warn_early__outcomes__quarantine").num_rows == 3


@pytest.mark.parametrize("column", ["decision_id", "key", "flight_id"])
def test_an_outcome_from_before_its_decision_is_set_aside(logged, kit, tmp_path, column):
    """By id, by key and by key column; one known at the decision itself, or of nobody's, is taken."""
    names = [logged_id(2), logged_id(3)] if column == "decision_id" else ["f2", "f3"]
    first = kit.START + 2 * HOUR
    lines = [(names[0], format_time(first - 1)), (names[0], format_time(first)), (names[1], _known(kit, 9)),
             ("nobody", "2001-01-01T00:00Z")]  # fmt: skip
    text = "".join(f"{name},1,{known}\n" for name, known in lines)
    report = ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"{column},label,known_at\n{text}"))
    assert (report.accepted, report.quarantined) == (3, 1)
    assert report.reasons == {"compare(known_at, decided_at, operator=>=)": 1}


def test_nothing_acceptable_makes_no_version(logged, kit, tmp_path):
    """The refusal names the quarantine."""
    with pytest.raises(RefusedError, match=r"0 of 1 rows.*warn_early__outcomes__quarantine"):
        ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf0,7,{_known(kit, 9)}\n"))
    assert "warn_early__outcomes" not in logged.tables.names()


def test_a_file_without_the_columns_is_refused(logged, tmp_path):
    """The message names what is missing."""
    with pytest.raises(InputError, match=r"'missing': \['known_at'\]"):
        ingest_outcomes(logged, "warn_early", _csv(tmp_path, "key,label\nf0,1\n"))
    with pytest.raises(InputError, match=r"'missing': \['decision_id'\]"):
        ingest_outcomes(logged, "warn_early", _csv(tmp_path, "flight,label,known_at\nf0,1,2013-03-02T00:00Z\n"))


def test_outcomes_without_a_decision_are_kept_and_counted(logged, kit):
    """A wrong form of the key must not pass unseen; a table with true and false is as good as a file."""
    rows = pa.table({"key": ["F1", "f2"], "label": [True, False], "known_at": [_known(kit, 9)] * 2})
    report = ingest_outcomes(logged, "warn_early", rows)
    assert (report.accepted, report.unmatched) == (2, 1)


def test_composite_keys_with_times_are_typed_before_they_join(make_project, kit, tmp_path):
    """The file writes the hour in New York, the log has the canonical key."""
    text = kit.DEFINITIONS.replace(
        '"late", flights, "arr_delay > 15", known_at="arr_time"', '"late", weather, "wind > 9", known_at="hour"'
    )
    with make_project(text) as project:
        kit.log(project, [kit.record(0, key="3:JFK20:2013-03-01T05:00:00Z")])
        path = _csv(tmp_path, f"origin,hour,label,known_at\nJFK,2013-03-01T00:00-05:00,1,{_known(kit, 9)}\n")
        assert ingest_outcomes(project, "warn_early", path).unmatched == 0
        assert _labels(project, kit) == ["known 1"]


def test_an_ingest_is_in_the_ledger_with_its_files(logged, kit, tmp_path):
    """The audit finds every file, and notices one that was changed."""
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf1,1,{_known(kit, 9)}\n"))
    ingest_outcomes(logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf2,1,{_known(kit, 9)}\n"))
    checks = {"objects": logged.objects, "streams": logged.streams, "data": logged.tables}
    assert verify(logged.ledger, **checks).verified
    entry = logged.ledger.entries(action="outcomes.ingest")[-1]
    assert entry.object_id == "dataset:warn_early__outcomes@1"
    assert len(entry.payload["files"]) == 2  # the rows, and the entry of the table's log
    path = next(iter(entry.payload["files"]))
    stored = next((tmp_path / "state" / "tables").rglob(path.rpartition("/")[2]))
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    assert not verify(logged.ledger, **checks).verified


def test_a_matured_decision_gets_its_outcome_after_all(logged, kit, tmp_path):
    """Void is not final."""
    ingest_outcomes(
        logged, "warn_early", _csv(tmp_path, f"key,label,known_at\nf1,1,{format_time(kit.START + 5 * DAY)}\n")
    )
    assert outcomes(logged, "warn_early", now=kit.START + 2 * DAY).status[1] == "void"
    assert outcomes(logged, "warn_early", now=kit.NOW).status[1] == "known"


def test_an_ingest_that_died_before_its_ledger_entry_is_completed_by_the_same_call(logged, kit, tmp_path, monkeypatch):
    """Rows are there, the entry is not: the second call writes the entry and nothing else."""
    path = _csv(tmp_path, f"key,label,known_at\nf1,1,{_known(kit, 9)}\nf2,7,{_known(kit, 9)}\n")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrivals, "_record", die)
        with pytest.raises(KeyboardInterrupt):
            ingest_outcomes(logged, "warn_early", path)
    assert logged.ledger.entries(action="outcomes.ingest") == []
    assert ingest_outcomes(logged, "warn_early", path).already
    assert [entry.payload["accepted"] for entry in logged.ledger.entries(action="outcomes.ingest")] == [1]
    assert logged.ledger.entries(action="outcomes.ingest")[0].payload["reasons"] == {"in_set(label)": 1}
    assert len(logged.tables.history("warn_early__outcomes")) == 1
