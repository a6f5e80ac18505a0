"""Who may use an open store, and for how long: the process that opened it, until it is closed."""

from __future__ import annotations

import os
from typing import Self

from retrodict.core.errors import InternalError


def check_usable(store: str, *, where: str, owner: int, closed: bool) -> None:
    """Raise if a store (named with its article) was opened by another process than this one, or was closed.

    ``owner`` is the id of the process that opened it: locks, sockets and maps of files do not survive a fork.
    """
    if os.getpid() != owner:
        raise InternalError(
            f"{store} must be opened by the process that uses it, not before a fork",
            where=where,
            got="one of another process",
            remedy="Start workers with 'spawn', or open it after the fork",
        )
    if closed:
        raise InternalError(
            f"{store} must not be used after it was closed", where=where, got="a closed one", remedy="Open another"
        )


class Closing:
    """Base of what is closed at the end of its ``with`` block."""

    def close(self) -> None:
        """Release it; it cannot be used afterwards."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
