"""A project: what it opens, who acts, what it says when its files are wrong."""

from __future__ import annotations

import getpass
import importlib
import os
import py_compile
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrodict.core.errors import (
    BusyError,
    ConfigurationError,
    DefinitionError,
    InputError,
    InternalError,
    NotFoundError,
    RetrodictError,
)
from retrodict.data.definitions import Table
from retrodict.workspace import Workspace, load_definitions


def test_opening_makes_nothing(make_project: Callable[..., Workspace]) -> None:
    """Not even a folder; stores open on first use."""
    project = make_project()
    assert project.name == "shop"
    assert sorted(path.name for path in project.root.iterdir()) == ["definitions.py", "retrodict.toml"]


def test_a_project_opens_from_any_folder_in_it(
    make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, by path, from where one stands."""
    root = make_project().root
    (root / "data" / "raw").mkdir(parents=True)
    for folder in (root, str(root), root / "data", root / "data" / "raw"):
        assert Workspace(folder).root == root
    monkeypatch.chdir(root / "data")
    for here in (".", Path(), "raw"):
        assert Workspace(here).root == root


def test_a_slip_in_the_folders_name_does_not_open_the_project_around_it(
    make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that there is no such folder."""
    monkeypatch.chdir(make_project().root)
    with pytest.raises(ConfigurationError, match="the folder of a project must exist"):
        Workspace("shpo")


def test_who_acts(make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller says, or the environment, or the operating system."""
    root = make_project().root
    monkeypatch.delenv("RETRODICT_ACTOR", raising=False)
    assert Workspace(root).actor == getpass.getuser()
    monkeypatch.setenv("RETRODICT_ACTOR", " eve ")
    assert Workspace(root).actor == "eve"
    assert Workspace(root, actor="bob").actor == "bob"
    monkeypatch.setenv("RETRODICT_ACTOR", "  ")
    assert Workspace(root).actor == getpass.getuser()


def test_a_user_without_a_name_is_told_what_to_set(
    make_project: Callable[..., Workspace], python: Callable[..., Any]
) -> None:
    """As in a container that runs under a bare number."""
    script = """
import os
import py_compile, sys
for name in ("RETRODICT_ACTOR", "LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
os.getuid = lambda: 3_999_999_999
from retrodict.workspace import Workspace
Workspace(sys.argv[1])
"""
    code, _, said = python(script, make_project().root).end()
    assert code == 1
    assert "RETRODICT_ACTOR" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("key", "url", "said"),
    [
        ("tables", "s3://me:hush@bucket", "no user and no password"),
        ("records", "postgresql://me:hush@db", "must name a server, a database"),
        ("keys", "redsi://hush@h", "must have a scheme that is known"),
        ("objects", "file://host/hush", "must name no host"),
        ("streams", "file:", "a path and nothing else"),
    ],
)
def test_a_bad_store_url_is_named_by_line_and_not_repeated(
    key: str, url: str, said: str, make_project: Callable[..., Workspace]
) -> None:
    """It can hold a password."""
    project = make_project(settings=f'[stores]\n# here\n{key} = "{url}"\n')
    with pytest.raises(ConfigurationError, match=rf"retrodict\.toml:5, key 'stores\.{key}': .*{said}") as caught:
        getattr(project, key)
    assert "hush" not in str(caught.value)


def test_a_closed_project_opens_again(make_project: Callable[..., Workspace]) -> None:
    """Closing lets go of connections, no more."""
    project = make_project()
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    before = project.records
    project.close()
    project.close()
    with pytest.raises(InternalError, match="after it was closed"):
        before.change_counter()
    assert len(project.ledger.entries()) == 2


def test_threads_share_a_project(make_project: Callable[..., Workspace]) -> None:
    """Every store once, every entry in one chain."""
    project = make_project()

    def work(name: int) -> None:
        for i in range(5):
            with project.ledger.transaction() as tx:
                tx.append("note.write", f"note:{name}-{i}")

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.sequence for entry in project.ledger.entries()] == list(range(1, 22))


def test_a_lock_is_held_alone_and_ends_with_its_process(
    make_project: Callable[..., Workspace], python: Callable[..., Any]
) -> None:
    """Also by kill -9; the other is told who holds it."""
    project = make_project()
    script = """
import sys
from retrodict.workspace import Workspace
with Workspace(sys.argv[1]).lock("work/a"):
    print("held", flush=True)
    sys.stdin.readline()
"""
    child = python(script, project.root)
    assert child.line() == "held"
    with pytest.raises(BusyError, match=rf"work/a.*process {child.process.pid}"):
        project.lock("work/a", timeout_s=0.05)
    project.lock("work/b", timeout_s=0.05).close()
    child.kill()
    project.lock("work/a", timeout_s=5).close()


# definitions --------------------------------------------------------------------------------------------------

TABLE = 'from retrodict import Table\nsales = Table("sales", key="id")\n'


def test_definitions_are_found_by_class_and_name(make_project: Callable[..., Workspace]) -> None:
    """Also in lists; the same one under two names is one."""
    project = make_project(TABLE + 'same = sales\nmore = [Table("a", key="id"), Table("b", key="id")]\n')
    assert [table.name for table in project.definitions.of(Table)] == ["a", "b", "sales"]
    assert len(project.definitions) == 3
    with pytest.raises(NotFoundError, match="Did you mean the table 'sales'"):
        project.definitions.get(Table, "slaes")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (\n", r"^definitions\.py:3: the module must run without an error \(SyntaxError: '\(' was never closed\)"),
        ("\n1 / 0\n", r"^definitions\.py:4: .*ZeroDivisionError: division by zero"),
        ("def f():\n    return [][1]\n\nf()\n", r"^definitions\.py:4: .*IndexError"),
        ("import nosuchthing\n", r"^definitions\.py:3: .*ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", r"^definitions\.py:4: .*SystemExit"),
        (
            'Table("Sales", key="id")\n',
            r"^definitions\.py:3: table: a name must be 1 to 63 lower-case letters.*got 'Sales'",
        ),
        (
            '\nother = Table("sales", key="no")\n',
            r"^definitions\.py:2 and definitions\.py:4, table:sales: one kind and name",
        ),
        ('more = [\n  Table("sales", key="no")]\n', r"^definitions\.py:2 and definitions\.py:3, table:sales"),
    ],
)
def test_what_is_wrong_in_the_definitions_is_said_with_its_line(
    text: str, said: str, make_project: Callable[..., Workspace]
) -> None:
    """File and line first, then what."""
    with pytest.raises(DefinitionError, match=said):
        make_project(TABLE + text).definitions  # noqa: B018  # loading is what fails


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the definitions module must exist; got 'definitions.py'"),
        (b"x = '\xff'\n", "UTF-8"),
        ("folder", "must be readable"),
        ("fifo", "must be readable"),
    ],
)
def test_a_definitions_file_that_cannot_be_read(
    content: Any, said: str, make_project: Callable[..., Workspace]
) -> None:
    """Missing, not UTF-8, a folder, a pipe that nobody writes to."""
    project = make_project()
    path = project.root / "definitions.py"
    path.unlink()
    if content in ("folder", "fifo"):
        (Path.mkdir if content == "folder" else os.mkfifo)(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(RetrodictError, match=said):
        project.definitions  # noqa: B018


def test_neighbours_are_imported_and_forgotten(
    make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module beside it, a package, one of them importing the other; another project's of the same name is another."""
    found = {}
    before = set(sys.modules)
    for name in ("one", "two"):
        project = make_project("from tables import sales\nfrom parts.keys import KEY\n", folder=name)
        (project.root / "parts").mkdir()
        (project.root / "parts" / "__init__.py").write_text("")
        (project.root / "parts" / "keys.py").write_text(f"KEY = 'id_{name}'\n")
        (project.root / "tables.py").write_text(
            "from retrodict import Table\nfrom parts.keys import KEY\nsales = Table('sales', key=KEY)\n"
        )
        found[name] = project.definitions.get(Table, "sales").key
        assert not list(project.root.rglob("*.pyc"))
        assert str(project.root) not in sys.path
    assert found == {"one": ("id_one",), "two": ("id_two",)}
    assert {"tables", "parts"}.isdisjoint(set(sys.modules) - before)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("parts/keys.py", "from parts.keys import KEY"),
        ("parts/deep/keys.py", "import parts.deep.keys\nKEY = parts.deep.keys.KEY"),
        ("dist/keys.py", "from dist.keys import KEY"),
        ("src/keys.py", "import sys, os\nsys.path.append(os.path.dirname(__file__) + '/src')\nfrom keys import KEY"),
        ("vendor/keys.py", "from vendor import keys\nKEY = keys.KEY"),
        (
            "tools.zip",
            "import sys, os\nsys.path.append(os.path.dirname(__file__) + '/tools.zip')\nfrom keys import KEY",
        ),
    ],
)
def test_modules_in_any_folder_of_the_project_are_its_own(
    make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, line: str
) -> None:
    """Without ``__init__.py``, by a path, beside an installed namespace, in a zip: another project is another."""
    (tmp_path / "site-packages" / "vendor").mkdir(parents=True)
    (tmp_path / "site-packages" / "vendor" / "own.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr(sys, "path", list(sys.path))
    vendor = importlib.import_module("vendor.own")
    before = set(sys.modules)
    for name, key in (("one", "a"), ("two", "b"), ("one", "c")):
        project = make_project(f"from retrodict import Table\n{line}\nsales = Table('sales', key=KEY)\n", folder=name)
        path = project.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("keys.py", f"KEY = {key!r}\n")
        else:
            path.write_text(f"KEY = {key!r}\n")
        assert project.definitions.get(Table, "sales").key == (key,)
        assert not [
            key for key in set(sys.modules) - before if key.partition(".")[0] in ("parts", "dist", "keys", "vendor")
        ]
    assert sys.modules["vendor.own"] is vendor
    assert not hasattr(sys.modules["vendor"], "keys")


def test_what_a_notebook_imported_is_hidden_and_given_back(
    make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A module of another place that is called like a neighbour; a package is not replaced by a mere folder."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "keys.py").write_text("KEY = 'theirs'\n")
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    theirs, acme = importlib.import_module("lib.keys"), importlib.import_module("acme")
    project = make_project("from retrodict import Table\nimport acme\nfrom lib.keys import KEY\n"
                           "sales = Table('sales', key=[KEY, str(id(acme))])\n")  # fmt: skip
    (project.root / "acme").mkdir()
    (project.root / "lib").mkdir()
    (project.root / "lib" / "keys.py").write_text("KEY = 'ours'\n")
    try:
        assert project.definitions.get(Table, "sales").key == ("ours", str(id(acme)))
        assert sys.modules["lib.keys"] is theirs is sys.modules["lib"].keys
        assert sys.modules["acme"] is acme
    finally:
        for key in ("lib", "lib.keys", "acme"):
            sys.modules.pop(key, None)


def test_what_runs_is_the_source(make_project: Callable[..., Workspace]) -> None:
    """Stale bytecode beside it, in a package too, is not looked at, and bytecode without a source is no module."""
    project = make_project("from retrodict import Table\nfrom keys import KEY\nfrom parts.more import MORE\n"
                           "sales = Table('sales', key=[KEY, MORE])\n")  # fmt: skip
    (project.root / "parts").mkdir()
    for path, name in ((project.root / "keys.py", "KEY"), (project.root / "parts" / "more.py", "MORE")):
        path.write_text(f"{name} = 'evil'\n")
        py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        path.write_text(f"{name} = '{name.lower()}'\n")
    assert project.definitions.get(Table, "sales").key == ("key", "more")
    (project.root / "keys.py").rename(project.root / "gone.txt")
    next((project.root / "__pycache__").glob("keys.*")).rename(project.root / "keys.pyc")
    with Workspace(project.root) as again, pytest.raises(DefinitionError, match="No module named 'keys'"):
        again.definitions  # noqa: B018


def test_an_error_in_a_neighbour_names_the_neighbour(make_project: Callable[..., Workspace]) -> None:
    """Its file and its line."""
    project = make_project("import tables\n")
    (project.root / "tables.py").write_text("\n\nx = = 1\n")
    with pytest.raises(DefinitionError, match=r"^tables\.py:3: .*SyntaxError"):
        project.definitions  # noqa: B018


def test_a_neighbour_does_not_take_the_place_of_the_standard_library(make_project: Callable[..., Workspace]) -> None:
    """A file called json.py in the project's folder is not the json of everybody."""
    import json

    project = make_project("import json\n" + TABLE)
    (project.root / "json.py").write_text("raise RuntimeError\n")
    assert len(project.definitions) == 1
    assert sys.modules["json"] is json


def test_two_versions_live_side_by_side(tmp_path: Path) -> None:
    """Each keeps its own text, whatever the file says by now."""
    path = tmp_path / "definitions.py"
    path.write_text(TABLE)
    old = load_definitions(path)
    path.write_text(TABLE.replace('"id"', '"no"'))
    new = load_definitions(path)
    assert [d.get(Table, "sales").key for d in (old, new)] == [("id",), ("no",)]
    assert old.source == TABLE


def test_definitions_load_none_of_the_heavy_libraries(
    make_project: Callable[..., Workspace], python: Callable[..., Any]
) -> None:
    """Writing down what a project is costs neither Arrow nor a database."""
    script = """
import sys
from retrodict.workspace import Workspace
Workspace(sys.argv[1]).definitions
print(sorted({"numpy", "pyarrow", "duckdb", "deltalake", "lightgbm", "pandas"} & set(sys.modules)))
"""
    code, out, said = python(script, make_project(TABLE).root).end()
    assert (code, out.strip()) == (0, "[]"), said


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('x = Entity("e", kys=["a"])', "Did you mean the keyword 'keys'"),
        ('x = agg.mean("x", ovr="1d")', "Did you mean the keyword 'over'"),
        ('x = agg.maen("x", over="1d")', "Did you mean the attribute 'mean'"),
        ('x = Entitty("e")', "Did you mean the name 'Entity'"),
        ("from retrodict import Entyti", "Did you mean the name 'Entity'"),
    ],
)
def test_a_misspelt_name_has_near_ones(line: str, remedy: str, make_project: Callable[..., Workspace]) -> None:
    """Keywords, attributes, names and imports of a definitions module."""
    project = make_project(f"from retrodict import *\n{line}\n")
    with pytest.raises(DefinitionError) as caught:
        _ = project.definitions
    assert caught.value.remedy.startswith(remedy)
    assert caught.value.where == "definitions.py:2"


@pytest.mark.parametrize(
    ("name", "actor"),
    [
        ("  ana\n lind ", "ana lind"),
        ("\uff41\uff4e\uff41", "ana"),
        ("\u3042\u30a2\u4e9c", "\u3042\u30a2\u4e9c"),
        ("Zo\u00eb-2@bank.example",) * 2,
    ],
)
def test_who_acts_has_one_spelling(make_project: Callable[..., Workspace], name: str, actor: str) -> None:
    """Two ways to write one name are one person."""
    assert make_project(actor=name).actor == actor


@pytest.mark.parametrize(
    ("name", "rule"),
    [("an\u0430", "one script"), ("ana\x1b[2J", "printable"), ("ana\u200b", "printable"), ("a" * 101, "at most 100")],
)
def test_who_acts_cannot_look_like_another(make_project: Callable[..., Workspace], name: str, rule: str) -> None:
    """Four eyes are not two with a Cyrillic letter; and a name cannot forge what is shown."""
    with pytest.raises(InputError, match=rule):
        make_project(actor=name)
