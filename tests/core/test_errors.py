"""Errors: one tree, one way of saying it."""

import inspect
import pickle

import pytest

from retrodict.core import errors
from retrodict.core.errors import BusyError, InputError, MissingExtraError, NotFoundError, RetrodictError, near

CONCRETE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RetrodictError) and kind not in (RetrodictError, MissingExtraError)
]


def test_a_message_says_where_rule_got_and_remedy() -> None:
    """In this order, the value as its repr."""
    error = InputError("a port is a number", where="config:3", got="x", remedy="Write 8400")
    assert str(error) == "config:3: a port is a number; got 'x'. Write 8400."


def test_got_none_is_shown_and_no_got_is_not() -> None:
    """None is a value like any other."""
    assert str(InputError("r", got=None)) == "r; got None."
    assert str(InputError("r")) == "r."


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_an_error_crosses_a_process_boundary_whole(kind: type[RetrodictError]) -> None:
    """Also those that inherit an odd constructor from Python's own (OSError, ImportError)."""
    back = pickle.loads(pickle.dumps(kind("rule", where="here", got=object(), remedy="Do it")))
    assert type(back) is kind
    assert (back.rule, back.where, back.remedy) == ("rule", "here", "Do it")
    assert str(back).startswith("here: rule; got <object object")


def test_a_missing_extra_crosses_too() -> None:
    """Its constructor takes other arguments than its parents'."""
    error = MissingExtraError("matplotlib", "plots", needed_for="plots")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "pip install 'retrodict[plots]'" in str(error)


@pytest.mark.parametrize(
    ("kind", "python"),
    [
        (InputError, ValueError),
        (NotFoundError, LookupError),
        (BusyError, BlockingIOError),
        (MissingExtraError, ImportError),
    ],
)
def test_errors_are_also_what_python_readers_expect(kind: type, python: type) -> None:
    """A caller who knows nothing of us catches what they would catch anyway."""
    assert issubclass(kind, python)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every public error is drawn, with its exit code and its Python parents."""
    for name in errors.__all__:
        thing = getattr(errors, name)
        if not inspect.isclass(thing) or thing is RetrodictError:
            continue
        line = next(line for line in (errors.__doc__ or "").splitlines() if f"── {name} " in line)
        assert line.endswith(f"exit {thing.exit_code}") or thing is MissingExtraError
        for parent in thing.__bases__:
            assert issubclass(parent, RetrodictError) or parent.__name__ in line


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("flihgts", ["flights", "planes"], "Did you mean the table 'flights'"),
        ("x", ["flights", "planes"], "Known: 'flights', 'planes'"),
        ("x", [], "There is no table yet"),
        (7, ["flights"], "Known: 'flights'"),
        ("zzz", [f"n{i:02d}" for i in range(20)], "Known: " + ", ".join(f"'n{i:02d}'" for i in range(12)) + ", …"),
    ],
)
def test_near_names(name: str, known: list[str], said: str) -> None:
    """The nearest, or a few of all, whatever was given for a name."""
    assert near(name, known, what="table") == said
