"""docs/data-interchange.md lists what is mapped and what is not; the command prints a definition that can be pasted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from retrodict import Check, Table
from retrodict.data.interchange import from_great_expectations, from_pandera
from retrodict.data.interchange._expectations import EXPECTATIONS, UNMAPPED

PAGE = (Path(__file__).parents[2] / "docs" / "data-interchange.md").read_text(encoding="utf-8")
SUITE = {
    "name": "s",
    "expectations": [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0, "mostly": 0.95}},
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "s", "regex": r"^it's\d$"}},
        {"type": "expect_column_values_to_match_json_schema", "kwargs": {"column": "j"}},
    ],
}


def test_the_page_lists_every_expectation_on_its_side() -> None:
    """In the first table what is mapped, in the second what is not."""
    mapped, unmapped = PAGE.split("| expectation | why it is not mapped |")
    rows = re.compile(r"^\| `(expect_\w+|unexpected_rows_expectation)`", re.MULTILINE)
    assert rows.findall(mapped) == sorted(EXPECTATIONS)
    assert rows.findall(unmapped) == sorted(UNMAPPED)


def test_the_page_names_every_built_in_check_of_pandera() -> None:
    """But those for arrays, which it names as a group."""
    checks = pytest.importorskip("pandera.api.checks", reason="needs the extra pandera")
    pytest.importorskip("pandera.polars")
    found = set(checks.Check.CHECK_FUNCTION_REGISTRY)
    arrays = re.compile(
        r"has_dims|has_coords|has_attrs|ndim|dim_size|is_monotonic|no_duplicates_in_coord|has_enc.*|cf_.*"
    )
    named = set(re.findall(r"`(\w+)`", PAGE.split("## Pandera")[1]))
    assert {name for name in found if not arrays.fullmatch(name)} <= named


def ask(*arguments: object) -> Any:
    """Answer of the command, run in this process."""
    from retrodict.cli.data import data

    return data.commands["import-checks"].main([str(each) for each in arguments], standalone_mode=False)


def test_the_command_prints_a_definition_that_says_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted, it is the imported table; what is not mapped goes to standard error."""
    (tmp_path / "My suite.json").write_text(json.dumps(SUITE))
    answer = ask(tmp_path / "My suite.json")
    made: dict[str, Any] = {}
    exec(str(answer), made)
    assert made["my_suite"] == from_great_expectations(SUITE).table("my_suite")
    said = capsys.readouterr().err
    assert "2 checks; 1 not mapped, 0 only in part" in said
    assert "not mapped: expect_column_values_to_match_json_schema(j): no expression reads JSON" in said


def test_the_command_sees_a_schema_of_pandera(tmp_path: Path) -> None:
    """Its JSON has no expectations."""
    body = {"columns": {"sku": {"dtype": "str", "unique": True, "str_length": {"min_value": 3, "max_value": None}}}}
    (tmp_path / "schema.json").write_text(json.dumps(body))
    answer = ask(tmp_path / "schema.json", "--table", "stock", "--json")
    made: dict[str, Any] = {"Check": Check, "Table": Table}
    exec(answer.to_dict()["definition"], made)
    assert made["stock"] == from_pandera(body).table("stock")
    assert answer.to_dict()["key"] == ["sku"]
    assert Check.length("sku", 3, None) in made["stock"].checks
