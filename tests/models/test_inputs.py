"""InputSpec: one reading of values for columns and for rows."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.models import Feature, InputSpec

# The first call loads libraries, and machines are shared: a deadline would judge those.
PATIENT = settings(deadline=None)
FINITE = st.floats(allow_nan=True, allow_infinity=False)
NUMBERS = {
    "float": (FINITE, pa.float64()),
    "int": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "huge": (st.integers(0, 2**64 - 1), pa.uint64()),
    "bool": (st.booleans(), pa.bool_()),
    "single": (st.floats(width=32, allow_infinity=False), pa.float32()),
    "decimal": (st.decimals(-(10**9), 10**9, places=9, allow_nan=False), pa.decimal128(38, 9)),
}
WORDS = st.sampled_from(["", "a", "b", "é", "JFK", "new"])


@st.composite
def tables(draw):
    """A typed Arrow table: number columns of every type, a text and a whole-number category, nulls anywhere."""
    n = draw(st.integers(1, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=0, max_size=4))
    drawn = {f"n{at}_{kind}": (*NUMBERS[kind], "number") for at, kind in enumerate(kinds)}
    drawn["word"] = (WORDS, draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])), "category")
    drawn["whole"] = (st.integers(-3, 3), draw(st.sampled_from([pa.int8(), pa.int64(), pa.float64()])), "category")
    columns = {
        name: pa.array(draw(st.lists(st.none() | values, min_size=n, max_size=n)), type=kind)
        for name, (values, kind, _) in drawn.items()
    }
    return columns, {name: role for name, (_, _, role) in drawn.items()}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit; every NaN is the same NaN."""
    return np.array_equal(np.isnan(a), np.isnan(b)) and a[~np.isnan(a)].tobytes() == b[~np.isnan(b)].tobytes()


@PATIENT
@given(tables(), tables())
def test_a_batch_equals_its_rows_one_by_one(learned, scored):
    """Whatever the types and nulls, the matrix is the stack of the single rows."""
    columns, types = learned
    spec = InputSpec.learn(columns, types)
    fresh = {**columns, **{k: v for k, v in scored[0].items() if k in columns}}
    n = min(len(c) for c in fresh.values())
    fresh = {name: column.slice(0, n) for name, column in fresh.items()}
    matrix = spec.encode_columns(fresh)
    assert matrix.shape == (n, len(spec))
    buffer = np.empty(len(spec))
    for at in range(n):
        assert same(matrix[at], spec.encode_row({k: c[at].as_py() for k, c in fresh.items()}, buffer))


@PATIENT
@given(tables())
def test_every_container_reads_alike(table):
    """Arrow arrays, chunks, dictionaries, lists and object arrays give the same matrix."""
    columns, types = table
    spec = InputSpec.learn(columns, types)
    matrix = spec.encode_columns(columns)
    lists = {k: c.to_pylist() for k, c in columns.items()}
    objects = {k: np.array(v, dtype=object) for k, v in lists.items()}
    chunks = {k: pa.chunked_array([c.slice(0, 1), c.slice(1)]) for k, c in columns.items()}
    coded = {**columns, "word": columns["word"].cast(pa.string()).dictionary_encode()}
    assert all(same(matrix, spec.encode_columns(form)) for form in (lists, objects, chunks, coded))


@PATIENT
@given(tables())
def test_the_json_form_is_the_spec(table):
    """A spec survives JSON, and equal specs have equal bytes."""
    spec = InputSpec.learn(*table)
    assert InputSpec.from_json(spec.to_json()) == spec
    assert InputSpec.from_json(spec.to_json()).to_json() == spec.to_json()


@PATIENT
@given(st.lists(st.none() | WORDS, min_size=1), st.lists(st.none() | WORDS, min_size=1))
def test_codes_are_places_among_the_training_words(learned, scored):
    """The code is the rank among the training words; unseen and null have none."""
    spec = InputSpec.learn({"x": learned}, {"x": "category"})
    known = sorted({w for w in learned if w is not None})
    expected = [float(known.index(w)) if w in known else math.nan for w in scored]
    assert same(np.array(expected), spec.encode_columns({"x": scored})[:, 0])


def test_learning_does_not_depend_on_the_order_of_rows(rows):
    """Vocabularies are sorted, not in the order of appearance."""
    columns = rows[0]
    assert InputSpec.learn(columns) == InputSpec.learn({k: c[::-1] for k, c in columns.items()})


def test_the_order_of_scored_columns_and_extra_ones_are_irrelevant(rows, spec):
    """The spec, not the caller, orders the matrix."""
    columns = rows[0]
    turned = {"extra": ["x"] * len(columns["wind"]), **dict(reversed(columns.items()))}
    assert same(spec.encode_columns(columns), spec.encode_columns(turned))


def test_inputs_are_left_untouched(rows, spec):
    """Encoding writes to nothing but its result."""
    columns = {k: c.copy() for k, c in rows[0].items()}
    spec.encode_columns(columns)[:] = 0.0
    assert all(repr(columns[k].tolist()) == repr(rows[0][k].tolist()) for k in columns)


def test_rare_categories_count_as_unseen_beyond_the_limit():
    """Of more categories than the limit the most frequent stay; ties go to the smaller."""
    spec = InputSpec.learn({"x": ["c", "c", "b", "a", "d"]}, max_categories=2)
    assert spec.features[0].vocabulary == ("a", "c")


def test_types_follow_the_column_unless_told():
    """Text is a category, the rest numbers; bools are 0 and 1."""
    spec = InputSpec.learn({"t": ["a"], "f": np.array([1.5]), "b": [True], "w": [3]}, {"w": "category"})
    assert [f.type for f in spec.features] == ["category", "number", "number", "category"]
    assert spec.categorical == (0, 3)
    assert spec.encode_row({"t": "a", "f": 2, "b": True, "w": 3.0}).tolist() == [0.0, 2.0, 1.0, 0.0]


WRONG = [
    ({"wind": "secret"}, "a number feature must hold numbers or null; got 'str'"),
    ({"wind": dt.date(2013, 9, 1)}, "a number feature must hold numbers or null; got 'date'"),
    ({"wind": [1.0]}, "a number feature must hold numbers or null; got 'list'"),
    ({"wind": math.inf}, "numbers must be finite or missing"),
    ({"wind": -math.inf, "visib": None}, "numbers must be finite or missing"),
    ({"wind": 10**400}, "numbers must be finite or missing"),
    ({"origin": 31337}, "the categories of this feature must be text; got 'int'"),
    ({"origin": ["JFK"]}, "the categories of this feature must be text; got 'list'"),
    ({"month": "secret"}, "the categories of this feature must be numbers; got 'str'"),
]


@pytest.mark.parametrize(("wrong", "rule"), WRONG)
def test_a_wrong_value_names_the_feature_and_never_the_value(spec, wrong, rule):
    """Rows and columns refuse the same values in the same words."""
    values = {"wind": 1.0, "visib": 2.0, "origin": "JFK", "month": 3} | wrong
    columns = {k: [v] for k, v in values.items()}
    for call in (lambda: spec.encode_row(values), lambda: spec.encode_columns(columns)):
        with pytest.raises(InputError) as error:
            call()
        assert rule in str(error.value)
        assert f"feature {next(iter(wrong))!r}" in str(error.value)
        assert all(secret not in str(error.value) for secret in ("secret", "31337", "2013", "JFK"))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("wind", pa.array(["1.0"])),
        ("wind", pa.array([0], type=pa.timestamp("us"))),
        ("wind", np.array(["2013-01-01"], dtype="datetime64[us]")),
        ("wind", np.array([-np.inf])),
        ("origin", np.array([3])),
        ("month", np.array(["JFK"])),
    ],
)
def test_a_typed_column_of_the_wrong_type_is_refused(spec, name, column):
    """Typed columns fail as their values would."""
    columns = {"wind": [1.0], "visib": [2.0], "origin": ["JFK"], "month": [3]} | {name: column}
    with pytest.raises(InputError, match=f"feature '{name}'"):
        spec.encode_columns(columns)


def test_an_absent_feature_is_not_taken_for_a_null(spec):
    """Leaving a feature out is an error that shows the nearest name given."""
    with pytest.raises(InputError, match=r"feature 'visib'.*null where it has no value.*'visibility'"):
        spec.encode_row({"wind": 1.0, "visibility": 2.0, "origin": "JFK", "month": 3})
    with pytest.raises(InputError, match="feature 'visib'"):
        spec.encode_columns({"wind": [1.0]})


def test_columns_of_two_lengths_are_refused(spec):
    """No broadcasting of a short column."""
    with pytest.raises(InputError, match="columns must be of one length"):
        spec.encode_columns({"wind": [1.0, 2.0], "visib": [1.0], "origin": ["JFK"], "month": [1]})


def test_numbers_that_floats_cannot_tell_apart_are_no_categories():
    """Ids beyond 2**53 would share a code."""
    with pytest.raises(InputError, match=r"below 2\*\*53"):
        InputSpec.learn({"id": [2**53, 2**53 + 1]}, {"id": "category"})


def test_an_empty_vocabulary_reads_everything_as_missing():
    """A category that was null in all training rows stays missing."""
    spec = InputSpec.learn({"x": pa.nulls(2), "y": [1.0, 2.0]}, {"x": "category"})
    assert same(spec.encode_columns({"x": ["a"], "y": [0.0]}), np.array([[math.nan, 0.0]]))
    assert same(spec.encode_row({"x": "a", "y": 0.0}), np.array([math.nan, 0.0]))


def test_a_spec_refuses_repeats_and_unsorted_vocabularies():
    """A vocabulary that codes could not be read back from is refused when it is made."""
    with pytest.raises(InputError, match="a feature must occur once"):
        InputSpec((Feature("x", "number"), Feature("x", "number")))
    with pytest.raises(InputError, match="a vocabulary must be sorted"):
        Feature("x", "category", ("b", "a"))
    with pytest.raises(InputError, match="all text or all numbers"):
        Feature("x", "category", ("a", 1))


def test_decimals_round_as_in_python():
    """Arrow and Python may differ in the last bit of a decimal; both paths take Python's."""
    value = Decimal("0.1000000000000000055511151231257827")
    spec = InputSpec.learn({"x": pa.array([value])})
    assert spec.encode_columns({"x": pa.array([value])})[0, 0] == float(value) == spec.encode_row({"x": value})[0]
