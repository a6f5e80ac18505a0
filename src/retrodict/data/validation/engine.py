"""Validates a batch: one scan counts, what failed is looked up, every check gets one of three results.

The split into accepted and quarantined rows is made from positions, so that a batch of any size is streamed; only rows
that failed are ever held.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import InternalError
from retrodict.core.kinds import kind_of
from retrodict.data.checks import Check
from retrodict.data.context import Context
from retrodict.data.definitions import Table
from retrodict.data.readers import Batch, open_batch
from retrodict.data.validation._against import against_reference, against_versions, measure_key
from retrodict.data.validation._originals import as_json
from retrodict.data.validation._others import NothingEarlierError, Unknown, rows_among_others, rows_found_in
from retrodict.data.validation._scan import Positions, Scanned, failing_rows, frame_of, scan, why_unmeasured
from retrodict.data.validation._typed import TypedBatch, type_batch
from retrodict.data.validation.results import CheckResult
from retrodict.data.validation.suite import BoundCheck, Suite, check_columns, compile_suite

__all__ = ["Findings", "Validation", "check_batch", "check_source", "validate"]

_NOTHING: Positions = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the checks of a table say of a batch, and the rows as they would be stored.

    Attributes
    ----------
    typed : TypedBatch
    results : list of CheckResult
    failing : mapping of str to numpy.ndarray of int64
        Ascending positions of the rows that fail each check which sets rows aside, by title.
    aside : numpy.ndarray of int64
        Ascending positions of all rows that are set aside.
    measures : mapping of str to float
        Numbers of the batch that later versions are compared with.
    """

    typed: TypedBatch
    results: list[CheckResult]
    failing: Mapping[str, Positions]
    aside: Positions
    measures: Mapping[str, float]

    @property
    def halted(self) -> list[CheckResult]:
        """Checks that keep the batch from being published."""
        return [result for result in self.results if result.halted]

    @property
    def accepted_rows(self) -> int:
        """Rows that are not set aside."""
        return self.typed.batch.num_rows - len(self.aside)

    @property
    def accepted_schema(self) -> pa.Schema:
        """Columns of the accepted rows: the batch's, and ``_row``, a row's position in the batch."""
        return self.typed.schema.append(pa.field("_row", pa.int64()))

    def accepted(self) -> Iterator[pa.RecordBatch]:
        """Typed rows that are not set aside, in order."""
        start, count = 0, 0
        for chunk in self.typed.batches():
            stop = start + chunk.num_rows
            first, last = np.searchsorted(self.aside, [start, stop])
            positions = np.delete(np.arange(start, stop, dtype=np.int64), self.aside[first:last] - start)
            rows = chunk if len(positions) == chunk.num_rows else chunk.take(pa.array(positions - start))
            yield pa.RecordBatch.from_arrays([*rows.columns, pa.array(positions)], schema=self.accepted_schema)
            start, count = stop, count + len(positions)
        if start != self.typed.batch.num_rows or count != self.accepted_rows:
            raise InternalError(
                "rows in must be accepted + quarantined",
                where="validation",
                got=start,
                remedy="Report it with the types of the batch",
            )

    def quarantined(self) -> pa.Table:
        """Rows that are set aside: ``row``, ``checks`` (titles of all checks it failed), ``original`` (as JSON)."""
        titles: list[list[str]] = [[] for _ in self.aside]
        for title, rows in self.failing.items():
            for place in np.searchsorted(self.aside, rows):
                titles[place].append(title)
        return pa.table({
            "row": pa.array(self.aside, pa.int64()),
            "checks": pa.array(titles, pa.list_(pa.string())),
            "original": as_json(self.typed.batch.take(self.aside)),
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Validation:
    """A batch in memory, split: every row is in ``accepted`` or in ``quarantined``, never in both or neither.

    Attributes
    ----------
    accepted : pyarrow.Table
        Typed rows, in order, with ``_row`` (position in the batch).
    quarantined : pyarrow.Table
        ``row``, ``checks`` (titles of all checks the row failed) and ``original`` (the row as JSON).
    results : list of CheckResult
    """

    accepted: pa.Table
    quarantined: pa.Table
    results: list[CheckResult]

    @property
    def halted(self) -> list[CheckResult]:
        """Checks that keep the batch from being published."""
        return [result for result in self.results if result.halted]


def validate(
    rows: pa.Table, table: Table, *, context: Context | None = None, known_keys: str | None = None
) -> Validation:
    """Cast and check rows that are in memory.

    Parameters
    ----------
    rows : pyarrow.Table
    table : Table
        Types, key and checks.
    context, known_keys
        As in :func:`check_batch`.

    Raises
    ------
    InputError
        If a declared or key column is missing, a name is used twice, a time has no zone, or an arriving type can never
        be the declared one.
    DefinitionError
        If a check reads a column that is missing or of another kind.
    """
    with tempfile.TemporaryDirectory() as staging, open_batch(rows, staging=Path(staging), identify=False) as batch:
        findings = check_batch(batch, table, context=context, known_keys=known_keys)
        accepted = pa.Table.from_batches(findings.accepted(), schema=findings.accepted_schema)
        return Validation(accepted, findings.quarantined(), findings.results)


def check_source(source: Any, table: Table) -> list[CheckResult]:
    """Check a batch and say what came of it; nothing is stored and no project is needed.

    Parameters
    ----------
    source : path, glob, list of paths, pyarrow.Table, DataFrame, …
        Whatever :func:`~retrodict.data.readers.open_batch` reads.
    table : Table

    Returns
    -------
    list of CheckResult

    Examples
    --------
    >>> from retrodict import Check
    >>> rows = pa.table({"id": [1, 2], "amount": [5.0, -1.0]})
    >>> [found] = check_source(rows, Table("sales", checks=[Check.between("amount", 0, None)]))
    >>> found.status, found.failed, found.rows
    ('fail', 1, 2)
    """
    with (
        tempfile.TemporaryDirectory() as staging,
        open_batch(source, staging=Path(staging), identify=False) as batch,
    ):
        return check_batch(batch, table, staging=Path(staging), positions=False).results


def check_batch(
    batch: Batch,
    table: Table,
    *,
    context: Context | None = None,
    staging: Path | None = None,
    known_keys: str | None = None,
    positions: bool = True,
) -> Findings:
    """Check a batch.

    Parameters
    ----------
    batch : Batch
    table : Table
        Types, key and checks.
    context : Context, optional
        What it is compared with; None: nothing but the moment.
    staging : Path, optional
        Folder for rows that have to be written down; None keeps them in memory.
    known_keys : str, optional
        Table whose keys no row may have, looked up in the context; such rows are set aside (``new_key``).
    positions : bool, default True
        Whether to find out which rows fail; without, ``failing`` and ``aside`` stay empty.
    """
    context = Context() if context is None else context
    check_columns(batch.schema.names, table)
    typed = type_batch(batch, table, staging=staging)
    suite = compile_suite(table, batch.schema, typed.casts, now=context.now)
    counted = scan(typed, suite)
    if counted.rows != batch.num_rows:
        raise InternalError(
            "a scan must see every row",
            where=f"table {table.name}",
            got=counted.rows,
            remedy="Report it with the types of the batch",
        )
    run = _Run(table, typed, suite, counted, context)
    results = [run.judge(bound) for bound in suite.checks]
    if known_keys is not None and table.key:
        results.append(run.judge_new_keys(known_keys))
    failing = dict(run.positions)
    if positions:
        failed = [bound for bound in suite.checks if counted.failed.get(bound.title) and bound.check.sets_aside]
        failing |= failing_rows(typed, suite, failed)
    ordered = {
        result.check: failing[result.check] for result in results
        if result.severity != "low" and result.check in failing and failing[result.check].size
    }  # fmt: skip
    aside = np.unique(np.concatenate([*ordered.values()])) if ordered else _NOTHING
    return Findings(typed, results, ordered, aside, run.measures)


class _Run:
    """One batch being judged: turns counts into results, and looks up what counts cannot say."""

    def __init__(self, table: Table, typed: TypedBatch, suite: Suite, counted: Scanned, context: Context) -> None:
        self._table, self._typed, self._suite = table, typed, suite
        self._counted, self._context = counted, context
        self.positions: dict[str, Positions] = {}
        self.measures: dict[str, float] = {}

    def judge(self, bound: BoundCheck) -> CheckResult:
        """Result of one check."""
        try:
            match bound.check.scope:
                case "row":
                    return self._rows(bound, self._counted.failed[bound.title], self._counted.looked[bound.title])
                case "rows":
                    return self._among_others(bound)
                case "columns":
                    return self._columns(bound)
                case "measure":
                    return self._number(bound)
                case "versions":
                    assert bound.measure is not None
                    value = self._value(bound, finite=True)  # later versions would be held to an infinity
                    self.measures[measure_key(bound.measure)] = value
                    value, reason = against_versions(bound.check, bound.measure, value, self._context)
                case _:
                    frame, kinds = frame_of(self._typed, self._suite), self._suite.kinds
                    value, reason = against_reference(
                        bound.check, frame, self._context, kinds=kinds, table=self._table.name
                    )
            return self._whole(bound, reason, value)
        except Unknown as why:
            action = "pass" if isinstance(why, NothingEarlierError) else bound.check.when_unknown
            return _result(bound, "not_evaluable", halted=action == "halt", reason=str(why), on_unknown=action,
                           rows=self._counted.looked.get(bound.title, 0))  # fmt: skip

    def judge_new_keys(self, name: str) -> CheckResult:
        """Rows whose key is in the table already."""
        key = tuple(self._table.key)
        bound = BoundCheck(f"new_key({', '.join(key)})", Check("unique", key))
        other, where = self._context.table(name), f"table {self._table.name}, {bound.title}"
        if other is None:
            return _result(bound, "pass", rows=self._counted.rows, rule="new_key")
        frame = frame_of(self._typed, self._suite).with_row_index("_row")
        repeated = rows_found_in(frame, key, other, key, where=where)
        self.positions[bound.title] = repeated
        status = "fail" if repeated.size else "pass"
        return _result(bound, status, failed=len(repeated), rows=self._counted.rows, rule="new_key",
                       reason="the table has the key already: see --update" if repeated.size else "")  # fmt: skip

    def _rows(self, bound: BoundCheck, failed: int, looked: int) -> CheckResult:
        """A check of rows: the share that failed, or that of the worst group, against the tolerance."""
        if not looked:
            raise Unknown("no row is one it is about" if bound.check.where else "the batch has no row")
        nulls = self._counted.nulls
        if not failed and bound.check.rule in _OF_VALUES and nulls.get(bound.check.columns[0]) == self._counted.rows:
            raise Unknown("no row has a value to judge")
        share, where = failed / looked, ""
        if bound.check.by:
            shares = [(bad / seen, name) for name, (bad, seen) in self._counted.groups[bound.title] if seen]
            share, name = max(shares)
            where = f" in the group {name}"
        # A share and not a product: 0.29 * 100 is less than 29.
        fails = failed > 0 and share > bound.check.tolerance
        reason = f"{share:.3%} of the rows fail{where}, {bound.check.tolerance:.3%} may" if fails else ""
        return _result(bound, "fail" if fails else "pass", failed=failed, rows=looked,
                       halted=fails and bound.check.halts, reason=reason)  # fmt: skip

    def _among_others(self, bound: BoundCheck) -> CheckResult:
        frame = frame_of(self._typed, self._suite)
        where = f"table {self._table.name}, check {bound.title}"
        positions = rows_among_others(bound.check, frame, self._context, kinds=self._suite.kinds, where=where)
        self.positions[bound.title] = positions
        return self._rows(bound, len(positions), self._counted.rows)

    def _columns(self, bound: BoundCheck) -> CheckResult:
        arrived, check = self._typed.batch.schema, bound.check
        missing = [name for name in check.columns if name not in arrived.names]
        if check.rule == "has_type" and not missing:
            kind = arrived.field(check.columns[0]).type
            fits = check.option("type") in _TYPE_WORDS.get(kind_of(kind), ())
            return self._whole(bound, "" if fits else f"it arrives as {kind}")
        added = [name for name in arrived.names if name not in check.columns] if check.rule == "columns_match" else []
        reason = "; ".join(
            f"{word}: {', '.join(names)}" for word, names in (("missing", missing), ("added", added)) if names
        )
        return self._whole(bound, reason)

    def _value(self, bound: BoundCheck, *, finite: bool = False) -> float:
        value = self._counted.values[bound.title]
        if value is None or (finite and not math.isfinite(value)):
            raise Unknown(self._why(bound))
        return float(value)

    def _why(self, bound: BoundCheck) -> str:
        assert bound.measure is not None
        return why_unmeasured(self._typed, self._suite, bound.measure)

    def _number(self, bound: BoundCheck) -> CheckResult:
        check = bound.check
        if not check.by:
            value = self._value(bound)
            reason = self._beyond(check, value)
            if math.isinf(value) and check.rule in _OF_ALL_VALUES:
                if not reason:  # one infinity decides it, whatever the others are
                    raise Unknown(self._why(bound))
                reason += f": {self._why(bound)}"
            return self._whole(bound, reason, value)
        measured = self._counted.groups[bound.title]
        groups = [(name, float(value)) for name, value in measured if value is not None]
        bad = [(name, value) for name, value in groups if self._beyond(check, value)]
        if not bad and len(groups) < len(measured):
            name = next(name for name, value in measured if value is None)
            more = len(measured) - len(groups) - 1
            raise Unknown(f"{self._why(bound)}; not in the group {name}, and {more} more groups")
        # The tolerance is a share of rows; of groups, all have to hold.
        name, value = bad[0] if bad else groups[0]
        reason = f"{self._beyond(check, value)} in the group {name}, and {len(bad) - 1} more groups" if bad else ""
        return self._whole(bound, reason, value)

    def _beyond(self, check: Check, value: float) -> str:
        """Why a number is out of its bounds; empty if it is within."""
        if check.rule == "freshness":
            age, limit = self._context.now - int(value), parse_duration(check.option("max_age"))
            return f"the newest is {format_duration(age)} old" if age > limit else ""
        if check.rule == "leakage":
            strength = max(value, 1 - value)
            return f"alone it has an AUC of {strength:.4f}" if strength > check.option("max_auc") else ""
        low, high = check.option("low"), check.option("high")
        if low is not None and value < low:
            return f"{value:g} is below {low:g}"
        return f"{value:g} is above {high:g}" if high is not None and value > high else ""

    def _whole(self, bound: BoundCheck, reason: str, value: float | None = None) -> CheckResult:
        """A check of the whole batch, which passes where there is no reason why not."""
        halted = bool(reason) and bound.check.halts
        return _result(bound, "fail" if reason else "pass", halted=halted, value=value, reason=reason)


_OF_ALL_VALUES = ("mean", "sum")
_OF_VALUES = ("between", "in_set", "not_in_set", "matches", "length", "time_between", "not_in_future", "finite")
_TYPE_WORDS = {
    "bool": ("bool",), "int": ("int", "float"), "float": ("float",), "text": ("string",), "date": ("date",),
    "time": ("time",),
}  # fmt: skip


def _result(bound: BoundCheck, status: Any, *, rule: str | None = None, **facts: Any) -> CheckResult:
    check = bound.check
    kind = rule or ("type" if bound.spoiled is not None else check.rule)
    return CheckResult(bound.title, kind, check.layer, check.severity, status, columns=check.columns, **facts)
