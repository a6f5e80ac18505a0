"""What a run was computed with: recorded whole, and when two of them promise the same bits."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from packaging.requirements import Requirement

import retrodict.core
from retrodict.learning.environment import (
    containerfile,
    describe_environment,
    environment_differences,
    machine_kind,
    requirements,
)
from retrodict.learning.runs.comparison import commit_text
from retrodict.workspace import commit_of


def test_the_environment_names_the_versions_in_use() -> None:
    """As the interpreter and the imported libraries say themselves."""
    environment = describe_environment()
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["packages"]["lightgbm"] == lightgbm.__version__


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"cores": 999, "threads": {"OMP_NUM_THREADS": "3"}}, True),
        ({"packages": {"pytest": "0"}}, True),
        ({"imported": {"numpy": {"version": "0"}}}, False),
        ({"imported": {"lightgbm": {"version": "0"}}}, False),
        ({"python": "2.7"}, False),
        ({"cpu": "abacus"}, False),
        ({"libc": "musl"}, False),
    ],
)
def test_machines_are_of_one_kind_where_bits_are_promised(change: dict[str, Any], same: bool) -> None:
    """CPU, C library, Python and number libraries decide; cores, threads and other packages do not."""
    here = describe_environment()
    other = {**here, **change, **{part: {**here[part], **change.get(part, {})} for part in ("packages", "imported")}}
    assert (machine_kind(here) == machine_kind(other)) is same


def test_an_edited_installation_is_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in one file of the package moves its hash, a move of the whole folder does not."""
    hashes = []
    for folder, line in (("a", "x = 1"), ("b", "x = 1"), ("b", "x = 2")):
        (tmp_path / folder / "core").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "core" / "__init__.py").write_text("")
        (tmp_path / folder / "metrics.py").write_text(line)
        monkeypatch.setattr(retrodict.core, "__file__", str(tmp_path / folder / "core" / "__init__.py"))
        hashes.append(describe_environment()["retrodict"])
    assert hashes[0] == hashes[1] != hashes[2]


HIDDEN = """
import json, sys
from retrodict.learning.environment import describe_environment
print(json.dumps(describe_environment()["imported"]["lightgbm"]))
"""


def test_a_library_that_hides_the_installed_one_is_named(tmp_path: Path) -> None:
    """Another LightGBM first on the path: its file and version, and that it is of no package; in a real process."""
    (tmp_path / "lightgbm").mkdir()
    (tmp_path / "lightgbm" / "__init__.py").write_text('__version__ = "0.1"')
    output = subprocess.run(
        [sys.executable, "-c", HIDDEN], env={"PYTHONPATH": str(tmp_path)}, check=True, capture_output=True, timeout=60
    ).stdout
    hidden = json.loads(output)
    assert hidden == {"file": str(tmp_path / "lightgbm" / "__init__.py"), "version": "0.1", "package": None}
    here = describe_environment()
    assert here["imported"]["lightgbm"] == {
        "file": lightgbm.__file__, "version": lightgbm.__version__, "package": "lightgbm"
    }  # fmt: skip
    there = {**here, "imported": {**here["imported"], "lightgbm": hidden}}
    assert machine_kind(here) != machine_kind(there)
    (difference,) = environment_differences(here, there)
    assert difference == (
        f"package lightgbm was {lightgbm.__version__} ({lightgbm.__file__}), is 0.1 ({hidden['file']})"
    )
    same_version = {**hidden, "version": lightgbm.__version__}
    there["imported"] = {**here["imported"], "lightgbm": same_version}
    assert hidden["file"] in environment_differences(here, there)[0], "of one version, of another origin"


def test_the_first_package_on_the_path_is_the_one_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installations of one package: the earlier is imported, so its version counts."""
    (tmp_path / "numpy-0.0.1.dist-info").mkdir()
    (tmp_path / "numpy-0.0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    environment = describe_environment()
    assert environment["packages"]["numpy"] == "0.0.1"
    assert environment["imported"]["numpy"]["version"] == np.__version__
    assert environment["imported"]["numpy"]["package"] is None


def test_a_changed_module_outside_of_the_project_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and file; one of the project is left out, since the run keeps it as code."""
    (tmp_path / "house_rules.py").write_text("LIMIT = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "house_rules", raising=False)
    monkeypatch.setitem(
        sys.modules, "__mp_main__", importlib.import_module("house_rules")
    )  # the script, by another name
    before = describe_environment()
    (tmp_path / "house_rules.py").write_text("LIMIT = 2")
    after = describe_environment()
    assert environment_differences(before, after) == [f"module house_rules has changed ({tmp_path / 'house_rules.py'})"]
    assert "house_rules" not in describe_environment(project=tmp_path)["modules"]
    monkeypatch.delitem(sys.modules, "house_rules")


def test_everything_else_that_differs_is_named() -> None:
    """Packages with both versions, what is absent, interpreter and machine; records of before name what they can."""
    here = describe_environment()
    other = {**here, "cpu": "abacus", "packages": {**here["packages"], "pytest": "0", "more": "1"}, "retrodict": "0"}
    assert environment_differences(here, other) == [
        "the code of retrodict itself has changed",
        f"cpu was {here['cpu']}, is abacus",
        "package more was absent, is 1",
        f"package pytest was {here['packages']['pytest']}, is 0",
    ]
    old = {name: part for name, part in here.items() if name not in ("imported", "modules")}
    assert environment_differences(old, here) == []
    assert machine_kind(old) == machine_kind(here)


def test_a_library_of_an_extra_is_described_where_the_work_uses_it() -> None:
    """As it was imported, not only as it is installed."""
    assert "xgboost-cpu" in describe_environment(extras={"xgboost"})["imported"]
    described = describe_environment(extras={"", "unheard_of"})["imported"]
    assert set(described) <= {"numpy", "pyarrow", "scipy", "scikit-learn", "lightgbm", "duckdb"}
    then = describe_environment(extras={"xgboost"})
    now = {**then, "imported": {**then["imported"], "xgboost-cpu": {**then["imported"]["xgboost-cpu"], "version": "0"}}}
    assert any("package xgboost-cpu was" in difference for difference in environment_differences(then, now))


def test_an_environment_is_written_so_that_pip_installs_it_again(tmp_path: Path) -> None:
    """Every installed package but the installers, each at its version; the image has the same interpreter."""
    environment = describe_environment()
    lines = [Requirement(line) for line in requirements(environment).splitlines()]
    installed = {
        d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]
    }
    assert {line.name for line in lines} == {name for name in installed if name not in ("pip", "setuptools", "wheel")}
    assert all(line.specifier.contains(installed[line.name], prereleases=True) for line in lines)
    assert all(str(line.specifier).startswith("==") for line in lines)
    image = containerfile({**environment, "threads": {"OMP_NUM_THREADS": "2"}})
    assert f"FROM python:{'.'.join(map(str, sys.version_info[:3]))}-slim\n" in image
    assert "ENV OMP_NUM_THREADS=2\n" in image


def test_a_run_names_the_commit_and_whether_anything_was_edited(tmp_path: Path) -> None:
    """For people: what ran is the code object. A folder without git has none, and looking writes nothing."""
    project = tmp_path / "project"
    project.mkdir()
    assert commit_of(project) is None
    git = ["git", "-c", "user.name=ann", "-c", "user.email=ann@example.org", "-C", str(project)]
    (project / "definitions.py").write_text("")
    for arguments in (["init", "-q", "-b", "trunk"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in (project / ".git").rglob("*"))
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert commit_of(project) == {"commit": commit, "branch": "trunk", "dirty": False}
    (project / "new.py").write_text("")
    assert commit_of(project) == {"commit": commit, "branch": "trunk", "dirty": True}
    assert sorted((path, path.stat().st_mtime_ns) for path in (project / ".git").rglob("*")) == before
    subprocess.run([*git, "checkout", "-q", "--detach"], check=True)
    assert commit_text(commit_of(project)) == f"{commit[:12]}, edited"


LOOKED_UP = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
before = set(sys.modules)
from retrodict.learning.environment import describe_environment
described = describe_environment()
heavy = {"sklearn", "lightgbm", "scipy", "pandas"} & (set(sys.modules) - before)
print(json.dumps([sorted(heavy), described]))
"""


def described_by(*loaded: str, **variables: str) -> tuple[list[str], dict[str, Any]]:
    """Libraries that describing loaded, and the description, in a process that had loaded others before."""
    command = [sys.executable, "-c", LOOKED_UP, *loaded]
    output = subprocess.run(command, env=variables, check=True, capture_output=True, timeout=60).stdout
    heavy, description = json.loads(output)
    return heavy, description


def test_a_description_is_the_same_whatever_is_loaded() -> None:
    """It imports nothing to know it, and says what the imported libraries say of themselves."""
    heavy, fresh = described_by()
    assert heavy == []
    assert fresh == described_by("lightgbm", "sklearn.ensemble", "scipy.stats", "duckdb", "pyarrow")[1]
    assert fresh["imported"]["scikit-learn"]["version"] == importlib.import_module("sklearn").__version__
    assert described_by(OMP_NUM_THREADS="3")[1] == {**fresh, "threads": {"OMP_NUM_THREADS": "3"}}


def test_what_hides_a_library_of_a_library_is_described_before_it_is_loaded(tmp_path: Path) -> None:
    """Each of its files: that of a submodule decides numbers too. What hides nothing is no part of it until loaded."""
    (tmp_path / "joblib" / "parts").mkdir(parents=True)
    for name in ("joblib/__init__.py", "joblib/parts/one.py", "own_script.py", "threadpoolctl.py"):
        (tmp_path / name).write_text("LIMIT = 1")
    path = {"PYTHONPATH": str(tmp_path)}
    modules = described_by(**path)[1]["modules"]
    assert set(modules) == {"joblib", "joblib.parts.one", "threadpoolctl"}
    assert set(described_by("own_script", **path)[1]["modules"]) == {*modules, "own_script"}
    assert described_by("joblib", "joblib.parts.one", **path)[1]["modules"] == modules
    (tmp_path / "joblib" / "parts" / "one.py").write_text("LIMIT = 2")
    changed = described_by(**path)[1]["modules"]
    assert {name for name in changed if changed[name] != modules[name]} == {"joblib.parts.one"}
