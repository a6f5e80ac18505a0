"""The expectations of Great Expectations, one by one: which of our checks each is, or why it is none."""

from __future__ import annotations

from collections.abc import Callable
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

__all__ = ["EXPECTATIONS", "UNMAPPED"]


# -- values of one column ----------------------------------------------------------------------------------------------


def _between(said: Expectation) -> list[Check]:
    low, high = (time_or_text(said.get(name)) for name in ("min_value", "max_value"))
    strict = {"strict_low": bool(said.get("strict_min")), "strict_high": bool(said.get("strict_max"))}
    return value_checks(said.column, low, high, said.how_of(said.column), **strict)


def _in_set(said: Expectation, *, negated: bool = False) -> list[Check]:
    return set_checks(said.column, said.get("value_set"), said.how_of(said.column), negated=negated)


def _lengths(said: Expectation) -> list[Check]:
    low, high = said.bounds(count_bounds)
    return [Check.length(said.column, low, high, **said.how_of(said.column))]


def _length(said: Expectation) -> list[Check]:
    value = plain(said.get("value"))
    return [Check.length(said.column, value, value, **said.how_of(said.column))]


def _regex(said: Expectation, *, negated: bool = False) -> list[Check]:
    pattern, how = whole_pattern(str(said.get("regex", ""))), said.how_of(said.column)
    if not negated:
        return [Check.matches(said.column, pattern, **how)]
    return [Check.sql(f"not {_matches(said.column, pattern)}", **how)]


def _matches(column: str, pattern: str) -> str:
    return f"matches({column_text(column)}, {literal_text(pattern)})"


def _regexes(said: Expectation, *, negated: bool = False) -> list[Check]:
    tests = [_matches(said.column, whole_pattern(str(each))) for each in said.get("regex_list", ())]
    return _listed(said, tests, negated=negated)


def _like(said: Expectation, *, negated: bool = False) -> list[Check]:
    return _listed(said, [_like_test(said, said.get("like_pattern"))], negated=negated)


def _likes(said: Expectation, *, negated: bool = False) -> list[Check]:
    tests = [_like_test(said, each) for each in said.get("like_pattern_list", ())]
    return _listed(said, tests, negated=negated)


def _like_test(said: Expectation, pattern: Any) -> str:
    if said.get("escape") is not None or "\\" in str(pattern):
        raise Refused("its pattern has an escape sign; like has none here, matches can say it")
    return f"{column_text(said.column)} like {literal_text(str(pattern))}"


def _listed(said: Expectation, tests: list[str], *, negated: bool) -> list[Check]:
    if not tests:
        raise Refused("its list is empty")
    word = " and " if said.get("match_on", "any") == "all" and not negated else " or "
    text = word.join(tests)
    return [Check.sql(f"not ({text})" if negated else text, **said.how_of(said.column))]


def _unique(said: Expectation) -> list[Check]:
    return [Check.unique(said.column, **said.every)]


def _monotone(said: Expectation, direction: Any) -> list[Check]:
    return [Check.monotone(said.column, direction, strict=bool(said.get("strictly")), **said.every)]


def _typed(said: Expectation, name: str) -> list[Check]:
    given = said.get(name)
    words = {word_of(each) for each in ([given] if isinstance(given, str) else given or ())}
    if words == {"int", "float"}:
        words = {"float"}
    if len(words) != 1 or None in words:
        raise Refused("its type names are not of one of bool, date, float, int, string, time")
    return [Check.has_type(said.column, str(words.pop()), **said.bare)]


# -- the set of values, and numbers of the batch -----------------------------------------------------------------------


def _distinct(said: Expectation, *, inside: bool, contained: bool) -> list[Check]:
    found = set_checks(said.column, said.get("value_set"), said.whole, negated=False) if inside else []
    return [*found, *(contains_checks(said.column, said.get("value_set"), said.whole) if contained else ())]


def _measured(said: Expectation, make: Callable[..., Check]) -> list[Check]:
    low, high = said.bounds(measure_bounds)
    return [make(said.column, low, high, **said.whole)]


def _distinct_count(said: Expectation) -> list[Check]:
    low, high = said.bounds(count_bounds)
    return [Check.distinct_count(said.column, low, high, **said.whole)]


def _present_share(said: Expectation) -> list[Check]:
    if said.get("strict_min") or said.get("strict_max"):
        raise Refused("a strict bound on the share of values has none on the share of nulls that means the same")
    low, high = said.bounds(measure_bounds)
    rates = (None if side is None else complement(side) for side in (high, low))
    return [Check.null_rate(said.column, *rates, **said.whole)]


def _quantiles(said: Expectation) -> list[Check]:
    ranges = said.get("quantile_ranges", {})
    pairs = list(zip(ranges.get("quantiles", ()), ranges.get("value_ranges", ()), strict=True))
    if said.get("allow_relative_error") != "linear":
        said.remarks.append(
            "only its interpolation: quantile() interpolates linearly, the library takes the nearest value"
        )
    found = []
    for share, (low, high) in pairs:
        found.append(Check.quantile(said.column, share, *measure_bounds(low, high), **said.whole))
    return found


def _row_count(said: Expectation) -> list[Check]:
    low, high = said.bounds(count_bounds)
    return [Check.row_count(low, high, **said.whole)]


def _row_count_equal(said: Expectation) -> list[Check]:
    value = plain(said.get("value"))
    return [Check.row_count(value, value, **said.whole)]


# -- several columns ---------------------------------------------------------------------------------------------------


def _pair(said: Expectation, test: Callable[[str, str], str]) -> list[Check]:
    left, right = said.names("column_A")[0], said.names("column_B")[0]
    ignored = said.get("ignore_row_if", "both_values_are_missing")
    names = {"both_values_are_missing": "all", "either_value_is_missing": "any", "neither": "none"}
    if ignored not in names:
        raise Refused("its ignore_row_if is not known")
    return _several(said, [left, right], names[ignored], test(column_text(left), column_text(right)))


def _record(said: Expectation, test: Callable[[list[str]], str]) -> list[Check]:
    columns = said.names("column_list")
    ignored = said.get("ignore_row_if", "all_values_are_missing")
    names = {"all_values_are_missing": "all", "any_value_is_missing": "any", "never": "none"}
    if ignored not in names:
        raise Refused("its ignore_row_if is not known")
    return _several(said, columns, names[ignored], test([column_text(name) for name in columns]))


def _several(said: Expectation, columns: list[str], ignored: str, test: str) -> list[Check]:
    """A test of several columns: unknown fails, except in the rows that are left out."""
    present = [f"{column_text(name)} is not null" for name in columns]
    if ignored == "none":
        return [Check.sql(f"coalesce({test}, false)", **said.how)]
    if ignored == "any":
        return [Check.sql(test, **said.only(" and ".join(present)))]
    return [Check.sql(f"coalesce({test}, false)", **said.only(" or ".join(present)))]


def _greater(said: Expectation) -> list[Check]:
    sign = ">=" if said.get("or_equal") else ">"
    return _pair(said, lambda left, right: f"{left} {sign} {right}")


def _pairs_in_set(said: Expectation) -> list[Check]:
    pairs = said.get("value_pairs_set", ())
    if not pairs:
        raise Refused("its set is empty")

    def one(column: str, value: Any) -> str:
        known = plain(value)
        return f"{column} is null" if known is None else f"{column} = {value_text(known)}"

    def test(left: str, right: str) -> str:
        return " or ".join(f"{one(left, a)} and {one(right, b)}" for a, b in pairs)

    return _pair(said, test)


def _sum(said: Expectation) -> list[Check]:
    total = members([said.get("sum_total")])[0]
    return _record(said, lambda names: f"{' + '.join(names)} = {value_text(total)}")


def _equal_test(names: list[str]) -> str:
    first = names[0]
    tests = [f"coalesce({first} = {each}, {first} is null and {each} is null)" for each in names[1:]]
    return " and ".join(tests) or "true"


def _different_test(names: list[str]) -> str:
    tests = [f"coalesce({a} <> {b}, {a} is not null or {b} is not null)" for a, b in combinations(names, 2)]
    return " and ".join(tests) or "true"


def _compound_unique(said: Expectation) -> list[Check]:
    columns = said.names("column_list")
    if said.get("ignore_row_if", "all_values_are_missing") != "any_value_is_missing" and len(columns) > 1:
        said.remarks.append("only rows with a null among the columns: here they repeat nothing")
    return [Check.unique(*columns, **said.every)]


# -- the table ---------------------------------------------------------------------------------------------------------


def _exists(said: Expectation) -> list[Check]:
    if said.get("column_index") is not None:
        said.remarks.append("only its place: columns have no order here")
    return [Check.columns_exist(said.column, **said.bare)]


def _ordered(said: Expectation) -> list[Check]:
    said.remarks.append("only the order of the columns: columns_match is about their names")
    return [Check.columns_match(*said.names("column_list"), **said.bare)]


def _column_set(said: Expectation) -> list[Check]:
    make = Check.columns_exist if said.get("exact_match", True) is False else Check.columns_match
    return [make(*sorted(said.names("column_set")), **said.bare)]


EXPECTATIONS: dict[str, Callable[[Expectation], list[Check]]] = {
    "expect_column_distinct_values_to_be_in_set": lambda said: _distinct(said, inside=True, contained=False),
    "expect_column_distinct_values_to_contain_set": lambda said: _distinct(said, inside=False, contained=True),
    "expect_column_distinct_values_to_equal_set": lambda said: _distinct(said, inside=True, contained=True),
    "expect_column_max_to_be_between": lambda said: _measured(said, Check.max),
    "expect_column_mean_to_be_between": lambda said: _measured(said, Check.mean),
    "expect_column_median_to_be_between": lambda said: _measured(said, Check.median),
    "expect_column_min_to_be_between": lambda said: _measured(said, Check.min),
    "expect_column_pair_values_a_to_be_greater_than_b": _greater,
    "expect_column_pair_values_to_be_equal": lambda said: _pair(said, lambda left, right: f"{left} = {right}"),
    "expect_column_pair_values_to_be_in_set": _pairs_in_set,
    "expect_column_proportion_of_non_null_values_to_be_between": _present_share,
    "expect_column_proportion_of_unique_values_to_be_between": lambda said: _measured(said, Check.distinct_share),
    "expect_column_quantile_values_to_be_between": _quantiles,
    "expect_column_stdev_to_be_between": lambda said: _measured(said, Check.std),
    "expect_column_sum_to_be_between": lambda said: _measured(said, Check.sum),
    "expect_column_to_exist": _exists,
    "expect_column_type_to_be": lambda said: _typed(said, "type_"),
    "expect_column_unique_value_count_to_be_between": _distinct_count,
    "expect_column_value_lengths_to_be_between": _lengths,
    "expect_column_value_lengths_to_equal": _length,
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_decreasing": lambda said: _monotone(said, "decreasing"),
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_be_in_type_list": lambda said: _typed(said, "type_list"),
    "expect_column_values_to_be_increasing": lambda said: _monotone(said, "increasing"),
    "expect_column_values_to_be_null": lambda said: [Check.is_null(said.column, **said.how)],
    "expect_column_values_to_be_of_type": lambda said: _typed(said, "type_"),
    "expect_column_values_to_be_unique": _unique,
    "expect_column_values_to_match_like_pattern": _like,
    "expect_column_values_to_match_like_pattern_list": _likes,
    "expect_column_values_to_match_regex": _regex,
    "expect_column_values_to_match_regex_list": _regexes,
    "expect_column_values_to_not_be_in_set": lambda said: _in_set(said, negated=True),
    "expect_column_values_to_not_be_null": lambda said: [Check.not_null(said.column, **said.how)],
    "expect_column_values_to_not_match_like_pattern": lambda said: _like(said, negated=True),
    "expect_column_values_to_not_match_like_pattern_list": lambda said: _likes(said, negated=True),
    "expect_column_values_to_not_match_regex": lambda said: _regex(said, negated=True),
    "expect_column_values_to_not_match_regex_list": lambda said: _regexes(said, negated=True),
    "expect_compound_columns_to_be_unique": _compound_unique,
    "expect_multicolumn_sum_to_equal": _sum,
    "expect_multicolumn_values_to_be_equal": lambda said: _record(said, _equal_test),
    "expect_multicolumn_values_to_be_unique": lambda said: _record(said, _different_test),
    "expect_select_column_values_to_be_unique_within_record": lambda said: _record(said, _different_test),
    "expect_table_columns_to_match_ordered_list": _ordered,
    "expect_table_columns_to_match_set": _column_set,
    "expect_table_row_count_to_be_between": _row_count,
    "expect_table_row_count_to_equal": _row_count_equal,
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
