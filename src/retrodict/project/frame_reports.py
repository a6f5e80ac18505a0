"""What the frames of ``project.features`` show: where rows went, how a kept frame grew, what it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, count, short_hash, when
from retrodict.core.lazy import lazy_modules

if TYPE_CHECKING:
    from retrodict.features.offline.kept_frame import KeptFrame
    from retrodict.models import readers
    from retrodict.workspace import Workspace
else:
    (readers,) = lazy_modules("retrodict.models", "readers")

__all__ = ["FrameGrowth", "FrameOrigin", "FrameReport", "frame_state", "null_shares"]


def null_shares(rows: int, nulls: Mapping[str, int]) -> Grid:
    """How much of each column is null."""
    return Grid(("feature", "null>"), [(n, f"{missing / rows:.1%}" if rows else "-") for n, missing in nulls.items()])


@dataclass(frozen=True, repr=False)
class FrameGrowth(Shown):
    """Version that a kept frame has now, and how many of its rows are new.

    Attributes
    ----------
    frame : KeptFrame
    """

    frame: KeptFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        frame = self.frame
        return {"dataset": f"dataset:{frame.name}@{frame.version}", "rows": frame.rows, "new": frame.computed,
                "there": frame.rows - frame.computed}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """One sentence."""
        frame = self.frame
        before = frame.rows - frame.computed
        split = f"{count(frame.rows)} rows = {count(before)} there before + {count(frame.computed)} new"
        return [f"{frame.name}@{frame.version}: {split}"]


@dataclass(frozen=True, repr=False)
class FrameReport(Shown):
    """Where the rows of a frame went, and what they were made from.

    Attributes
    ----------
    features : list of str
        Columns that were added.
    rows : int
    tables : dict of str to int
        Version of every table that was read.
    growth : FrameGrowth or None
        Of a kept frame.
    output : Path or None
        File that was written.
    nulls : dict of str to int or None
        Of the rows of the file: nulls by feature and outcome.
    outcomes : list of str
    as_of : int or None
        Outcomes that matured by then count.
    """

    features: list[str]
    rows: int
    tables: dict[str, int]
    growth: FrameGrowth | None
    output: str | Path | None
    nulls: dict[str, int] | None
    outcomes: list[str]
    as_of: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        data: dict[str, Any] = {"features": self.features, "rows": self.rows}
        if self.growth is not None:
            data["frame"] = self.growth.to_dict()
        if self.nulls is not None:
            data |= {"nulls": self.nulls, "output": str(self.output)}
        data["tables"] = self.tables
        if self.outcomes:
            data |= {"outcomes": self.outcomes, "as_of": None if self.as_of is None else format_time(self.as_of)}
        return data

    def blocks(self) -> Sequence[Block | None]:
        """Growth of the kept frame, what the file holds, which outcomes count."""
        until = "no time at all" if self.as_of is None else format_time(self.as_of)
        growth = [] if self.growth is None else self.growth.blocks()
        outcomes = f"\nOutcomes that matured by {until}; the others are null." if self.outcomes else None
        if self.nulls is None:
            return [*growth, outcomes]
        facts = Facts({"rows": self.rows, "written to": str(self.output)})
        return [*growth, facts, null_shares(self.rows, self.nulls), outcomes]


class FrameOrigin(Shown):
    """A kept frame: spine, features and table versions that it was made from, and what changed since.

    Attributes
    ----------
    frame : KeptFrame
    defined : dict of str to str
        Versions of the features as they are defined now.
    newest : dict of str to int
        Newest version of each table that it read.
    """

    __slots__ = ("defined", "frame", "newest")

    def __init__(self, workspace: Workspace, frame: KeptFrame) -> None:
        self.frame = frame
        self.defined = {feature.name: feature.version for feature in readers.defined_features(workspace)}
        tables = {source["table"] for source in frame.origin["sources"].values()}
        histories = {name: workspace.tables.history(name) for name in sorted(tables)}
        self.newest = {name: history[-1].version for name, history in histories.items() if history}

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**self.frame.to_dict(), "defined": self.defined, "newest": self.newest}

    def blocks(self) -> Sequence[Block | None]:
        """The frame, then features, sources and parts of the spine with their hashes."""
        frame, origin, spine = self.frame, self.frame.origin, self.frame.origin["spine"]
        features = [
            (name, short_hash(version), "as now" if self.defined.get(name) == version
             else "changed since" if name in self.defined else "gone")
            for name, version in origin["features"].items()
        ]  # fmt: skip
        sources = [
            (name, f"{s['table']}@{s['version']}", self.newest.get(s["table"]), short_hash(s["files"]))
            for name, s in origin["sources"].items()
        ]
        return [
            Facts({
                "frame": f"{frame.name}@{frame.version}", "rows": frame.rows, "state": frame_state(frame),
                "spine": f"{spine['origin']}, {len(spine['parts'])} parts", "at": origin["at"],
                "latest row": None if origin["until"] is None else when(origin["until"]),
                "code": short_hash(origin["code"]["object"]), "features": origin["columns"],
            }),
            Grid(("made by", "version", "is"), features),
            Grid(("source", "read from", "newest>", "files?"), sources),
            Grid(("rows of the spine>", "SHA-256"), [(rows, short_hash(digest)) for rows, digest in spine["parts"]]),
        ]  # fmt: skip


def frame_state(frame: KeptFrame) -> str:
    """Whether a kept frame is whole."""
    return "whole" if frame.origin["complete"] else "interrupted: run the command again"
