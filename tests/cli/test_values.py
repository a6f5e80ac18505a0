"""Values on the command line and numbers in answers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.cli._types import _scalar
from retrodict.core.display import plain, to_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(SCALARS)
def test_a_json_scalar_is_read_as_it_is(value: Any) -> None:
    """What json.dumps writes of a scalar comes back as that scalar."""
    assert _scalar(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["JFK", "NaN", "Infinity", "[1]", '{"a":1}', "", "2013-09-01T22:00Z", "01", "N337JB"])
def test_everything_else_is_text(text: str) -> None:
    """No list, no object, no NaN: what is no JSON scalar stays the text it was."""
    assert _scalar(text) == text


@given(
    st.recursive(
        SCALARS | st.just(math.nan) | st.just(math.inf),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_answer_is_strict_json(value: Any) -> None:
    """NaN and infinities become null; everything else comes back equal."""

    def expected(item: Any) -> Any:
        if isinstance(item, float) and not math.isfinite(item):
            return None
        if isinstance(item, list):
            return [expected(each) for each in item]
        return {k: expected(v) for k, v in item.items()} if isinstance(item, dict) else item

    assert json.loads(to_json(value)) == expected(value)


def test_numpy_becomes_plain() -> None:
    """Arrays and scalars of NumPy are lists and numbers, their NaN null."""
    import numpy as np

    assert plain({"a": np.float64(1.5), "b": np.array([1.0, np.nan]), "c": np.int64(3)}) == {
        "a": 1.5,
        "b": [1.0, None],
        "c": 3,
    }
