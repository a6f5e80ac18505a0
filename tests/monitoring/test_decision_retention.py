"""Retention of the log: what goes is named first, an audit accepts exactly that, and whoever asks is told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, update
from tests.decisions.test_log import decided
from tests.monitoring.test_decision_table import KILLED, NOW, is_sound, log, shop

from retrodict import Project
from retrodict.core.clock import SimulatedClock, format_time
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError
from retrodict.decisions import decisions_table, find_decision, prove_decision, replay_decision, trace_decision
from retrodict.decisions.log import read_decisions, recent_decisions
from retrodict.decisions.recorder import open_stream
from retrodict.decisions.records import encode_record
from retrodict.decisions.seals import seal_decisions
from retrodict.ledger import prove
from retrodict.ledger.schema import entries
from retrodict.ledger.segments import vouched_removals
from retrodict.monitoring.decision_retention import retain_decisions
from retrodict.monitoring.decision_table import compact_decisions
from retrodict.workspace import Workspace

__all__ = ["shop"]  # a fixture

OLD, RECENT = NOW - 500 * DAY, NOW - 20 * DAY


def filled(shop: Any, *, compact: bool = True) -> Workspace:
    """A log of two streams: three old segments and a recent one, and one old segment behind a recent one."""
    workspace = shop(clock=SimulatedClock(NOW))
    log(workspace, [[decided(n, time=OLD + n), decided(n + 1, time=OLD + n + 1)] for n in (10, 20, 30)])
    log(workspace, [[decided(40, time=RECENT)]])
    log(workspace, [[decided(50, time=RECENT)], [decided(60, time=OLD)]], 1)
    if compact:
        compact_decisions(workspace)
    return workspace


def segments(workspace: Workspace) -> list[tuple[str, str]]:
    """Stream and name of what is left, but for the empty ones that are written next."""
    return [(stream, one.name) for stream in workspace.streams.names("decisions/")
            for one in workspace.streams.segments(stream)]  # fmt: skip


def test_old_segments_go_and_an_audit_accepts_exactly_those(shop: Any) -> None:
    """Whole ones, from the beginning of a stream; another one that is missing stays a finding."""
    workspace = filled(shop)
    before = segments(workspace)
    plan = retain_decisions(workspace, "400d")
    assert (len(plan.segments), plan.deleted, segments(workspace)) == (3, False, before)
    assert vouched_removals(workspace.ledger) == []
    done = retain_decisions(workspace, "400d", reason="policy 7", dry_run=False)
    assert (done.segments, done.deleted) == (plan.segments, True)
    assert segments(workspace) == before[3:]
    assert done.stays == {f"decisions/{n}": f"it has a decision of {format_time(RECENT)}" for n in range(2)}
    named = workspace.ledger.entries(action="segment.remove")
    assert [entry.payload["segment"] for entry in named] == [name for _, name in before[:3]]
    assert {(entry.payload["reason"], entry.payload["kept_in"]) for entry in named} == {
        ("policy 7", "dataset:decisions@0")
    }
    assert is_sound(workspace)
    assert retain_decisions(workspace, "400d", dry_run=False).segments == []
    (workspace.root / "state/streams" / before[3][0] / before[3][1]).unlink()
    with Project(workspace.root, actor="ana") as project:
        findings = project.audit().findings
    assert [(one.kind, before[3][1] in one.where) for one in findings] == [("removed", True)]


def test_the_log_goes_on_and_is_compacted_further(shop: Any) -> None:
    """Writers, readers, seals and the table, as before; rows of what went stay in the table."""
    workspace = filled(shop)
    retain_decisions(workspace, "400d", dry_run=False)
    log(workspace, [[decided(70, time=NOW)]])
    assert seal_decisions(workspace).seals == []
    assert sorted(one.record.id for one in read_decisions(workspace)) == [f"{n:026d}" for n in (40, 50, 60, 70)]
    assert len(recent_decisions(workspace)) == 4
    result = compact_decisions(workspace)
    assert (result.decisions, result.rows, set(result.waiting.values())) == (1, 10, {0})
    assert is_sound(workspace)


def test_whoever_asks_is_told_by_which_entry_it_went(shop: Any) -> None:
    """Show, proof, replay, lineage, and a span that reaches too far; an id that never was is another matter."""
    workspace = filled(shop)
    retain_decisions(workspace, "400d", dry_run=False)
    sequence = vouched_removals(workspace.ledger)[1].sequence
    told = f"removed by retention on {format_time(NOW)[:10]}, entry {sequence}"
    ref = f"decision:{20:026d}"
    for ask in (find_decision, prove_decision, replay_decision, trace_decision):
        with pytest.raises(NotFoundError, match=told):
            ask(workspace, ref)
    with pytest.raises(NotFoundError, match=told):
        prove(workspace.ledger, workspace.streams, "decisions/0", 2)
    with pytest.raises(NotFoundError, match=r"be in the log; got '0+45'"):
        find_decision(workspace, f"decision:{45:026d}")
    with pytest.raises(NotFoundError, match=r"the whole span.*removed by retention"):
        decisions_table(workspace, "ask", start=OLD)
    assert decisions_table(workspace, "ask", start=OLD + 40).num_rows == 2
    assert decisions_table(workspace, "ask").num_rows == 3


def test_what_is_nowhere_else_stays(shop: Any) -> None:
    """Not compacted yet, or not sealed yet."""
    workspace = filled(shop, compact=False)
    before = segments(workspace)
    result = retain_decisions(workspace, "400d", dry_run=False)
    assert (result.segments, segments(workspace)) == ([], before)
    assert set(result.stays.values()) == {"it is not in the table: retrodict decisions compact"}
    compact_decisions(workspace)
    with open_stream(workspace, "decisions/2") as writer:
        writer.append([encode_record(decided(1, time=OLD))])
        assert retain_decisions(workspace, "400d").stays["decisions/2"] == "it is not sealed yet"


def test_an_age_below_that_of_request_ids_is_refused(shop: Any) -> None:
    """Answers are repeated from the log."""
    with pytest.raises(InputError, match=r"serving.request_ids_kept is 24h"):
        retain_decisions(shop(), "24h")


def test_what_an_audit_would_find_is_not_deleted(shop: Any) -> None:
    """An altered segment, and one that somebody else took away."""
    workspace = filled(shop)
    (stream, first), (_, second), *_ = segments(workspace)
    path = workspace.root / "state/streams" / stream / second
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=f"{second}: .*another hash"):
        retain_decisions(workspace, "400d", dry_run=False)
    assert segments(workspace)[0] == (stream, first)
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{second}: .*no such file"):
        retain_decisions(workspace, "400d", dry_run=False)
    assert vouched_removals(workspace.ledger) == []


def test_a_removal_that_nobody_signed_hides_nothing(shop: Any) -> None:
    """A row in the ledger by other hands is no entry: the missing segment stays a finding."""
    workspace = filled(shop)
    retain_decisions(workspace, "400d", dry_run=False)
    stream, name = segments(workspace)[0]
    newest = vouched_removals(workspace.ledger)[-1]
    columns = entries.c
    altered = {"payload": func.replace(columns.payload, newest.segment, name), "object_id": f"segment:{stream}/{name}"}
    with workspace.records.write() as connection:
        connection.execute(update(entries).where(columns.sequence == newest.sequence).values(altered))
    (workspace.root / "state/streams" / stream / name).unlink()
    with Project(workspace.root, actor="ana") as project:
        findings = project.audit().findings
    assert any(one.kind == "removed" and name in one.where for one in findings)


def test_only_the_oldest_closed_segment_can_be_removed(shop: Any) -> None:
    """The store itself leaves no gap."""
    workspace = filled(shop)
    with pytest.raises(RefusedError, match="only the oldest segment"):
        workspace.streams.remove_segment("decisions/0", segments(workspace)[1][1])


STEPS = (
    KILLED.split("tables = workspace.tables")[0]
    .replace("decision_table import compact_decisions", "decision_retention import retain_decisions")
    .replace("workspace = Workspace(sys.argv[1])",
             "from retrodict.core.clock import SimulatedClock\nworkspace = Workspace(sys.argv[1], "
             f"clock=SimulatedClock({NOW}))")
    + """
from retrodict.monitoring import decision_retention
decision_retention.append_removals = count(decision_retention.append_removals)
workspace.ledger.sign_end = count(workspace.ledger.sign_end)
streams = workspace.streams
streams.remove_segment = count(streams.remove_segment)
retain_decisions(workspace, "400d", dry_run=False)
"""
)  # fmt: skip


@pytest.mark.parametrize("step", range(1, 11))
def test_a_run_that_is_killed_is_finished_by_the_next_one(shop: Any, python: Any, step: int) -> None:
    """Before and after every step: an audit holds in between, and after it all of it is gone, named once."""
    workspace = filled(shop)
    code, _, _ = python(STEPS, workspace.root, step).end()
    assert code == -9
    assert is_sound(workspace)
    retain_decisions(workspace, "400d", dry_run=False)
    assert len(segments(workspace)) == 3
    assert len({removal.segment for removal in vouched_removals(workspace.ledger)}) == 3
    assert len(workspace.ledger.entries(action="segment.remove")) == 3
    assert is_sound(workspace)
