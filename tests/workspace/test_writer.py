"""Definitions of a notebook are written as a module that means the same, or refused."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrodict import Check, Entity, FeatureView, Source, Table, agg, derived, latest
from retrodict.core.errors import DefinitionError, RefusedError
from retrodict.workspace import load_definitions
from retrodict.workspace.writer import MARK, write_definitions

ROOT = Path(__file__).parents[2]
MODULES = [
    "src/retrodict/project/template/definitions.py",
    "examples/own_project/definitions.py",
]
LIMIT = 3


def half(value):
    return value / 2


@derived
def scaled(amount):
    return {"root": math.sqrt(LIMIT) * half(amount)}


def half_of(x):
    return {"y": x / 2}


HELPER = object()


@derived
def odd(x):
    return {"y": x, "z": HELPER}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_written_again_means_the_same(module: str, tmp_path: Path) -> None:
    """Every definition of the examples has the same content hash after the way through source."""
    definitions = list(load_definitions(ROOT / module))
    write_definitions(tmp_path / "copy", definitions)
    copies = load_definitions(tmp_path / "copy" / "definitions.py")
    versions = {(copy.kind, copy.name): copy.version for copy in copies}
    assert versions | {(d.kind, d.name): d.version for d in definitions} == versions


def test_a_function_takes_its_helpers_along(tmp_path: Path) -> None:
    """Helpers, modules and constants that a derived function names stand in the module before it."""
    write_definitions(tmp_path, [scaled])
    copy = load_definitions(tmp_path / "definitions.py").get(type(scaled), "scaled")
    assert copy(4.0) == {"root": math.sqrt(3) * 2.0}


def test_a_file_of_a_person_is_not_overwritten(tmp_path: Path) -> None:
    """Only what a notebook wrote is written again."""
    (tmp_path / "definitions.py").write_text("# mine\n")
    with pytest.raises(RefusedError, match=r"definitions\.py must be one that a notebook wrote"):
        write_definitions(tmp_path, [Entity("customer")])
    assert (tmp_path / "definitions.py").read_text() == "# mine\n"


def test_writing_again_replaces_what_a_notebook_wrote(tmp_path: Path) -> None:
    """The next cell's definitions stand in place of the last ones; settings stay."""
    write_definitions(tmp_path, [Entity("customer")])
    settings = (tmp_path / "retrodict.toml").read_text() + "\n[features]\npartitions = 2\n"
    (tmp_path / "retrodict.toml").write_text(settings)
    orders = Table("orders", key="id", columns={"at": "time", "amount": "float"}, checks=[Check.not_null("amount")])
    view = FeatureView("sums", Entity("customer"), Source("placed", orders, event_time="at"),
                       [agg.sum("amount", over="1d"), latest("amount", max_age="2d")])  # fmt: skip
    write_definitions(tmp_path, [view])
    text = (tmp_path / "definitions.py").read_text()
    assert text.startswith(MARK)
    assert load_definitions(tmp_path / "definitions.py").get(FeatureView, "sums").version == view.version
    assert (tmp_path / "retrodict.toml").read_text() == settings


def test_a_function_without_source_is_refused(tmp_path: Path) -> None:
    """Nothing is written of a function that nobody could read again."""
    lost = derived(half_of)
    object.__setattr__(lost, "function", eval("lambda x: x"))
    with pytest.raises(DefinitionError, match="the source of a function must be at hand"):
        write_definitions(tmp_path / "new", [lost])
    assert not (tmp_path / "new").exists()


def test_a_value_that_is_no_plain_data_is_refused(tmp_path: Path) -> None:
    """A constant that cannot be written as source names the definition and its type."""
    with pytest.raises(DefinitionError, match=r"derived odd: a value of a definition must be plain data; got 'object'"):
        write_definitions(tmp_path / "new", [odd])
    assert not (tmp_path / "new").exists()


def test_a_closure_is_refused(tmp_path: Path) -> None:
    """Names of the function around it would be gone in the module."""

    def make(factor):
        @derived
        def times(x):
            return {"y": x * factor}

        return times

    with pytest.raises(DefinitionError, match=r"must not use names of a function around it; got 'factor'"):
        write_definitions(tmp_path, [make(7)])
    assert not (tmp_path / "definitions.py").exists()


def test_a_definition_that_reads_otherwise_is_refused(tmp_path: Path) -> None:
    """What was written is compared by content hash before it takes the place of the last one, and no draft stays."""
    write_definitions(tmp_path, [Entity("customer")])
    other = Entity("customer", keys=["id"])
    other.__dict__["version"] = "0" * 64
    with pytest.raises(DefinitionError, match="must mean the same as a module"):
        write_definitions(tmp_path, [other])
    assert "keys=('customer',)" in (tmp_path / "definitions.py").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["definitions.py", "retrodict.toml", "state"]


def test_writers_at_once_each_get_their_own(tmp_path: Path) -> None:
    """Threads that write one folder's definitions wait for each other, and each gets what it wrote."""

    def write(number: int) -> bool:
        written = write_definitions(tmp_path, [Entity("customer", keys=[f"k{number}"])])
        return written.get(Entity, "customer").keys == (f"k{number}",)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, range(12)))
