"""Digests in the place of personal values: the same for the same value, and nothing without a secret of the project.

A number or a name is told by trying all that there are, if its digest has no key. Who has the log alone learns only
values are equal. Whoever has the secret, too, can try: destroy it (``state/failures/key``) and nobody can. Keys for
each subject were left out: they would have to be read before every record is written.
"""

from __future__ import annotations

import json
import secrets
from functools import cached_property
from hashlib import blake2b

from retrodict.core.errors import IntegrityError
from retrodict.decisions.records import Value
from retrodict.stores._durable import make_folder, place_file, read_file
from retrodict.workspace import Workspace

__all__ = ["Masks"]

_KEY_BYTES = 32


class Masks:
    """Masks values of one project; threads may share it.

    Examples
    --------
    >>> masks = Masks(workspace)  # doctest: +SKIP
    >>> masks.value(12) == masks.value(12.0) != masks.value("12"), masks.value(None)  # doctest: +SKIP
    (True, None)
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @cached_property
    def _key(self) -> bytes:
        folder = self._workspace.root / "state" / "failures"
        make_folder(folder)
        with self._workspace.lock("failures"):
            if not (folder / "key").exists():
                place_file(folder / "key", secrets.token_bytes(_KEY_BYTES), mode=0o600)
            key = read_file(folder / "key")
        if len(key) != _KEY_BYTES:
            raise IntegrityError(
                f"the secret that hides personal values must have {_KEY_BYTES} bytes",
                where="state/failures/key",
                got=len(key),
                remedy="Restore it from a copy; without one, remove it: what was hidden can then no longer be compared",
            )
        return key

    @cached_property
    def _start(self) -> str:
        return f"masked {blake2b(self._key, digest_size=3).hexdigest()} "

    def digest(self, data: bytes) -> str:
        """Digest of some bytes."""
        return blake2b(data, key=self._key, digest_size=8).hexdigest()

    def value(self, value: Value) -> Value:
        """What stands for a value; None for None, which hides nobody."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as much the same number as anywhere else
        return None if value is None or value != value else self._start + self.digest(json.dumps(value).encode())  # noqa: PLR0124  # NaN

    def can_tell(self, masked: Value) -> bool:
        """Whether what was masked can be compared: by the secret that is still there."""
        return masked is None or str(masked).startswith(self._start)
