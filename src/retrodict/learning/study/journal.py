"""Trials of one search on disk, so that a search that was killed goes on and nobody can add to what it found."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrodict.core.identity import content_hash
from retrodict.learning.study.proposals import StudyTrial
from retrodict.models.definitions import Recipe
from retrodict.models.problem import Problem
from retrodict.stores._durable import open_file, read_file

__all__ = ["Journal"]

Outputs = NDArray[np.float64]


class Journal:
    """Trials of one search in a folder: one line each, durable before the next is asked for; outputs beside.

    Each line is sealed by a secret, together with those before it and the digest of its outputs. What a kill tore, and
    what the secret did not seal, is dropped with all that follows: it is fitted again.

    Parameters
    ----------
    folder : path
        Of this search alone; made if it does not exist.
    secret : bytes
    """

    def __init__(self, folder: Path, secret: bytes = b"") -> None:
        self.folder, self._secret, self._last = folder, secret, folder.name
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "trials.jsonl"

    @classmethod
    def of(cls, place: Path, recipe: Recipe, problem: Problem, secret: bytes) -> Journal:
        """Journal of a search: its folder is named by the recipe and every row that it is searched on."""
        digest = hashlib.sha256(content_hash(recipe).encode())
        for part in (problem.train, problem.validate):
            if part is not None:
                for array in (part.matrix, part.labels, part.weights, part.groups):
                    digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        return cls(place / digest.hexdigest()[:32], secret)

    def remove(self) -> None:
        """Forget the search: it is recorded elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self) -> list[tuple[StudyTrial, list[Outputs] | None]]:
        """Trials in their order, those finished with their outputs by fold where they were kept."""
        self._last = self.folder.name
        size, trials = 0, list[tuple[StudyTrial, list[Outputs] | None]]()
        content = read_file(self._path) if self._path.exists() else b""
        for line in content.splitlines(keepends=True):
            try:
                body = json.loads(line) if line.endswith(b"\n") else {}
                seal, outputs = body.pop("seal"), self._outputs(body["number"], body.pop("outputs"))
                if not hmac.compare_digest(seal, self._seal(line[: line.rindex(b', "seal"')])):
                    break
                trial = StudyTrial(**{**body, "folds": tuple(body["folds"])})
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                break
            size, self._last = size + len(line), seal
            trials.append((trial, outputs))
        if size != len(content):
            os.truncate(self._path, size)
        return trials

    def append(self, trial: StudyTrial, outputs: Sequence[Outputs] | None) -> None:
        """Keep a trial that ended."""
        digest = None
        if outputs is not None:
            buffer = io.BytesIO()
            np.savez(buffer, *outputs)
            (self.folder / f"{trial.number}.npz").write_bytes(buffer.getvalue())
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        text = json.dumps({**asdict(trial), "outputs": digest})[:-1].encode()
        self._last = self._seal(text)
        with os.fdopen(open_file(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
            file.write(text + b', "seal": "' + self._last.encode() + b'"}\n')
            file.flush()
            os.fsync(file.fileno())

    def _seal(self, text: bytes) -> str:
        return hmac.digest(self._secret, self._last.encode() + b"\n" + text, "sha256").hex()

    def _outputs(self, number: int, digest: str | None) -> list[Outputs] | None:
        """Outputs of a trial; ValueError if they are not those that were kept."""
        if digest is None:
            return None
        content = read_file(self.folder / f"{number}.npz")
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(number)
        with np.load(io.BytesIO(content)) as arrays:
            return [arrays[name] for name in arrays.files]
