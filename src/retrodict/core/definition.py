"""What every noun of a definitions module has in common: a name, plain immutable content, a hash as its version."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from retrodict.core.errors import DefinitionError
from retrodict.core.identity import content_hash
from retrodict.core.names import NameUse

__all__ = ["Definition", "check_name"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_name(name: object, *, what: str) -> str:
    """Return the name if it can stand in paths, URLs, SQL and metrics alike; raise DefinitionError if not."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name:
        columns = ". Columns keep their spelling: Entity('shop', keys=['Shop'])" if what == "entity" else ""
        raise DefinitionError(
            "a name must be 1 to 63 lower-case letters, digits and single underscores, a letter first",
            where=what,
            got=name,
            remedy=f"Rename it like 'late_arrival'{columns}",
        )
    return name


@dataclass(frozen=True)
class Definition:
    """Immutable data that says what something is and runs nothing.

    Subclasses are frozen dataclasses with plain fields; ``kind`` is the word used in references
    (``kind:name@version``). Fields with metadata ``{"identity": False}`` (owner, description) do not enter the hash.
    """

    kind: ClassVar[str] = "definition"

    name: str

    def __post_init__(self) -> None:
        """Check the name; subclasses call this first."""
        check_name(self.name, what=self.kind)

    def uses(self) -> Iterable[NameUse]:
        """Names that it uses and something else must have; those of its parts are their own."""
        return ()

    def check(self) -> None:
        """Refuse what no data could ever make right, though each field is well formed.

        Asked when a project's definitions are loaded, and not when they are made: code that was deployed before a
        rule was known decides as it did.
        """

    def agreement(self) -> tuple[str, object] | None:
        """What it shares with others, and what all that share it must have alike."""
        return None

    @cached_property
    def version(self) -> str:
        """Content hash: 64 hex digits, equal exactly when the content is (no owner, description or tag)."""
        return content_hash(self)
