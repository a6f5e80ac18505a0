"""What the namespaces of the project have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrodict.project.project import Project
    from retrodict.workspace import Workspace

__all__ = ["Namespace"]


class Namespace:
    """Methods of one noun of the project, such as ``project.models``."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def _workspace(self) -> Workspace:
        return self._project.workspace

    def __repr__(self) -> str:
        methods = ", ".join(name for name in dir(self))
        return f"{type(self).__name__} of {self._workspace.name}: {methods}"

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if not name.startswith("_")]
