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
    time_or_text,
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


def _between(expectation: Expectation) -> list[Check]:
    low, high = (time_or_text(expectation.get(name)) for name in ("min_value", "max_value"))
    strict = {"strict_low": bool(expectation.get("strict_min")), "strict_high": bool(expectation.get("strict_max"))}
    return value_checks(expectation.column, low, high, expectation.how_of(expectation.column), **strict)


def _in_set(expectation: Expectation, *, negated: bool = False) -> list[Check]:
    return set_checks(
        expectation.column, expectation.get("value_set"), expectation.how_of(expectation.column), negated=negated
    )


def _lengths(expectation: Expectation) -> list[Check]:
    return [Check.length(expectation.column, *_counts(expectation), **expectation.how_of(expectation.column))]


def _counts(expectation: Expectation) -> tuple[Any, Any]:
    """Bounds on a whole number; the number itself is both."""
    value = plain(expectation.get("value"))
    return expectation.bounds(count_bounds) if value is None else (value, value)


def _regex(expectation: Expectation, *, negated: bool = False) -> list[Check]:
    pattern, how = whole_pattern(str(expectation.get("regex", ""))), expectation.how_of(expectation.column)
    if not negated:
        return [Check.matches(expectation.column, pattern, **how)]
    return [Check.sql(f"not {_matches(expectation.column, pattern)}", **how)]


def _matches(column: str, pattern: str) -> str:
    return f"matches({column_text(column)}, {literal_text(pattern)})"


def _regexes(expectation: Expectation, *, negated: bool = False) -> list[Check]:
    tests = [_matches(expectation.column, whole_pattern(str(pattern))) for pattern in expectation.get("regex_list", ())]
    return _listed(expectation, tests, negated=negated)


def _like(expectation: Expectation, *, negated: bool = False) -> list[Check]:
    return _listed(expectation, [_like_test(expectation, expectation.get("like_pattern"))], negated=negated)


def _likes(expectation: Expectation, *, negated: bool = False) -> list[Check]:
    tests = [_like_test(expectation, pattern) for pattern in expectation.get("like_pattern_list", ())]
    return _listed(expectation, tests, negated=negated)


def _like_test(expectation: Expectation, pattern: Any) -> str:
    if expectation.get("escape") is not None or "\\" in str(pattern):
        raise Refused("its pattern has an escape sign; like has none here, matches can say it")
    return f"{column_text(expectation.column)} like {literal_text(str(pattern))}"


def _listed(expectation: Expectation, tests: list[str], *, negated: bool) -> list[Check]:
    if not tests:
        raise Refused("its list is empty")
    word = " and " if expectation.get("match_on", "any") == "all" and not negated else " or "
    text = word.join(tests)
    return [Check.sql(f"not ({text})" if negated else text, **expectation.how_of(expectation.column))]


def _unique(expectation: Expectation) -> list[Check]:
    return [Check.unique(expectation.column, **expectation.every)]


def _monotone(expectation: Expectation, direction: Any) -> list[Check]:
    return [
        Check.monotone(expectation.column, direction, strict=bool(expectation.get("strictly")), **expectation.every)
    ]


def _typed(expectation: Expectation, name: str) -> list[Check]:
    types = expectation.get(name)
    words = {word_of(name) for name in ([types] if isinstance(types, str) else types or ())}
    if words == {"int", "float"}:
        words = {"float"}
    if len(words) != 1 or None in words:
        raise Refused("its type names are not of one of bool, date, float, int, string, time")
    return [Check.has_type(expectation.column, str(words.pop()), **expectation.bare)]


# -- the set of values, and numbers of the batch -----------------------------------------------------------------------


def _distinct(expectation: Expectation, *, inside: bool = False, contained: bool = False) -> list[Check]:
    column, values, how = expectation.column, expectation.get("value_set"), expectation.whole
    checks = set_checks(column, values, how, negated=False) if inside else []
    return [*checks, *(contains_checks(column, values, how) if contained else ())]


def _measured(expectation: Expectation, make: Callable[..., Check], reader: Bounds = measure_bounds) -> list[Check]:
    low, high = expectation.bounds(reader)
    return [make(expectation.column, low, high, **expectation.whole)]


def _present_share(expectation: Expectation) -> list[Check]:
    if expectation.get("strict_min") or expectation.get("strict_max"):
        raise Refused("a strict bound on the share of values has none on the share of nulls that means the same")
    low, high = expectation.bounds(measure_bounds)
    rates = (None if side is None else complement(side) for side in (high, low))
    return [Check.null_rate(expectation.column, *rates, **expectation.whole)]


def _quantiles(expectation: Expectation) -> list[Check]:
    ranges = expectation.get("quantile_ranges", {})
    pairs = list(zip(ranges.get("quantiles", ()), ranges.get("value_ranges", ()), strict=True))
    if expectation.get("allow_relative_error") != "linear":
        expectation.remarks.append(
            "only its interpolation: quantile() interpolates linearly, the library takes the nearest value"
        )
    checks = []
    for share, (low, high) in pairs:
        checks.append(Check.quantile(expectation.column, share, *measure_bounds(low, high), **expectation.whole))
    return checks


def _row_count(expectation: Expectation) -> list[Check]:
    return [Check.row_count(*_counts(expectation), **expectation.whole)]


# -- several columns ---------------------------------------------------------------------------------------------------


def _pair(expectation: Expectation, test: Callable[[str, str], str]) -> list[Check]:
    left, right = expectation.names("column_A")[0], expectation.names("column_B")[0]
    return _several(expectation, [left, right], test(column_text(left), column_text(right)))


def _record(expectation: Expectation, test: Callable[[list[str]], str]) -> list[Check]:
    columns = expectation.names("column_list")
    return _several(expectation, columns, test([column_text(name) for name in columns]))


def _several(expectation: Expectation, columns: list[str], test: str) -> list[Check]:
    """A test of several columns: unknown fails, except in the rows that are left out."""
    ignored = _IGNORED.get(expectation.get("ignore_row_if", "all_values_are_missing"))
    if ignored is None:
        raise Refused("its ignore_row_if is not known")
    present = [f"{column_text(name)} is not null" for name in columns]
    if ignored == "none":
        return [Check.sql(f"coalesce({test}, false)", **expectation.how)]
    if ignored == "any":
        return [Check.sql(test, **expectation.only(" and ".join(present)))]
    return [Check.sql(f"coalesce({test}, false)", **expectation.only(" or ".join(present)))]


def _greater(expectation: Expectation) -> list[Check]:
    sign = ">=" if expectation.get("or_equal") else ">"
    return _pair(expectation, lambda left, right: f"{left} {sign} {right}")


def _pairs_in_set(expectation: Expectation) -> list[Check]:
    pairs = expectation.get("value_pairs_set", ())
    if not pairs:
        raise Refused("its set is empty")

    def one(column: str, value: Any) -> str:
        constant = plain(value)
        return f"{column} is null" if constant is None else f"{column} = {value_text(constant)}"

    def test(left: str, right: str) -> str:
        return " or ".join(f"{one(left, a)} and {one(right, b)}" for a, b in pairs)

    return _pair(expectation, test)


def _sum(expectation: Expectation) -> list[Check]:
    total = members([expectation.get("sum_total")])[0]
    return _record(expectation, lambda names: f"{' + '.join(names)} = {value_text(total)}")


def _equal_test(names: list[str]) -> str:
    first = names[0]
    tests = [f"coalesce({first} = {name}, {first} is null and {name} is null)" for name in names[1:]]
    return " and ".join(tests) or "true"


def _different_test(names: list[str]) -> str:
    tests = [f"coalesce({a} <> {b}, {a} is not null or {b} is not null)" for a, b in combinations(names, 2)]
    return " and ".join(tests) or "true"


def _compound_unique(expectation: Expectation) -> list[Check]:
    columns = expectation.names("column_list")
    if expectation.get("ignore_row_if", "all_values_are_missing") != "any_value_is_missing" and len(columns) > 1:
        expectation.remarks.append("only rows with a null among the columns: here they repeat nothing")
    return [Check.unique(*columns, **expectation.every)]


# -- the table ---------------------------------------------------------------------------------------------------------


def _exists(expectation: Expectation) -> list[Check]:
    if expectation.get("column_index") is not None:
        expectation.remarks.append("only its place: columns have no order here")
    return [Check.columns_exist(expectation.column, **expectation.bare)]


def _ordered(expectation: Expectation) -> list[Check]:
    expectation.remarks.append("only the order of the columns: columns_match is about their names")
    return [Check.columns_match(*expectation.names("column_list"), **expectation.bare)]


def _column_set(expectation: Expectation) -> list[Check]:
    make = Check.columns_exist if expectation.get("exact_match", True) is False else Check.columns_match
    return [make(*sorted(expectation.names("column_set")), **expectation.bare)]


EXPECTATIONS: dict[str, Callable[[Expectation], list[Check]]] = {
    "expect_column_distinct_values_to_be_in_set": partial(_distinct, inside=True),
    "expect_column_distinct_values_to_contain_set": partial(_distinct, contained=True),
    "expect_column_distinct_values_to_equal_set": partial(_distinct, inside=True, contained=True),
    "expect_column_max_to_be_between": partial(_measured, make=Check.max),
    "expect_column_mean_to_be_between": partial(_measured, make=Check.mean),
    "expect_column_median_to_be_between": partial(_measured, make=Check.median),
    "expect_column_min_to_be_between": partial(_measured, make=Check.min),
    "expect_column_pair_values_a_to_be_greater_than_b": _greater,
    "expect_column_pair_values_to_be_equal": partial(_pair, test="{} = {}".format),
    "expect_column_pair_values_to_be_in_set": _pairs_in_set,
    "expect_column_proportion_of_non_null_values_to_be_between": _present_share,
    "expect_column_proportion_of_unique_values_to_be_between": partial(_measured, make=Check.distinct_share),
    "expect_column_quantile_values_to_be_between": _quantiles,
    "expect_column_stdev_to_be_between": partial(_measured, make=Check.std),
    "expect_column_sum_to_be_between": partial(_measured, make=Check.sum),
    "expect_column_to_exist": _exists,
    "expect_column_type_to_be": lambda expectation: _typed(expectation, "type_"),
    "expect_column_unique_value_count_to_be_between": partial(
        _measured, make=Check.distinct_count, reader=count_bounds
    ),
    "expect_column_value_lengths_to_be_between": _lengths,
    "expect_column_value_lengths_to_equal": _lengths,
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_decreasing": lambda expectation: _monotone(expectation, "decreasing"),
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_be_in_type_list": lambda expectation: _typed(expectation, "type_list"),
    "expect_column_values_to_be_increasing": lambda expectation: _monotone(expectation, "increasing"),
    "expect_column_values_to_be_null": lambda expectation: [Check.is_null(expectation.column, **expectation.how)],
    "expect_column_values_to_be_of_type": lambda expectation: _typed(expectation, "type_"),
    "expect_column_values_to_be_unique": _unique,
    "expect_column_values_to_match_like_pattern": _like,
    "expect_column_values_to_match_like_pattern_list": _likes,
    "expect_column_values_to_match_regex": _regex,
    "expect_column_values_to_match_regex_list": _regexes,
    "expect_column_values_to_not_be_in_set": partial(_in_set, negated=True),
    "expect_column_values_to_not_be_null": lambda expectation: [Check.not_null(expectation.column, **expectation.how)],
    "expect_column_values_to_not_match_like_pattern": partial(_like, negated=True),
    "expect_column_values_to_not_match_like_pattern_list": partial(_likes, negated=True),
    "expect_column_values_to_not_match_regex": partial(_regex, negated=True),
    "expect_column_values_to_not_match_regex_list": partial(_regexes, negated=True),
    "expect_compound_columns_to_be_unique": _compound_unique,
    "expect_multicolumn_sum_to_equal": _sum,
    "expect_multicolumn_values_to_be_equal": lambda expectation: _record(expectation, _equal_test),
    "expect_multicolumn_values_to_be_unique": lambda expectation: _record(expectation, _different_test),
    "expect_select_column_values_to_be_unique_within_record": lambda expectation: _record(expectation, _different_test),
    "expect_table_columns_to_match_ordered_list": _ordered,
    "expect_table_columns_to_match_set": _column_set,
    "expect_table_row_count_to_be_between": _row_count,
    "expect_table_row_count_to_equal": _row_count,
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
