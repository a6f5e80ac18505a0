"""Objects as files named by their content: the embedded twin of a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrodict.core.errors import IntegrityError
from retrodict.core.identity import digest as digest_of
from retrodict.stores._durable import make_folder, place_file, read_file
from retrodict.stores.objects.base import ObjectStore, is_digest, missing, path_of, verified

__all__ = ["FolderObjects"]


class FolderObjects(ObjectStore):
    """Embedded twin of :class:`~retrodict.stores.objects.base.ObjectStore`.

    The object ``abcd…`` is the read-only file ``ab/cd/abcd…``.

    Parameters
    ----------
    root : Path
        Folder of all objects; made by the first ``put``.

    Examples
    --------
    >>> import tempfile
    >>> objects = FolderObjects(Path(tempfile.mkdtemp()))
    >>> digest = objects.put(b"a plot")
    >>> objects.get(digest), list(objects.digests()) == [digest]
    (b'a plot', True)
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        path = self._path(digest)
        if not (path.is_file() and path.read_bytes() == data):
            make_folder(path.parent)
            place_file(path, data, mode=0o444)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            data = read_file(self._path(digest))
        except FileNotFoundError as error:
            raise missing(digest) from error
        except OSError as error:
            raise IntegrityError(
                "an object must be a file that can be read",
                where=f"object {digest}",
                remedy="Restore the object from a copy, or remove what is in its place and put its bytes again",
                got=error.strerror,
            ) from error
        return verified(digest, data)

    def exists(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def digests(self) -> Iterator[str]:
        for outer in _folders(self._root):
            for inner in _folders(outer):
                yield from sorted(path.name for path in inner.iterdir() if is_digest(path.name))

    def _path(self, digest: str) -> Path:
        return self._root / path_of(digest)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
