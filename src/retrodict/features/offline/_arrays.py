"""Arrays in a folder, read by memory map: written whole or not at all, each checked before it is trusted.

A folder gets its name only when every byte in it is durable, so what has a name is complete. Bytes that changed
afterwards are found by their hash when an array is first asked for, and the list of hashes is sealed with a key: what
somebody without it put there is not read. SHA-256 costs what CRC-32 does where the processor helps, as nearly all do;
Parquet was rejected because it cannot be mapped.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.errors import IntegrityError
from retrodict.core.identity import canonical_json, digest_file
from retrodict.stores._durable import place_file, read_file, sync_file, sync_folder

__all__ = ["ArrayFolder", "ArrayWriter", "FolderKey"]

_MANIFEST = "manifest.json"


class FolderKey(NamedTuple):
    """Secret that seals folders, and the name by which a folder says which one it was; both empty: sealed with none."""

    name: str = ""
    secret: bytes = b""

    def below(self, folder: Path) -> FolderKey:
        """Key of a folder inside another one, which it must not leave."""
        return FolderKey(self.name, hmac.digest(self.secret, _place(folder).encode(), "sha256"))

    def seal(self, folder: Path, body: object) -> str:
        """Seal over the body of a manifest, and the place of its folder."""
        return hmac.digest(self.secret, _place(folder).encode() + b"\n" + canonical_json(body), "sha256").hex()


def _place(folder: Path) -> str:
    """Where a folder is, or will be: a draft begins with a dot."""
    return "/".join(name.lstrip(".").partition(".")[0] for name in (folder.parent.name, folder.name))


class ArrayWriter:
    """Writes arrays into an empty folder that nobody knows yet."""

    def __init__(self, folder: Path, key: FolderKey) -> None:
        self._folder, self._key = folder, key
        self._entries: dict[str, dict[str, Any]] = {}
        self._held: dict[int, tuple[str, NDArray[Any]]] = {}

    def add(self, name: str, array: NDArray[Any], *, again: bool = False, as_is: bool = False) -> None:
        """Write an array; one that counts up by one or holds one value only costs nothing.

        With ``again`` it is held until the end, and written once however often it is added. Whole numbers are written
        with the fewest bytes that hold them, and widened when read, unless ``as_is``: those are mapped.
        """
        if id(array) in self._held:
            self._entries[name] = {"as": self._held[id(array)][0]}
            return
        self._entries[name] = _described(array) or self._written(array if as_is else _narrow(array))
        if again:
            self._held[id(array)] = name, array

    def add_column(self, name: str, column: pa.Array[Any]) -> None:
        """Write a column of any Arrow type."""
        path = self._path("arrow")
        batch = pa.record_batch([column], names=["values"])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self._entries[name] = _sealed(path)

    def _path(self, kind: str) -> Path:
        return self._folder / f"{len(self._entries):04d}.{kind}"

    def _written(self, array: NDArray[Any]) -> dict[str, Any]:
        path = self._path("npy")
        np.save(path, np.ascontiguousarray(array))
        return _sealed(path)

    def close(self, note: Mapping[str, Any]) -> None:
        """Write down what is there; the note is plain JSON."""
        body = {"note": note, "arrays": self._entries}
        manifest = {"key": self._key.name, "seal": self._key.seal(self._folder, body), "body": body}
        place_file(self._folder / _MANIFEST, json.dumps(manifest).encode())
        sync_folder(self._folder)


class ArrayFolder:
    """Arrays that :class:`ArrayWriter` wrote, mapped when first asked for; ``note`` is what the writer said.

    IntegrityError if the manifest is damaged or sealed with another key, or a file is missing or of another size.
    """

    def __init__(self, folder: Path, key: FolderKey) -> None:
        self.folder, self.key = folder, key
        try:
            manifest = json.loads(read_file(folder / _MANIFEST))
            body = manifest["body"]
            if manifest["key"] != key.name or not hmac.compare_digest(manifest["seal"], key.seal(folder, body)):
                raise self._damaged(_MANIFEST)
            self.note: dict[str, Any] = body["note"]
            self._entries: dict[str, dict[str, Any]] = body["arrays"]
            for entry in self._entries.values():
                if "file" in entry and (folder / entry["file"]).stat().st_size != entry["size"]:
                    raise self._damaged(entry["file"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(_MANIFEST) from error
        self._mapped: dict[str, Any] = {}

    def check(self) -> None:
        """Look at every file; IntegrityError at the first whose bytes changed since they were written."""
        for entry in self._entries.values():
            if "file" in entry and not self._is_intact(entry):
                raise self._damaged(entry["file"])

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def array(self, name: str, places: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Return an array, read-only, or some places of it; IntegrityError if its bytes changed since.

        Arrays that were one object are one object again.
        """
        entry = self._entries[name]
        if "as" in entry:
            return self.array(entry["as"], places)
        array: NDArray[Any] = self._mapped[name] if name in self._mapped else self._loaded(entry)
        if places is not None:
            self._mapped.setdefault(name, array)
            return _widened(array[places])
        array = self._mapped[name] = _widened(array)
        return array

    def _loaded(self, entry: Mapping[str, Any]) -> NDArray[Any]:
        if "range" in entry:
            return np.arange(entry["range"])
        if "same" in entry:
            return np.broadcast_to(np.array(entry["same"], dtype=entry["dtype"]), (entry["length"],))
        # A plain view: every slice of a memmap object would carry the cost of its class.
        return np.asarray(np.load(self._checked(entry), mmap_mode="r", allow_pickle=False))

    def column(self, name: str) -> pa.Array[Any]:
        """Return a column; IntegrityError if its bytes changed since they were written."""
        if name not in self._mapped:
            with pa.memory_map(str(self._checked(self._entries[name]))) as source:
                self._mapped[name] = pa.ipc.open_file(source).get_batch(0).column(0)
        return self._mapped[name]

    def _checked(self, entry: Mapping[str, Any]) -> Path:
        if not self._is_intact(entry):
            # Without its manifest the folder is none, and whoever comes next makes it anew.
            (self.folder / _MANIFEST).unlink(missing_ok=True)
            raise self._damaged(entry["file"])
        return self.folder / str(entry["file"])

    def _is_intact(self, entry: Mapping[str, Any]) -> bool:
        path: Path = self.folder / entry["file"]
        try:
            return path.is_file() and digest_file(path) == entry["sha256"]
        except OSError as error:
            raise self._damaged(entry["file"]) from error

    def _damaged(self, file: str) -> IntegrityError:
        return IntegrityError(
            "the files of an index of events must be as they were written",
            where=f"index {self.folder.parent.name}, file {file}",
            remedy="Run it again: the index is made anew from the table",
        )


def _described(array: NDArray[Any]) -> dict[str, Any] | None:
    """Entry of an array that needs no file; None for the others."""
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "bi":
        return None
    if (array == array[0]).all():
        return {"same": array[0].item(), "dtype": array.dtype.str, "length": len(array)}
    if array.dtype == np.int64 and array[0] == 0 and (np.diff(array) == 1).all():
        return {"range": len(array)}
    return None


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the fewest bytes that hold them all."""
    if array.dtype != np.int64 or array.ndim != 1 or not len(array):
        return array
    low, high = int(array.min()), int(array.max())
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.int64, copy=False) if array.dtype.kind == "i" and array.ndim == 1 else array


def _sealed(path: Path) -> dict[str, Any]:
    sync_file(path)
    return {"file": path.name, "size": path.stat().st_size, "sha256": digest_file(path)}
