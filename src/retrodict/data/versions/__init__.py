"""Versions of tables: named, read as of a time, compared, put back, compacted, and deleted when nothing needs them.

``read``, ``diff`` and the others take a project first, then a reference: ``flights``, ``flights@12``,
``flights@golden`` (a tag) or ``flights@2024-03-01T00:00Z`` (the newest version committed by then).
"""

from retrodict.data.versions.adoption import adopt
from retrodict.data.versions.diff import Diff, diff
from retrodict.data.versions.reads import read, read_batches
from retrodict.data.versions.refs import DatasetRef, Tag, list_tags, resolve, tag_history
from retrodict.data.versions.retention import CompactReport, VacuumResult, compact, references, vacuum
from retrodict.data.versions.rewrites import Rewriting, loss_of, rewrite
from retrodict.data.versions.rollback import RollbackReport, live_batches, rollback
from retrodict.data.versions.statistics import ColumnStatistics
from retrodict.data.versions.tags import remove_tag, set_tag

__all__ = [
    "ColumnStatistics",
    "CompactReport",
    "DatasetRef",
    "Diff",
    "RollbackReport",
    "Rewriting",
    "Tag",
    "VacuumResult",
    "adopt",
    "compact",
    "diff",
    "list_tags",
    "live_batches",
    "loss_of",
    "read",
    "read_batches",
    "references",
    "remove_tag",
    "resolve",
    "rewrite",
    "rollback",
    "set_tag",
    "tag_history",
    "vacuum",
]
