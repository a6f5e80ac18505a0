"""Entries that a clock dated ahead: what follows them has their time, and both are said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import MINUTE
from retrodict.ledger import verify
from retrodict.workspace import Workspace

NOW = parse_time("2150-01-01T00:00Z")


def note(workspace: Workspace) -> dict[str, object]:
    with workspace.ledger.transaction() as tx:
        return tx.append("note.write", "note:1").payload


def findings(workspace: Workspace) -> list[str]:
    report = verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables)
    return [f"{one.kind} {one.where}: {one.detail}" for one in report.findings]


def test_entries_of_the_future_are_named_and_what_follows_them_says_so(
    make_project: Callable[..., Workspace], caplog: pytest.LogCaptureFixture
) -> None:
    """Once by the command, with the clock's own time in the entry, and by every audit until it is over."""
    root = make_project().root
    with Workspace(root, clock=SimulatedClock(NOW), actor="ana") as workspace:
        note(workspace)
        assert findings(workspace) == []
    with Workspace(root, clock=SimulatedClock(parse_time("2223-01-01T00:00Z")), actor="ana") as workspace:
        note(workspace)
        assert findings(workspace) == []
    with Workspace(root, clock=SimulatedClock(NOW), actor="ana") as workspace:
        first, _ = note(workspace), note(workspace)
        assert first["clock_behind_us"] == parse_time("2223-01-01T00:00Z") - NOW
        lines = [line for line in caplog.records if "ahead of the clock" in line.getMessage()]
        assert [line.levelname for line in lines] == ["WARNING"]  # and not for the second one
        assert findings(workspace) == ["ahead entry 3 to 5: dated 26,662.00 days after the clock of this machine"]
    with Workspace(root, clock=SimulatedClock(parse_time("2223-01-02T00:00Z")), actor="ana") as workspace:
        assert findings(workspace) == []


@pytest.mark.parametrize(("behind", "said"), [(5 * MINUTE - 1, False), (5 * MINUTE, True)])
def test_clocks_of_two_machines_may_be_five_minutes_apart(
    behind: int, said: bool, make_project: Callable[..., Workspace]
) -> None:
    root = make_project().root
    with Workspace(root, clock=SimulatedClock(NOW), actor="ana") as workspace:
        note(workspace)
    with Workspace(root, clock=SimulatedClock(NOW - behind), actor="ana") as workspace:
        assert bool(findings(workspace)) == said
