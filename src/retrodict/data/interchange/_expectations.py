"""The expectations of Great Expectations, one by one: which of our checks each is, or why it is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

from retrodict.data.checks import Check
from retrodict.data.checks.base import column_text, literal_text
from retrodict.data.interchange._arguments import Expectation
from retrodict.data.interchange._patterns import whole_pattern
from retrodict.data.interchange._types import word_of
from retrodict.data.interchange._values import (
    complement,
    contains_checks,
    count_bounds,
    measure_bounds,
    members,
    plain,
    set_checks,
    value_checks,
    value_text,
)
from retrodict.data.interchange.imported import Refused

Bounds = Callable[..., tuple[Any, Any]]
# Which rows an ``ignore_row_if`` leaves out: those where all values are missing, those where any is, or none.
_IGNORED = {
    "all_values_are_missing": "all", "both_values_are_missing": "all", "any_value_is_missing": "any",
    "either_value_is_missing": "any", "neither": "none", "never": "none",
}  # fmt: skip


# -- values of one column ----------------------------------------------------------------------------------------------


def _between(entry: Expectation) -> list[Check]:
    bounds = entry.get("min_value"), entry.get("max_value")
    return value_checks(entry.column, *bounds, entry.of_values, **entry.strict)


def _in_set(entry: Expectation, *, negated: bool = False) -> list[Check]:
    return set_checks(entry.column, entry.get("value_set"), entry.of_values, negated=negated)


def _counts(entry: Expectation) -> tuple[Any, Any]:
    """Bounds on a whole number; the number itself is both."""
    value = plain(entry.get("value"))
    return entry.bounds(count_bounds) if value is None else (value, value)


def _lengths(entry: Expectation) -> list[Check]:
    return [Check.length(entry.column, *_counts(entry), **entry.of_values)]


def _patterns(entry: Expectation, name: str, *, negated: bool = False) -> list[Check]:
    """The text matches a pattern, or any, all or none of a list."""
    patterns = entry.get(name, ())
    tests = [_test(entry, name, str(text)) for text in ([patterns] if isinstance(patterns, str) else patterns)]
    if not tests:
        raise Refused("its list is empty")
    if name == "regex" and not negated:
        return [Check.matches(entry.column, whole_pattern(patterns), **entry.of_values)]
    text = (" and " if entry.get("match_on", "any") == "all" and not negated else " or ").join(tests)
    return [Check.sql(f"not ({text})" if negated else text, **entry.of_values)]


def _test(entry: Expectation, name: str, pattern: str) -> str:
    column = column_text(entry.column)
    if name.startswith("regex"):
        return f"matches({column}, {literal_text(whole_pattern(pattern))})"
    if entry.get("escape") is not None or "\\" in pattern:
        raise Refused("its pattern has an escape sign; like has none here, matches can say it")
    return f"{column} like {literal_text(pattern)}"


def _monotone(entry: Expectation, direction: Any) -> list[Check]:
    return [Check.monotone(entry.column, direction, strict=bool(entry.get("strictly")), **entry.every)]


def _typed(entry: Expectation, name: str) -> list[Check]:
    types = entry.get(name)
    words = {word_of(name) for name in ([types] if isinstance(types, str) else types or ())}
    if words == {"int", "float"}:
        words = {"float"}
    if len(words) != 1 or None in words:
        raise Refused("its type names are not of one of bool, date, float, int, string, time")
    return [Check.has_type(entry.column, str(words.pop()), **entry.bare)]


# -- the set of values, and numbers of the batch -----------------------------------------------------------------------


def _distinct(entry: Expectation, *, inside: bool = False, contained: bool = False) -> list[Check]:
    column, values, how = entry.column, entry.get("value_set"), entry.whole
    checks = set_checks(column, values, how, negated=False) if inside else []
    return [*checks, *(contains_checks(column, values, how) if contained else ())]


def _measured(entry: Expectation, make: Callable[..., Check], reader: Bounds = measure_bounds) -> list[Check]:
    return [make(entry.column, *entry.bounds(reader), **entry.whole)]


def _present_share(entry: Expectation) -> list[Check]:
    if any(entry.strict.values()):
        raise Refused("a strict bound on the share of values has none on the share of nulls that means the same")
    low, high = entry.bounds(measure_bounds)
    rates = (None if side is None else complement(side) for side in (high, low))
    return [Check.null_rate(entry.column, *rates, **entry.whole)]


def _quantiles(entry: Expectation) -> list[Check]:
    ranges = entry.get("quantile_ranges", {})
    pairs = zip(ranges.get("quantiles", ()), ranges.get("value_ranges", ()), strict=True)
    if entry.get("allow_relative_error") != "linear":
        entry.remarks.append(
            "only its interpolation: quantile() interpolates linearly, the library takes the nearest value"
        )
    return [Check.quantile(entry.column, share, *measure_bounds(*bounds), **entry.whole) for share, bounds in pairs]


# -- several columns ---------------------------------------------------------------------------------------------------


def _together(entry: Expectation, test: Callable[..., str]) -> list[Check]:
    """A test of several columns: unknown fails, except in the rows that are left out."""
    pair = entry.get("column_A") is not None
    columns = [*entry.names("column_A"), *entry.names("column_B")] if pair else entry.names("column_list")
    ignored = _IGNORED.get(entry.get("ignore_row_if", "all_values_are_missing"))
    if ignored is None:
        raise Refused("its ignore_row_if is not known")
    text, present = test(*map(column_text, columns)), [f"{column_text(name)} is not null" for name in columns]
    if ignored == "any":
        return [Check.sql(text, **entry.only(" and ".join(present)))]
    return [
        Check.sql(f"coalesce({text}, false)", **entry.how if ignored == "none" else entry.only(" or ".join(present)))
    ]


def _pairs_in_set(entry: Expectation) -> list[Check]:
    pairs = [(plain(a), plain(b)) for a, b in entry.get("value_pairs_set", ())]
    if not pairs:
        raise Refused("its set is empty")

    def one(column: str, value: Any) -> str:
        return f"{column} is null" if value is None else f"{column} = {value_text(value)}"

    return _together(entry, lambda left, right: " or ".join(f"{one(left, a)} and {one(right, b)}" for a, b in pairs))


def _sum(entry: Expectation) -> list[Check]:
    total = value_text(members([entry.get("sum_total")])[0])
    return _together(entry, lambda *names: f"{' + '.join(names)} = {total}")


def _equal_test(first: str, *others: str) -> str:
    tests = [f"coalesce({first} = {name}, {first} is null and {name} is null)" for name in others]
    return " and ".join(tests) or "true"


def _different_test(*names: str) -> str:
    tests = [f"coalesce({a} <> {b}, {a} is not null or {b} is not null)" for a, b in combinations(names, 2)]
    return " and ".join(tests) or "true"


def _compound_unique(entry: Expectation) -> list[Check]:
    columns = entry.names("column_list")
    if entry.get("ignore_row_if", "all_values_are_missing") != "any_value_is_missing" and len(columns) > 1:
        entry.remarks.append("only rows with a null among the columns: here they repeat nothing")
    return [Check.unique(*columns, **entry.every)]


# -- the table ---------------------------------------------------------------------------------------------------------


def _exists(entry: Expectation) -> list[Check]:
    if entry.get("column_index") is not None:
        entry.remarks.append("only its place: columns have no order here")
    return [Check.columns_exist(entry.column, **entry.bare)]


def _ordered(entry: Expectation) -> list[Check]:
    entry.remarks.append("only the order of the columns: columns_match is about their names")
    return [Check.columns_match(*entry.names("column_list"), **entry.bare)]


def _column_set(entry: Expectation) -> list[Check]:
    make = Check.columns_exist if entry.get("exact_match", True) is False else Check.columns_match
    return [make(*sorted(entry.names("column_set")), **entry.bare)]


EXPECTATIONS: dict[str, Callable[[Expectation], list[Check]]] = {
    "expect_column_distinct_values_to_be_in_set": partial(_distinct, inside=True),
    "expect_column_distinct_values_to_contain_set": partial(_distinct, contained=True),
    "expect_column_distinct_values_to_equal_set": partial(_distinct, inside=True, contained=True),
    "expect_column_max_to_be_between": partial(_measured, make=Check.max),
    "expect_column_mean_to_be_between": partial(_measured, make=Check.mean),
    "expect_column_median_to_be_between": partial(_measured, make=Check.median),
    "expect_column_min_to_be_between": partial(_measured, make=Check.min),
    "expect_column_pair_values_a_to_be_greater_than_b": lambda entry: _together(
        entry, ("{} >= {}" if entry.get("or_equal") else "{} > {}").format
    ),
    "expect_column_pair_values_to_be_equal": partial(_together, test="{} = {}".format),
    "expect_column_pair_values_to_be_in_set": _pairs_in_set,
    "expect_column_proportion_of_non_null_values_to_be_between": _present_share,
    "expect_column_proportion_of_unique_values_to_be_between": partial(_measured, make=Check.distinct_share),
    "expect_column_quantile_values_to_be_between": _quantiles,
    "expect_column_stdev_to_be_between": partial(_measured, make=Check.std),
    "expect_column_sum_to_be_between": partial(_measured, make=Check.sum),
    "expect_column_to_exist": _exists,
    "expect_column_type_to_be": partial(_typed, name="type_"),
    "expect_column_unique_value_count_to_be_between": partial(
        _measured, make=Check.distinct_count, reader=count_bounds
    ),
    "expect_column_value_lengths_to_be_between": lambda entry: [
        Check.length(entry.column, *_counts(entry), **entry.of_values)
    ],
    "expect_column_value_lengths_to_equal": lambda entry: [
        Check.length(entry.column, *_counts(entry), **entry.of_values)
    ],
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_decreasing": partial(_monotone, direction="decreasing"),
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_be_in_type_list": partial(_typed, name="type_list"),
    "expect_column_values_to_be_increasing": partial(_monotone, direction="increasing"),
    "expect_column_values_to_be_null": lambda entry: [Check.is_null(entry.column, **entry.how)],
    "expect_column_values_to_be_of_type": partial(_typed, name="type_"),
    "expect_column_values_to_be_unique": lambda entry: [Check.unique(entry.column, **entry.every)],
    "expect_column_values_to_match_like_pattern": partial(_patterns, name="like_pattern"),
    "expect_column_values_to_match_like_pattern_list": partial(_patterns, name="like_pattern_list"),
    "expect_column_values_to_match_regex": partial(_patterns, name="regex"),
    "expect_column_values_to_match_regex_list": partial(_patterns, name="regex_list"),
    "expect_column_values_to_not_be_in_set": partial(_in_set, negated=True),
    "expect_column_values_to_not_be_null": lambda entry: [Check.not_null(entry.column, **entry.how)],
    "expect_column_values_to_not_match_like_pattern": partial(_patterns, name="like_pattern", negated=True),
    "expect_column_values_to_not_match_like_pattern_list": partial(_patterns, name="like_pattern_list", negated=True),
    "expect_column_values_to_not_match_regex": partial(_patterns, name="regex", negated=True),
    "expect_column_values_to_not_match_regex_list": partial(_patterns, name="regex_list", negated=True),
    "expect_compound_columns_to_be_unique": _compound_unique,
    "expect_multicolumn_sum_to_equal": _sum,
    "expect_multicolumn_values_to_be_equal": partial(_together, test=_equal_test),
    "expect_multicolumn_values_to_be_unique": partial(_together, test=_different_test),
    "expect_select_column_values_to_be_unique_within_record": partial(_together, test=_different_test),
    "expect_table_columns_to_match_ordered_list": _ordered,
    "expect_table_columns_to_match_set": _column_set,
    "expect_table_row_count_to_be_between": lambda entry: [Check.row_count(*_counts(entry), **entry.whole)],
    "expect_table_row_count_to_equal": lambda entry: [Check.row_count(*_counts(entry), **entry.whole)],
}

_OF_MOMENTS = "it is decided by a parser of a library; declare the column as date or time and give the type a check"
_OTHER_DATA = "it asks a database; references, disjoint and stable compare with other tables and versions"
_NOT_A_MEASURE = "it is decided by a distribution of the same batch; write bounds with between"
UNMAPPED: dict[str, str] = {
    "expect_column_kl_divergence_to_be_less_than": "it has the reference distribution inside; drift() compares with "
    "a version, by psi, js_distance_bits, hellinger or total_variation",
    "expect_column_most_common_value_to_be_in_set": "no measure is the most common value",
    "expect_column_value_z_scores_to_be_less_than": _NOT_A_MEASURE,
    "expect_column_values_to_be_dateutil_parseable": _OF_MOMENTS,
    "expect_column_values_to_be_json_parseable": "no expression reads JSON",
    "expect_column_values_to_match_json_schema": "no expression reads JSON",
    "expect_column_values_to_match_strftime_format": _OF_MOMENTS,
    "expect_column_values_to_not_be_outliers": _NOT_A_MEASURE,
    "expect_query_results_to_match_comparison": _OTHER_DATA,
    "expect_table_column_count_to_be_between": "columns_match says which columns, not how many",
    "expect_table_column_count_to_equal": "columns_match says which columns, not how many",
    "expect_table_row_count_to_equal_other_table": _OTHER_DATA,
    "unexpected_rows_expectation": _OTHER_DATA,
}
