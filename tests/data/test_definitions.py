"""What a definitions module may say about tables, checks and labels; mistakes are found where they are written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from retrodict.core.errors import DefinitionError
from retrodict.data.definitions import Check, ColumnType, Table
from retrodict.features.labels import Label


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Check.in_set("c", []), "not empty"),
        (lambda: Check.in_set("c", "ABC"), "collection of texts"),
        (lambda: Check.in_set("c", {1, "a"}), "not mixed"),
        (lambda: Check.in_set("c", [True, 2]), "not mixed"),
        (lambda: Check.in_set("c", [None]), "not_null"),
        (lambda: Check.in_set("c", [math.nan]), "collection"),
        (lambda: Check.between("c", None, None), "one or two finite numbers"),
        (lambda: Check.between("c", 0, 1, severty="high"), "check between: .*got 'severty'.*the keyword 'severity'"),
        (lambda: Check.drift("c", atmost=0.1), "check drift: .*got 'atmost'.*the keyword 'at_most'"),
        (lambda: Check("row_count", option=()), "got 'option'.*the keyword 'options'"),
        (lambda: Table("t", colums={"a": "int"}), "got 'colums'.*the keyword 'columns'"),
        (lambda: Check.between("c", 2, 1), "lower bound must not be above"),
        (lambda: Check.between("c", math.nan, 1), "finite"),
        (lambda: Check.between("c", -math.inf, 1), "None for an open side"),
        (lambda: Check.between("c", True, 2), "finite numbers"),
        (lambda: Check.between("c", "2013-01-01", None), "Check.sql"),  # type: ignore[arg-type]
        (lambda: Check.between("c", 0, 2**63), "finite numbers"),
        (Check.not_null, "at least one column"),
        (Check.unique, "at least one column"),
        (lambda: Check.not_null(""), "columns must be named by text"),
        (lambda: Check.sql("1 = 1"), "at least one column"),
        (lambda: Check.sql("a + 1"), "true or false"),
        (lambda: Check.sql("a >"), "check sql"),
        (lambda: Check("unqiue", ("c",)), "Did you mean the rule 'unique'"),
        (lambda: Check.not_null("c", severity="hgih"), "Did you mean the severity 'high'"),  # type: ignore[arg-type]
        (lambda: Check.not_null("c", tolerance=1.5), "share from 0 to 1"),
        (lambda: Check.not_null("c", tolerance=math.nan), "share from 0 to 1"),
        (lambda: Check.not_null("c", tolerance="5%"), "share from 0 to 1"),  # type: ignore[arg-type]
        (lambda: Check.mean("c"), "one or two finite numbers"),
        (lambda: Check.quantile("c", 5, 0, 1), "share from 0 to 1"),
        (lambda: Check.stable("maen", "c"), "Did you mean the measure 'mean'"),
        (lambda: Check.stable("mean"), "mean must have 1 columns"),
        (lambda: Check.stable("mean", "c", deviations=3), "must not be set with"),
        (lambda: Check.drift("c", metric="PSI"), "the metric must be one that exists.*psi"),  # type: ignore[arg-type]
        (lambda: Check.time_between("c", "yesterday", None), "ISO 8601"),
        (lambda: Check.matches("c", "(?=a)"), "check matches"),
        (lambda: Check.compare("a", "==", "b"), "the operator must be one that exists"),  # type: ignore[arg-type]
        (lambda: Check.references(["a", "b"], "t", "c"), "as many columns"),
        (lambda: Check.unique("a", by="b"), "a check with groups must"),
        (lambda: Check.leakage("a", "b", max_auc=0.3), "from 0.5 to 1"),
        (lambda: Check.has_type("a", "integer"), "Did you mean the type 'int'"),
        (lambda: Check.not_null("a", where="b + 1"), "a condition must be true or false"),
        (lambda: Check.freshness("a", "soon"), "duration"),
        (lambda: Table("t", key=["a", 3]), "a key must name columns"),  # type: ignore[list-item]
        (lambda: Table("t", key=["a", "a"]), "a column once"),
        (lambda: Table("t", key="a", columns={"a": "integer"}), "Did you mean the type 'int'"),
        (lambda: Table("t", key="a", columns={"a": int}), "a column type must be a text"),  # type: ignore[dict-item]
        (lambda: Table("t", key="a", columns=["a"]), "types by name"),  # type: ignore[arg-type]
        (lambda: Table("t", key="a", columns={"a": "int(UTC)"}), "a column type must be bool"),
        (lambda: Table("t", key="a", columns={"a": "time(Nowhere/City)"}), "IANA"),
        (lambda: Table("t", key="a", columns={"a": "time(America)"}), "IANA"),
        (lambda: Table("t", key="a", columns={"a": "time(../x)"}), "IANA"),
        (lambda: Table("t", key="a", checks=["a > 1"]), "checks must be Check objects"),  # type: ignore[list-item]
        (lambda: Label("l", Table("t"), "a > 1", known_at="t"), "the table of a label must have a key"),
        (lambda: Label("l", "flights", "a > 1", known_at="t"), "Pass the Table object"),  # type: ignore[arg-type]
        (lambda: Label("l", Table("t", key="a"), "a - 1h", known_at="t"), "true or false, a number or a text"),
        (lambda: Label("l", Table("t", key="a"), "a > 1", known_at="a > 1"), "known_at must be a time"),
        (lambda: Label("l", Table("t", key="a"), "a > 1", known_at="t", matures="1 month"), "duration"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_of_the_definition(make: Any, said: str) -> None:
    """Before there is any data, and with the remedy."""
    with pytest.raises((DefinitionError, ValueError), match=said):
        make()


def test_titles_say_the_rule_and_no_data() -> None:
    """They stand in reports and in the ledger; allowed values may be data."""
    assert Check.in_set("origin", {"JFK", "EWR"}).title == "in_set(origin)"
    assert Check.between("d", None, 5).title == "between(d, None, 5)"
    assert Check.sql("a>b").title == "sql(a > b)"


def test_what_the_order_of_a_set_is_does_not_change_the_version() -> None:
    """Sets have no order, lists here neither."""
    one, two = (Table("t", key="a", checks=[Check.in_set("c", values)]) for values in (["b", "a", "b"], {"a", "b"}))
    assert one.version == two.version


def test_a_table_does_not_change_with_the_dict_it_was_made_of() -> None:
    """Its version is a hash of what it says."""
    columns = {"a": "int"}
    table = Table("t", key="a", columns=columns)
    columns["b"] = "int"
    assert dict(table.columns) == {"a": "int"}


def test_a_description_is_no_content_and_a_check_is() -> None:
    """A comment must not make a new version."""
    plain = Table("t", key="a")
    assert plain.version == Table("t", key="a", description="all of them").version
    assert plain.version != Table("t", key="a", checks=Check.not_null("b")).version  # type: ignore[arg-type]


def test_another_check_on_its_table_is_no_other_label() -> None:
    """Nor are other spellings of the same length of time: a model would have to be trained again for nothing."""
    one = Label("l", Table("t", key="a"), "a>1", known_at="t", matures="24h")
    two = Label("l", Table("t", key="a", checks=[Check.not_null("b")]), "a > 1", known_at="t", matures="1d")
    assert one.version == two.version
    assert one.version != Label("l", Table("t", key="a"), "a > 2", known_at="t", matures="24h").version


def test_a_column_type_reads_its_zone() -> None:
    """With its zone where it has one."""
    assert ColumnType.parse("time(America/New_York)", where="x") == ColumnType("time", "America/New_York")
    assert ColumnType.parse("int", where="x") == ColumnType("int")
