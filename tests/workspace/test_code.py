"""The code of a project as one object, and back."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from retrodict.core.errors import DefinitionError, IntegrityError
from retrodict.core.identity import canonical_json
from retrodict.data.definitions import Table
from retrodict.workspace import Workspace, capture_code, definitions_of
from retrodict.workspace.code import materialise_code

TEXT = "from retrodict import Table\nfrom keys import KEY\nsales = Table('sales', key=KEY)\n"


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    project = make_project(TEXT)
    (project.root / "keys.py").write_bytes(b"KEY = 'id'\r\n")
    return project


def test_python_files_are_kept_and_others_are_not(project: Workspace) -> None:
    """Byte for byte; no caches, no state, no environments."""
    for folder in (".venv", "venv", "state", "__pycache__", ".git", "parts"):
        (project.root / folder).mkdir()
        (project.root / folder / "a.py").write_text("1\n")
    (project.root / "data.csv").write_text("id\n")
    body = json.loads(project.objects.get(capture_code(project)))
    assert body == {
        "definitions": "definitions.py",
        "files": {"definitions.py": TEXT, "keys.py": "KEY = 'id'\r\n", "parts/a.py": "1\n"},
    }


def test_the_same_code_is_the_same_object_and_a_blank_is_another(project: Workspace) -> None:
    """Uncommitted lines count."""
    first = capture_code(project)
    assert capture_code(project) == first
    (project.root / "keys.py").write_bytes(b"KEY = 'id' \r\n")
    assert capture_code(project) != first


def test_old_definitions_come_back_with_their_neighbours(project: Workspace) -> None:
    """Whatever the files say by now."""
    old = capture_code(project)
    (project.root / "keys.py").write_text("KEY = 'other'\n")
    assert project.definitions.get(Table, "sales").key == ("other",)
    assert definitions_of(project, old).get(Table, "sales").key == ("id",)


def test_a_copy_that_was_edited_is_written_anew(project: Workspace) -> None:
    """What runs is what the digest names."""
    digest = capture_code(project)
    path = materialise_code(project, digest)
    (path.parent / "keys.py").write_text("KEY = 'forged'\n")
    assert definitions_of(project, digest).get(Table, "sales").key == ("id",)
    (path.parent / "json.py").write_text("import os\n")
    assert definitions_of(project, digest).get(Table, "sales").key == ("id",)
    assert not (path.parent / "json.py").exists()
    package = project.root / "evil"
    package.mkdir()
    (package / "__init__.py").write_text("KEY = 'forged'\n")
    (path.parent / "keys").symlink_to(package)  # a package goes before the module of its name
    assert definitions_of(project, digest).get(Table, "sales").key == ("id",)
    assert not (path.parent / "keys").exists()
    (package / "keys.py").write_text((path.parent / "keys.py").read_text())
    (path.parent / "keys.py").unlink()
    (path.parent / "keys.py").symlink_to(package / "keys.py")
    assert definitions_of(project, digest).get(Table, "sales").key == ("id",)
    assert not (path.parent / "keys.py").is_symlink()
    assert sorted(path.parent.parent.iterdir()) == [path.parent]


def test_many_write_the_copy_at_once(project: Workspace) -> None:
    """One of them does, all can use it."""
    digest, found = capture_code(project), []
    threads = [
        threading.Thread(target=lambda: found.append(materialise_code(project, digest)), daemon=True) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert {path.read_text() for path in found} == {TEXT}
    assert len(list(found[0].parent.parent.iterdir())) == 1


def test_a_writer_of_the_copy_waits_for_another(project: Workspace) -> None:
    """A second writer would rename away what the first has just put there."""
    digest, paths = capture_code(project), []
    (project.root / "state" / "code").mkdir(parents=True)
    thread = threading.Thread(target=lambda: paths.append(materialise_code(project, digest)), daemon=True)
    with (project.root / "state" / "code.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.3)
        assert paths == []
    thread.join()
    assert paths[0].read_text() == TEXT


def test_an_object_with_paths_outside_its_folder_is_refused(project: Workspace, tmp_path: Path) -> None:
    """An object store that others write to is not trusted with our disk."""
    digest = project.objects.put(canonical_json({"definitions": "a.py", "files": {"../../../../evil.py": "x"}}))
    with pytest.raises(IntegrityError, match="paths inside its folder"):
        materialise_code(project, digest)
    assert not list(tmp_path.rglob("evil.py"))


def test_code_that_cannot_be_kept_says_why(project: Workspace) -> None:
    """Not UTF-8, or definitions in a folder that is left out."""
    (project.root / "odd.py").write_bytes(b"# \xff\n")
    with pytest.raises(DefinitionError, match=r"odd\.py: .*UTF-8"):
        capture_code(project)
    (project.root / "odd.py").unlink()
    toml = project.root / "retrodict.toml"
    toml.write_text(toml.read_text() + 'definitions = "build/definitions.py"\n')
    (project.root / "build").mkdir()
    (project.root / "build" / "definitions.py").write_text("")
    with pytest.raises(DefinitionError, match="among the Python files of the project"):
        capture_code(Workspace(project.root))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("dist/parts.py", "from dist.parts import KEY"),
        ("linked/parts.py", "from linked.parts import KEY"),
        (
            "tools.zip/parts.py",
            "import sys, os\nsys.path.append(os.path.dirname(__file__) + '/tools.zip')\nimport parts",
        ),
        (None, "import sys, os\nsys.path.append(os.path.dirname(__file__) + '/.venv/site-packages')\nimport parts"),
    ],
)
def test_imports_that_are_not_kept_are_refused(
    make_project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str | None, line: str
) -> None:
    """They would be missing when the stored code is loaded; an installed package is not of the project."""
    root = make_project(line + "\n").root
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    for folder in ("dist", "linked", ".venv/site-packages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "parts.py").write_text("KEY = 'id'\n")
    with zipfile.ZipFile(root / "tools.zip", "w") as archive:
        archive.writestr("parts.py", "KEY = 'id'\n")
    monkeypatch.setitem(sys.modules, "parts", None)
    del sys.modules["parts"]
    if file is None:
        capture_code(Workspace(root))
        return
    with pytest.raises(DefinitionError, match=rf"^definitions\.py: .*import must be among .* got '{file}'"):
        capture_code(Workspace(root))
