"""The template of ``init``: a small project on real flights, copied into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.definition import check_name
from retrodict.core.display import Block, Shown
from retrodict.core.errors import DefinitionError, RefusedError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Created", "write_template"]

_FILES = ("retrodict.toml", "definitions.py", "README.md", ".gitignore")


@dataclass(frozen=True, slots=True, repr=False)
class Created(Shown):
    """A project that was made: its folder and its files."""

    folder: Path
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {"project": str(self.folder), "files": self.files}

    def blocks(self) -> Sequence[Block | None]:
        """Where it is, and the next step."""
        return [
            f"Made a project in {self.folder}: {', '.join(self.files[:3])} …",
            "",
            f"Next: cd {self.folder} && retrodict plan    (README.md has the whole way)",
        ]


def write_template(folder: Path, *, force: bool = False) -> Created:
    """Make a small project on real flights that works as it is.

    Parameters
    ----------
    folder : path
        Where it is made.
    force : bool
        Write into a folder that has files of these names: they are overwritten.

    Raises
    ------
    RefusedError
        If the folder holds files of these names and ``force`` is False.
    """
    from importlib import resources

    template = resources.files("retrodict.project.template")
    sources = {name: template / name for name in _FILES}
    sources |= {f"data/{item.name}": item for item in sorted((template / "data").iterdir(), key=lambda item: item.name)}
    existing = [name for name in sources if (folder / name).exists()]
    if existing and not force:
        raise RefusedError(
            "no file must be overwritten",
            where=str(folder),
            got=existing,
            remedy="Name an empty folder, or say --force",
        )
    for name, source in sources.items():
        _write(folder / name, source, folder.resolve().name)
    return Created(folder, sorted(sources))


def _write(target: Path, source: Traversable, name: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = source.read_bytes()
    if target.name == "retrodict.toml" and _is_name(name):
        content = content.replace(b'name = "flights"', f'name = "{name}"'.encode())
    target.write_bytes(content)


def _is_name(name: str) -> bool:
    try:
        check_name(name, what="project")
    except DefinitionError:
        return False
    return True
