"""``init``: the project it writes is whole, works as it is, and its data are what the script makes of the year."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.demo import template_data

from retrodict.core.errors import MissingExtraError

Run = Callable[..., Any]
TEMPLATE = template_data.FOLDER.parent


def test_init_writes_a_project_that_loads(run: Run, tmp_path: Path) -> None:
    """The definitions load, the project has the folder's name, and the plan asks for data."""
    assert run("init", tmp_path / "delays").code == 0
    plan = run("plan", "--project", tmp_path / "delays", "--json").json
    assert plan["project"] == "delays"
    assert [table["name"] for table in plan["tables"]] == ["flights", "planes", "weather"]


def test_init_in_a_folder_with_another_name(run: Run, tmp_path: Path) -> None:
    """A folder whose name is no project name gives the template's own."""
    assert run("init", tmp_path / "My Project").code == 0
    assert run("plan", "--project", tmp_path / "My Project", "--json").json["project"] == "flights"


def test_init_overwrites_nothing_by_itself(run: Run, tmp_path: Path) -> None:
    """A file that is there stays as it is, and nothing else is written; --force says otherwise."""
    (tmp_path / "definitions.py").write_text("mine = 1\n")
    refused = run("init", tmp_path, "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (1, "RefusedError")
    assert [path.name for path in tmp_path.iterdir()] == ["definitions.py"]
    assert (tmp_path / "definitions.py").read_text() == "mine = 1\n"
    assert run("init", tmp_path, "--force").code == 0
    assert "late_arrival" in (tmp_path / "definitions.py").read_text()


def test_an_empty_name_is_not_this_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of a variable that is not set: nothing is written here, and no project of here is meant."""
    monkeypatch.chdir(tmp_path)
    for words in (["init", ""], ["plan", "--project", ""], ["demo", "flights", "--project", ""]):
        refused = run(*words)
        assert refused.code == 2
        assert "a folder must have a name" in refused.err
    assert not list(tmp_path.iterdir())


def test_init_writes_every_file_of_the_template(run: Run, tmp_path: Path) -> None:
    """What is kept is what is written, but for the package's own marker."""
    run("init", tmp_path / "flights")
    kept = {
        path.relative_to(TEMPLATE).as_posix()
        for path in TEMPLATE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    written = {
        path.relative_to(tmp_path / "flights").as_posix()
        for path in (tmp_path / "flights").rglob("*")
        if path.is_file()
    }
    assert written == kept - {"__init__.py"}
    assert {"retrodict.toml", "definitions.py", "README.md", ".gitignore", "data/flights.csv.gz"} <= written


def test_the_data_are_small() -> None:
    """A new project weighs less than a megabyte and a half."""
    assert sum(path.stat().st_size for path in template_data.FOLDER.iterdir()) < 1_500_000


def test_the_data_are_what_the_script_makes() -> None:
    """Every file equals the output of ``template_data``, unzipped: compression may differ between zlibs."""
    try:
        made = template_data.make_files()
    except MissingExtraError:
        pytest.skip("the extra demo is not installed")
    kept = {path.name: path.read_bytes() for path in template_data.FOLDER.iterdir()}
    assert kept.keys() == made.keys()
    for name, data in made.items():
        unzip = gzip.decompress if name.endswith(".gz") else bytes
        assert unzip(kept[name]) == unzip(data), name
