"""What a read says that failed over a record: not where in our code it fell, but which record was altered.

Stored rows are read as they lie there, and somebody may have written anything into them. Checking each field at each
read was rejected: it is never complete. Only when a read fails in a way that nobody foresaw, everything stored is held
against the ledger; where that names no damage the failure is ours, and is raised as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from retrodict.core.errors import IntegrityError, RetrodictError
from retrodict.workspace import Workspace

__all__ = ["names_damage"]

P = ParamSpec("P")
T = TypeVar("T")


def names_damage(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Let a reading method of an object with a workspace raise IntegrityError where what it reads was altered."""

    @wraps(method)
    def read(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except RetrodictError:
            raise
        except Exception as error:
            inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            if inside and (damage := _damage(_workspace_of(self))) is not None:
                raise damage from error
            raise

    return read


def _workspace_of(owner: Any) -> Workspace:
    workspace: Workspace = getattr(owner, "_workspace", None) or getattr(owner, "_project", owner).workspace
    return workspace


def _damage(workspace: Workspace) -> IntegrityError | None:
    """Error that names the first finding of an audit; None if there is none."""
    from retrodict.project.ledger import audit

    findings = [one for one in audit(workspace).findings if one.where != "signing key"]  # which no read needs
    if not findings:
        return None
    finding, more = findings[0], len(findings) - 1
    return IntegrityError(
        "what is read must be as it was written",
        where=finding.where,
        got=f"{finding.kind}: {finding.detail}" + (f", and {more} more" if more else ""),
        remedy="See 'retrodict audit verify', and restore the records from a backup",
    )
