"""Health of a version: four scores from the checks that were recorded when it was published, each traceable to them.

For a check of rows the score is the share of the rows that passed, ``(rows - failed) / rows``; for a check of the
whole batch it is 1 if it passed and 0 if not. A dimension's score is the mean of the scores of its checks, weighted by
severity (critical 8, high 4, medium 2, low 1); the overall score is the mean of the dimensions that have one. The rows
are those of the batch that the version added, as they arrived: rows
that were set aside count as failed, since health is what a source delivers, not what was saved of it.

A check that could not be evaluated scores 0 where its ``on_unknown`` is ``halt`` or ``warn``; else it has no part in a
score, and a dimension without any that has one is "not evaluable":
calling the absence of evidence perfect is how a table without checks gets the best mark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Grid, Shown, count, number, when
from retrodict.core.errors import NotFoundError
from retrodict.data._records import CHECKS
from retrodict.data.validation.results import CheckResult
from retrodict.data.versions.refs import table_history
from retrodict.stores.tables.base import TableVersion
from retrodict.workspace import Workspace

__all__ = ["DIMENSIONS", "WEIGHTS", "DimensionScore", "Health", "ScoredCheck", "dimension_of", "health",
           "health_history", "sparkline"]  # fmt: skip

DIMENSIONS = ("completeness", "accuracy", "consistency", "timeliness")
WEIGHTS = {"critical": 8, "high": 4, "medium": 2, "low": 1}

_RULES = {
    rule: dimension
    for dimension, rules in {
        "completeness": "not_null null_rate required_if columns_exist columns_match row_count",
        "consistency": "unique primary_key new_key compare sum_equals references near_duplicates determines disjoint "
        "is_null",
        "timeliness": "freshness not_in_future monotone known_before",
    }.items()
    for rule in rules.split()
}  # everything else is a statement about values: accuracy


@dataclass(frozen=True, slots=True)
class ScoredCheck:
    """One check's part in a score.

    Attributes
    ----------
    check : str
        Its title.
    severity : str
    weight : int
    score : float, optional
        0 to 1; None if it could not be evaluated, and then it has no part.
    failed, rows : int
        Rows that failed out of how many; 0 of 0 for checks of the whole batch.
    reason : str
        Why it failed or could not be evaluated.
    """

    check: str
    severity: str
    weight: int
    score: float | None
    failed: int = 0
    rows: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DimensionScore:
    """One dimension of health: its score, None if not evaluable, and the checks it comes from."""

    dimension: str
    value: float | None
    checks: tuple[ScoredCheck, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Health(Shown):
    """Health of one version.

    Attributes
    ----------
    table : str
    version : int
    time : int
        When it was published, microseconds UTC.
    rows, quarantined : int
        Rows of its batch, and those of them that were set aside.
    scores : tuple of DimensionScore
        In the order of ``DIMENSIONS``.
    overall : float, optional
        None if no dimension is evaluable.
    """

    table: str
    version: int
    time: int
    rows: int
    quarantined: int
    scores: tuple[DimensionScore, ...]
    overall: float | None

    @property
    def published(self) -> str:
        """When it was published, to the minute."""
        return format_time(self.time)[:16].replace("T", " ")

    def __getitem__(self, dimension: str) -> DimensionScore:
        """One dimension."""
        for score in self.scores:
            if score.dimension == dimension:
                return score
        raise KeyError(dimension)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return Shown.to_dict(self) | {"time": format_time(self.time)}

    def blocks(self) -> Sequence[Block | None]:
        """Each dimension with its score and its lowest check."""
        rows = [
            (score.dimension, evaluable(score.value), sum(check.score is not None for check in score.checks),
             _lowest(score.checks))
            for score in self.scores
        ]  # fmt: skip
        aside = f"{count(self.quarantined)} of {count(self.rows)} rows set aside"
        return [
            f"{self.table}@{self.version}, {when(self.time)}: {evaluable(self.overall)}; {aside}",
            Grid(("dimension", "score", "checks>", "lowest"), rows),
        ]

    @classmethod
    def of_results(
        cls, results: Sequence[CheckResult], *, table: str, version: int = 0, time: int = 0, rows: int = 0,
        quarantined: int = 0,
    ) -> Self:  # fmt: skip
        """Score results, for instance those of ``check_source``."""
        scores = tuple(_score(name, [r for r in results if dimension_of(r) == name]) for name in DIMENSIONS)
        return cls(table, version, time, rows, quarantined, scores,
                   _mean([(1, score.value) for score in scores if score.value is not None]))  # fmt: skip


def dimension_of(result: CheckResult) -> str:
    """Dimension that a check speaks for; ``sql`` over several columns is about their consistency."""
    if result.rule == "sql":
        return "consistency" if len(result.columns) > 1 else "accuracy"
    return _RULES.get(result.rule, "accuracy")


def health(workspace: Workspace, table: str, version: int | None = None) -> Health:
    """Health of a version of a table.

    Parameters
    ----------
    workspace : Workspace
    table : str
    version : int, optional
        None: the newest one that added a batch; those that restore or compact have no checks of their own.

    Raises
    ------
    NotFoundError
        If the table or version does not exist, or the version recorded no checks.
    """
    checked = [
        v for v in table_history(workspace.tables, table) if CHECKS in v.metadata and version in (None, v.version)
    ]
    if not checked:
        raise NotFoundError(
            "the version must have added a batch, so that its checks are recorded", where=f"table {table}",
            got="no such version" if version is None else version,
            remedy=f"See the versions with: retrodict data history {table}",
        )  # fmt: skip
    return _of_version(table, checked[-1])


def health_history(workspace: Workspace, table: str) -> list[Health]:
    """Health of every version that recorded checks, oldest first.

    Raises
    ------
    NotFoundError
        If the table does not exist.
    """
    return [_of_version(table, v) for v in table_history(workspace.tables, table) if CHECKS in v.metadata]


def sparkline(values: Sequence[float | None]) -> str:
    """Scores as one line of text from 0.9, or the lowest below that, to 1; a dot where not evaluable.

    Examples
    --------
    >>> sparkline([1.0, 0.96, None, 0.9])
    '█▅·▁'
    """
    low = min([0.9, *(value for value in values if value is not None)])
    signs = "▁▂▃▄▅▆▇█"
    places = [None if value is None else round((value - low) / (1 - low) * (len(signs) - 1)) for value in values]
    return "".join("·" if place is None else signs[min(place, len(signs) - 1)] for place in places)


def score_series(history: Sequence[Health]) -> dict[str, list[float | None]]:
    """Scores of every version by what they are of, the overall one first."""
    overall: dict[str, list[float | None]] = {"overall": [version.overall for version in history]}
    return overall | {name: [version[name].value for version in history] for name in DIMENSIONS}


def history_blocks(history: Sequence[Health]) -> Sequence[Block | None]:
    """Scores of versions: a line of each dimension, and the versions in a table."""
    lines = [(name, sparkline(values), evaluable(values[-1])) for name, values in score_series(history).items()]
    rows = [
        (v.version, when(v.time), v.rows, v.quarantined, v.overall, *(score.value for score in v.scores))
        for v in history
    ]
    headings = ("version>", "published?", "rows>", "set aside>", "overall>", *(f"{name}>" for name in DIMENSIONS))
    return [
        Grid(("score", f"versions {history[0].version} to {history[-1].version}", "now"), lines),
        Grid(headings, rows),
    ]


def evaluable(score: float | None) -> str:
    """Score as people read it."""
    return "not evaluable" if score is None else number(score)


def _lowest(checks: Sequence[ScoredCheck]) -> str | None:
    scores = [(check.score, -check.weight, check.check) for check in checks if check.score is not None]
    if not scores or min(scores)[0] == 1:
        return None
    score, _, check = min(scores, key=lambda entry: entry[:2])
    return f"{check} ({number(score)})"


def _of_version(table: str, version: TableVersion) -> Health:
    facts = version.metadata
    return Health.of_results(
        [CheckResult.from_dict(body) for body in json.loads(facts[CHECKS])], table=table, version=version.version,
        time=version.time, rows=int(facts.get("retrodict.rows_in", 0)),
        quarantined=int(facts.get("retrodict.quarantined", 0)),
    )  # fmt: skip


def _score(dimension: str, results: Sequence[CheckResult]) -> DimensionScore:
    checks = tuple(_scored(result) for result in results)
    return DimensionScore(
        dimension, _mean([(check.weight, check.score) for check in checks if check.score is not None]), checks
    )


def _scored(result: CheckResult) -> ScoredCheck:
    score: float | None = None
    if result.status == "not_evaluable":
        score = None if result.on_unknown == "pass" else 0.0
    else:
        passed = float(result.status == "pass")
        score = (result.rows - result.failed) / result.rows if result.rows else passed
    weight = WEIGHTS[result.severity]
    return ScoredCheck(result.check, result.severity, weight, score, result.failed, result.rows, result.reason)


def _mean(values: Sequence[tuple[float, float]]) -> float | None:
    """Weighted mean; None if there is no weight."""
    total = sum(weight for weight, _ in values)
    return sum(weight * value for weight, value in values) / total if total else None
