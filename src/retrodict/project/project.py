"""The one object a user holds; command line and notebook are skins over its methods."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from retrodict.core.clock import Clock
from retrodict.workspace import Workspace

__all__ = ["Project"]


class Project:
    """An opened project.

    Parameters
    ----------
    folder : path, default "."
        The project's folder, or any folder below it.
    clock : Clock, optional
        Where "now" comes from; the system's clock by default.
    actor : str, optional
        Who acts, as the ledger will say: by default the environment variable ``RETRODICT_ACTOR``, or the name of the
        operating-system user.

    Attributes
    ----------
    workspace : Workspace
        Settings, definitions and stores: what the rooms' own functions take.
    """

    def __init__(self, folder: str | Path = ".", *, clock: Clock | None = None, actor: str | None = None) -> None:
        self.workspace = Workspace(folder, clock=clock, actor=actor)

    def close(self) -> None:
        """Close the stores that were opened; the next use opens them again."""
        self.workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
