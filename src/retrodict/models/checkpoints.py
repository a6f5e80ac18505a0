"""Checkpoints of a fit: what it needs to go on after its process was killed, as if it had not been.

Each is one file, written beside its name, synced and renamed: a reader sees a whole checkpoint or none. A fit has a
folder named by everything that it learns from, so that members of an ensemble and folds do not meet, and a changed
recipe or row begins anew instead of going on from another problem. What is kept is read off the folder, not remembered:
a restart forgets nothing.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrodict.core.durations import parse_duration
from retrodict.core.errors import IntegrityError
from retrodict.core.identity import canonical_json, digest
from retrodict.stores._durable import make_folder, place_file, read_file

if TYPE_CHECKING:
    from retrodict.models.problem import Problem

__all__ = ["Checkpoints", "FitState", "problem_key"]

_SUFFIX = ".checkpoint"
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class FitState:
    """State of a fit after a step.

    Attributes
    ----------
    step : int
        Iterations, or batches, that are done.
    state : mapping of str to bytes
        Everything to go on with: model, optimiser, generators, position, history.
    loss : float, optional
        Of the validation rows.
    """

    step: int
    state: Mapping[str, bytes]
    loss: float | None = None


@dataclass(slots=True)
class Checkpoints:
    """Where and how often a fit writes down its state.

    Parameters
    ----------
    folder : Path, optional
        None keeps nothing: a replay does without, but is fitted in the same pieces.
    steps : int, optional
        Write after every so many steps.
    seconds : float, optional
        Write when so many seconds have passed since the last time.
    keep : int, default 3
        How many of the least validation loss are kept beside the last one.
    """

    folder: Path | None = None
    steps: int | None = None
    seconds: float | None = None
    keep: int = 3
    _written: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Time counts from here."""
        self._written = time.monotonic()

    @classmethod
    def every(cls, interval: int | str | None, folder: Path | None = None) -> Checkpoints | None:
        """Checkpoints after a number of steps, or after a duration like ``"60s"``; None for None."""
        if interval is None:
            return None
        if isinstance(interval, int):
            return cls(folder, steps=interval)
        duration = parse_duration(interval, where="Recipe, checkpoint")
        return cls(folder, seconds=duration / _MICROSECONDS)

    def of(self, key: str) -> Checkpoints:
        """Those of one fit."""
        return Checkpoints(self.folder / key if self.folder else None, self.steps, self.seconds, self.keep)

    def due(self, step: int) -> bool:
        """Whether the state after this step is to be saved."""
        if self.folder is None:
            return False
        if self.steps is not None and step % self.steps == 0:
            return True
        return self.seconds is not None and time.monotonic() - self._written >= self.seconds

    def save(self, step: int, state: Mapping[str, bytes], loss: float | None = None) -> None:
        """Keep the state after a step durably, and drop those that are neither last nor among the best."""
        if self.folder is None:
            return
        names = sorted(state)
        parts = [[name, len(state[name]), digest(state[name])] for name in names]
        head = {"step": step, "loss": loss, "parts": parts}
        make_folder(self.folder)
        place_file(self._file(step), b"".join([canonical_json(head), b"\n", *(state[name] for name in names)]))
        self._written = time.monotonic()
        losses = {path: _head(path).get("loss") for path in self._files()[:-1]}
        best = sorted((loss, path) for path, loss in losses.items() if loss is not None)[: self.keep]
        for path in losses.keys() - {path for _, path in best}:
            path.unlink(missing_ok=True)

    def last(self) -> FitState | None:
        """The newest checkpoint; None where there is none.

        Raises
        ------
        IntegrityError
            If its bytes are not those that were written.
        """
        files = self._files()
        if not files:
            return None
        head, _, data = read_file(files[-1]).partition(b"\n")
        body, at = json.loads(head), 0
        state: dict[str, bytes] = {}
        for name, length, expected in body["parts"]:
            state[name] = data[at : at + length]
            at += length
            if digest(state[name]) != expected:
                raise IntegrityError("bytes must be those that were written", where=f"checkpoint {files[-1].name}",
                                     got=f"part {name!r} of {len(state[name])} bytes",
                                     remedy=f"Delete {files[-1]}: the one before it is then the last")  # fmt: skip
        return FitState(body["step"], state, body["loss"])

    def clear(self) -> None:
        """Remove all of them."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{step:012d}{_SUFFIX}"

    def _files(self) -> list[Path]:
        """Whole ones, oldest first; a draft that a killed process left has a name of its own."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.glob(f"*{_SUFFIX}") if not path.name.startswith("."))


def _head(path: Path) -> dict[str, object]:
    with path.open("rb") as stream:
        head: dict[str, object] = json.loads(stream.readline())
        return head


def problem_key(name: str, problem: Problem) -> str:
    """SHA-256 over everything that an estimator learns from, short enough for the name of a folder."""
    parts: list[str] = []
    for rows in (problem.train, problem.validate):
        if rows is not None:
            arrays = (rows.matrix, rows.labels, rows.weights, rows.groups)
            parts += ["" if values is None else digest(values.tobytes()) for values in arrays]
    body = {"estimator": name, "params": dict(problem.params), "seed": problem.seed, "rows": parts,
            **({} if (start := problem.start) is None else {"start": [start.engine.fingerprint(), start.layers]}),
            "inputs": digest(problem.inputs.to_json()), "target": problem.train.target.to_dict()}  # fmt: skip
    return digest(canonical_json(body))[:32]
