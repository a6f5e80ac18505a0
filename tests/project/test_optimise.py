"""How a version computes its answers, as it is shown; and variants of a version that are faster or smaller."""

from __future__ import annotations


def test_a_version_says_how_its_answers_are_computed_and_what_was_measured(p):
    """``models show``, its JSON and the card; the version that decides is scored by what is chosen."""
    version = p.models.get("late_parcel@1")
    runtimes = version.to_dict()["runtimes"]
    assert runtimes["rows"] == [1, 64, 1000]
    times = {one["name"]: one for one in runtimes["measured"]}
    assert {*times} == {"row", "table"}
    assert {runtimes["row"], runtimes["table"]} <= {name for name, one in times.items() if one["exact_row"]}
    assert "1,000 rows, µs" in str(version)
    rows = p.models.card("late_parcel@1").to_dict()["sections"]["Runtimes"]
    assert [row["runtime"] for row in rows] == ["row", "table"]
