"""Candidates: every check that a profile supports, with reason and evidence, before any is judged on rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from retrodict.core.clock import parse_time
from retrodict.core.durations import format_duration
from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.checks import Check
from retrodict.data.profiling._bounds import (
    covered_share,
    mean_bounds,
    next_extreme,
    next_rate,
    round_out,
    unseen_below,
)
from retrodict.data.profiling._tally import TYPES
from retrodict.data.profiling._texts import pattern_of
from retrodict.data.profiling.profile import ColumnProfile, Profile

_ENOUGH = 30  # rows below which one batch says nothing of the next
_SET = 30  # values of a set at most
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A check, why it is suggested, and the numbers behind it.

    Attributes
    ----------
    check : Check
    reason : str
        One line, without a full stop.
    evidence : mapping of str to number
        What was counted and estimated, by name.
    """

    check: Check
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "check": self.check.title, "rule": self.check.rule, "severity": self.check.severity, "reason": self.reason,
            "evidence": dict(self.evidence),
        }  # fmt: skip


def candidates(profile: Profile, now: int) -> Iterator[Suggestion]:
    """Every check that the profile supports."""
    if profile.rows < _ENOUGH:
        return
    key = best_key(profile)
    yield from _keys(profile, key)
    yield from _of_rows(profile, key)
    for column in profile.columns:
        if column.known < _ENOUGH or column.type not in TYPES:
            continue
        yield from _of_nulls(column)
        if column.type in ("int", "float"):
            yield from _of_numbers(column, key)
        elif column.type == "string":
            yield from _of_texts(column)
        elif column.type in ("time", "date"):
            yield from _of_times(column, now)
    yield from _of_orders(profile)


def best_key(profile: Profile) -> tuple[str, ...]:
    """Columns to take for the key: those whose name says so, then texts, then whole numbers, never a time alone."""
    ranks = {"string": 1, "int": 2}

    def rank(names: tuple[str, ...]) -> tuple[int, int, int]:
        telling = {"id", "key", "uuid", "code", "number", "no"} & set(names[0].lower().split("_"))
        place = next(i for i, column in enumerate(profile.columns) if column.name == names[0])
        return (0 if telling else ranks.get(profile[names[0]].type, 9), len(names), place)

    usable = [names for names in profile.keys if len(names) > 1 or profile[names[0]].type in ranks]
    return min(usable, key=rank) if usable else ()


def _keys(profile: Profile, key: tuple[str, ...]) -> Iterator[Suggestion]:
    if key:
        yield Suggestion(
            Check.primary_key(*key, severity="high"),
            f"never missing and never repeated in {profile.rows:,} rows",
            {"rows": profile.rows},
        )
    for names in profile.keys:
        if names == key or len(names) > 1:
            continue
        by_chance = profile[names[0]].type not in ("string", "int")
        reason = f"never repeated in {profile.rows:,} rows" + (
            ", perhaps by chance" if by_chance else ", beside the key"
        )
        check = Check.unique(*names, severity="low" if by_chance else "medium")
        yield Suggestion(check, reason, {"rows": profile.rows})


def _of_rows(profile: Profile, key: tuple[str, ...]) -> Iterator[Suggestion]:
    rows = profile.rows
    low, high = int(round_out(rows / 2, up=False)), int(round_out(rows * 2, up=True))
    yield Suggestion(
        Check.row_count(low, high),
        "half to twice this batch; one batch says no more of the size of the next",
        {"rows": rows},
    )
    full = [c.name for c in profile.columns if c.rows and not c.missing and c.name not in key and c.type in TYPES]
    if full:
        bound = unseen_below(rows)
        yield Suggestion(
            Check.not_null(*full),
            f"no null in {rows:,} rows: the rate is below {bound:.2g} (95 %)",
            {"rows": rows, "nulls": 0, "rate_below": bound},
        )
    floats = [c.name for c in profile.columns if c.type == "float" and c.known >= _ENOUGH and not c.infinities]
    if floats:
        yield Suggestion(Check.finite(*floats), "no value is infinite", {"rows": rows})


def _of_nulls(column: ColumnProfile) -> Iterator[Suggestion]:
    if not column.missing:
        return
    share = column.missing / column.rows
    bound = min(1.0, round_out(max(next_rate(column.missing, column.rows), share + 0.005), up=True))
    if bound < 1.0:
        yield Suggestion(
            Check.null_rate(column.name, None, bound),
            f"{share:.3%} now; Wilson's bound for a next batch of this size, at least half a percentage point above",
            {"rows": column.rows, "nulls": column.missing, "rate": share},
        )


def _of_numbers(column: ColumnProfile, key: tuple[str, ...]) -> Iterator[Suggestion]:
    name = column.name
    if name in key or column.unique or column.quantiles is None or column.infinities:
        return  # a running number is beyond every range tomorrow
    if (values := _set_of(column)) is not None and column.distinct <= 12:
        yield values
    elif (bounds := _range_of(column)) is not None:
        yield bounds
    if column.mean is not None and column.std:
        low, high = mean_bounds(column.mean, column.std, column.known)
        if (column.negatives or 0) == 0:
            low = max(low, 0.0)
        step = (high - low) / 20  # finer is no figure that anybody wants to read
        low, high = round_out(low, up=False, step=step), round_out(high, up=True, step=step)
        if math.isfinite(low) and math.isfinite(high):
            yield Suggestion(
                Check.mean(name, low, high, severity="low"),
                "99.9 % prediction interval of the next batch's mean, at least a quarter deviation either side",
                {"mean": column.mean, "std": column.std, "values": column.known},
            )
    if column.distinct > 1 and column.known >= 500:
        yield Suggestion(
            Check.drift(name, severity="low"), "compares each batch with the version before it",
            {"values": column.known},
        )  # fmt: skip


def _range_of(column: ColumnProfile) -> Suggestion | None:
    """Extremes, widened by what the tail suggests; a side that is never crossed by nature stays where it is."""
    assert column.quantiles is not None
    at = {share: float(value) for share, value in column.quantiles.items()}
    smallest, largest = float(column.minimum), float(column.maximum)  # type: ignore[arg-type]
    step = 1.0 if column.type == "int" else 0.0
    # Between two quantiles of an exponential tail lies its scale times the logarithm of their ratio.
    upper = max((at["0.99"] - at["0.95"]) / 1.609, (largest - at["0.99"]) / 4.605, (at["0.75"] - at["0.5"]) / 2, step)
    lower = max((at["0.05"] - at["0.01"]) / 1.609, (at["0.01"] - smallest) / 4.605, (at["0.5"] - at["0.25"]) / 2, step)
    wide_low, wide_high = next_extreme(smallest, -lower), next_extreme(largest, upper)
    if not (math.isfinite(wide_low) and math.isfinite(wide_high)):
        return None  # values near the ends of what a double holds
    low = round_out(wide_low, up=False, step=(smallest - wide_low) or None)
    high = round_out(wide_high, up=True, step=(wide_high - largest) or None)
    if smallest >= 0 and low < 0:
        low = 0.0
    if smallest >= 0 and largest <= 1 and column.type == "float":
        high = 1.0
    if largest <= 0 < high:
        high = 0.0
    bounds: list[Any] = [min(low, smallest), max(high, largest)]
    if column.type == "int":
        ends = (int(column.minimum or 0), int(column.maximum or 0))
        bounds = [
            int(bounds[0]) if abs(bounds[0]) < 2**53 else ends[0],
            int(bounds[1]) if abs(bounds[1]) < 2**53 else ends[1],
        ]
    if not all(-(2**63) <= bound < 2**63 for bound in bounds if column.type == "int"):
        return None  # no number of a check
    covered = covered_share(column.known)
    return Suggestion(
        Check.between(column.name, *bounds),
        f"seen {smallest:g} to {largest:g} (covers {covered:.2%} of future values, 95 %), widened for the next",
        {"minimum": smallest, "maximum": largest, "values": column.known, "covered": covered},
    )


def _set_of(column: ColumnProfile) -> Suggestion | None:
    """All values, if they are few and an unseen one is improbable."""
    if column.singletons is None or not column.top or column.distinct > _SET or len(column.top) < column.distinct:
        return None
    # Good and Turing: the probability that the next value is a new one is about the share of those seen once.
    unseen = column.singletons / column.known
    if column.known < 10 * column.distinct or unseen > 0.001:
        return None
    values = [value.value for value in column.top]
    reason = (
        f"{column.distinct} distinct among {column.known:,} values; the next is another with probability {unseen:.2g} "
        f"(Good-Turing)"
    )
    evidence = {"values": column.known, "distinct": column.distinct, "singletons": column.singletons, "unseen": unseen}
    return Suggestion(Check.in_set(column.name, values), reason, evidence)


def _of_texts(column: ColumnProfile) -> Iterator[Suggestion]:
    values = None if column.hidden else _set_of(column)
    if values is not None:
        yield values
        return
    pattern = pattern_of(column.shapes)
    if pattern is not None:
        bound = unseen_below(column.known)
        sampled = {"sampled": True} if column.top_rows < column.known else {}
        try:
            yield Suggestion(
                Check.matches(column.name, pattern),
                f"every one of {column.known:,} texts has this shape: others are rarer than {bound:.2g} (95 %)",
                {"values": column.known, "rate_below": bound} | sampled,
            )
        except DefinitionError:
            pattern = None  # a sign that the patterns of checks do not know: the length will do
    if pattern is None and column.lengths is not None:
        shortest, longest = column.lengths.shortest, column.lengths.longest
        low, high = (1 if shortest else 0), int(round_out(2 * max(longest, 1), up=True))
        yield Suggestion(
            Check.length(column.name, low, high), f"{shortest} to {longest} characters now; up to twice as many",
            {"least": shortest, "most": longest, "values": column.known},
        )  # fmt: skip


def _of_times(column: ColumnProfile, now: int) -> Iterator[Suggestion]:
    first, last = _instant(column.minimum), _instant(column.maximum)
    if first is None or last is None:
        return
    name, evidence = column.name, {"values": column.known, "first": column.minimum, "last": column.maximum}
    year = str(column.minimum)[:4]
    yield Suggestion(
        Check.time_between(name, f"{year}-01-01", None),
        "the year of the first; catches stand-ins like 1900-01-01",
        evidence,
    )
    if column.type == "date":
        return
    if last <= now:
        yield Suggestion(Check.not_in_future(name, "5m"), f"none of {column.known:,} is later than now", evidence)
        age = now - last
        if age <= 30 * _DAY:
            hours = next((x for x in (1, 2, 6, 12, 24, 48, 168, 336, 720, 1440) if x * 3_600_000_000 >= 2 * age), 1440)
            text = format_duration(hours * 3_600_000_000)
            yield Suggestion(
                Check.freshness(name, text), "twice the age of the newest, rounded up", evidence | {"age_s": age / 1e6}
            )
    if column.order in ("increasing", "strictly increasing"):
        yield Suggestion(Check.monotone(name, severity="low"), "rows come in the order of this time", evidence)


def _instant(value: Any) -> int | None:
    try:
        return parse_time(f"{value}T00:00Z" if len(str(value)) == len("2013-01-01") else str(value))
    except InputError:
        return None


def _of_orders(profile: Profile) -> Iterator[Suggestion]:
    """Pairs of times that are always in one order, without those that follow from two others."""
    always: dict[tuple[str, str], int] = {}
    for order in profile.orders:
        rows = order.before + order.equal + order.after
        if rows < 100 or order.before == order.after:
            continue
        if order.after == 0:
            always[order.left, order.right] = rows
        elif order.before == 0:
            always[order.right, order.left] = rows
    names = {name for pair in always for name in pair}
    for (early, late), rows in always.items():
        if any((early, between) in always and (between, late) in always for between in names):
            continue
        bound = unseen_below(rows)
        yield Suggestion(
            Check.compare(early, "<=", late),
            f"so in all {rows:,} rows that have both: exceptions are rarer than {bound:.2g} (95 %)",
            {"rows": rows, "rate_below": bound},
        )
