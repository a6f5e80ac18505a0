"""The model artifact: everything that turns values into a probability, under one content hash.

Serving, batch scoring and replay load the same artifact, so there is no second place where preparation could differ.
Pickle was rejected: it runs code on loading, breaks between versions, and has no stable bytes to hash.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.definition import check_name
from retrodict.core.errors import InputError, IntegrityError, InternalError, NotFoundError, check_known
from retrodict.core.identity import canonical_json, digest, short
from retrodict.core.tasks import Target
from retrodict.models.calibration import Calibrator, NoCalibrator, Unchanged, load_calibrator
from retrodict.models.engines.base import Engine
from retrodict.models.estimators import load_engine
from retrodict.models.inputs import InputSpec
from retrodict.models.runtimes import runtimes_of
from retrodict.stores.objects.base import ObjectStore

__all__ = ["THREAD_US", "ModelArtifact", "ExampleRows", "Score", "Scores", "Speed"]

THREAD_US = 300.0
"""Microseconds of one row from which on an engine is called in a thread: several times what the hand-over costs."""

_FORMAT = 1
_KIND = "retrodict.model"
_ENGINE = "engine/"
_UNSAID = Unchanged()
_SCORE = ("score",)
_EXAMPLES, _COUNT = "example_rows.json", 32
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


class Score(NamedTuple):
    """Answer for one row.

    ``raw``: what the engine gives, where that is one number. ``score``: the output of that name after calibration,
    where there is one. ``outputs``: every output by its name.
    """

    raw: float | None
    score: float | None
    outputs: Mapping[str, float]


class Scores(NamedTuple):
    """Answers for n rows, of shape (n,) or (n, outputs): what the engine gives, and after calibration."""

    raw: NDArray[np.float64]
    score: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExampleRows:
    """Rows that nobody has, and what the model answered to them when it was made.

    A library of another version, another processor or a broken build reads the same bytes and may answer otherwise:
    who loads a model to decide by it asks again, and refuses a model that has changed its mind. Values are drawn for
    each column by itself from the quantiles of training rows, so that no row is one of a person.

    Attributes
    ----------
    rows : ndarray of shape (n, features)
        As an engine reads them.
    answers : ndarray of shape (n,) or (n, outputs)
        After calibration.
    """

    rows: NDArray[np.float64]
    answers: NDArray[np.float64]

    @classmethod
    def of(cls, engine: Engine, calibrator: Calibrator, matrix: NDArray[np.float64]) -> ExampleRows:
        """Rows from the columns of training rows, and their answers."""
        random, columns = np.random.default_rng(0), []
        for values in matrix.T:
            present = values[~np.isnan(values)]
            levels = np.quantile(present, _LEVELS, method="inverted_cdf") if len(present) else np.array([np.nan])
            levels = np.append(levels, np.nan) if len(present) < len(values) else levels
            columns.append(random.choice(levels, _COUNT))
        rows = np.column_stack(columns) if columns else np.empty((_COUNT, 0))
        return cls(rows, np.asarray(calibrator.apply(engine.scores(rows))))

    def to_json(self) -> bytes:
        """Plain form; a missing value is null."""
        rows = [[None if math.isnan(value) else value for value in row] for row in self.rows.tolist()]
        return canonical_json({"answers": self.answers.tolist(), "rows": rows})

    @classmethod
    def from_json(cls, data: bytes) -> ExampleRows:
        """Inverse of :meth:`to_json`."""
        body = json.loads(data)
        return cls(np.array(body["rows"], dtype=np.float64), np.array(body["answers"], dtype=np.float64))


class _Rows(threading.local):
    """One row buffer per thread."""

    def __init__(self, width: int) -> None:
        self.row = np.empty(width, dtype=np.float64)


class Speed(NamedTuple):
    """Microseconds of one row alone, and of one among 32 together; None where that gives other bits."""

    alone_us: float
    together_us: float | None


def _least_us(call: Callable[[], Any], *, calls: int = 7, until_s: float = 0.05) -> float:
    """Least time of a few calls: what else the machine does makes a call longer, never shorter."""
    times, began = list[int](), time.perf_counter_ns()
    while len(times) < calls and (len(times) < 2 or time.perf_counter_ns() - began < until_s * 1e9):
        before = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - before)
    return min(times) / 1e3


@dataclass(frozen=True)
class ModelArtifact:
    """A model as it is served. Immutable; any number of threads may score with it.

    What its outputs are is said by its engine's target; see :attr:`outputs`.

    Attributes
    ----------
    name : str
        Name of the model it is a version of.
    inputs : InputSpec
        What it reads, and how.
    engine : Engine
        From a row of numbers to a probability.
    calibrator : Calibrator
        From that to a probability that comes true; by default nothing changes.
    metadata : mapping
        Plain JSON that says where it comes from (run, rows, metrics); part of the hash. ``runtimes`` says how it is
        computed (see :mod:`~retrodict.models.runtimes`); where it does not, the engine's own row and table function do.
    examples : ExampleRows, optional
        What it must answer wherever it is loaded; see :meth:`check`.

    Examples
    --------
    >>> from retrodict.models import ConstantEngine
    >>> spec = InputSpec.learn({"wind": [3.5, 9.0]})
    >>> model = ModelArtifact("late_arrival", spec, ConstantEngine(0.25, features=1))
    >>> model.score_row({"wind": 4.0})
    Score(raw=0.25, score=0.25, outputs={'score': 0.25})
    """

    name: str
    inputs: InputSpec
    engine: Engine
    calibrator: Calibrator = _UNSAID
    metadata: Mapping[str, Any] = field(default_factory=dict)
    examples: ExampleRows | None = field(default=None, compare=False)
    _rows: _Rows = field(init=False, repr=False, compare=False)
    _score_one: Callable[[NDArray[np.float64]], Any] = field(init=False, repr=False, compare=False)
    _score_many: Callable[[NDArray[np.float64]], NDArray[np.float64]] = field(init=False, repr=False, compare=False)
    _together: bool = field(init=False, repr=False, compare=False, default=True)
    on_server: ClassVar[bool] = False
    """Whether a score is waited for from a server, and not computed here."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        check_name(self.name, what="model")
        if self.engine.width != len(self.inputs):
            raise InputError(f"the engine must read the {len(self.inputs)} features of the inputs",
                             where=f"model {self.name!r}", got=self.engine.width,
                             remedy="Fit it on a matrix of the same InputSpec")  # fmt: skip
        if self.calibrator is _UNSAID and self.target.task == "binary":
            object.__setattr__(self, "calibrator", NoCalibrator())
        try:
            canonical_json(dict(self.metadata))
        except InternalError as error:
            raise InputError("metadata must be plain JSON", where=f"model {self.name!r}",
                             got=type(self.metadata).__name__,
                             remedy="Give numbers, text, lists and dicts only") from error  # fmt: skip
        object.__setattr__(self, "_rows", _Rows(len(self.inputs)))
        names = self.metadata.get("runtimes", {"row": "row", "table": "table"})
        row, table = names["row"], names["table"]
        runtimes = {runtime.name: runtime for runtime in runtimes_of(self.engine, {row, table})}
        for name in (row, table):
            check_known(name, runtimes, "a model must be scored by a runtime that is there",
                        where=f"model {self.name!r}", what="runtime")  # fmt: skip
        object.__setattr__(self, "_score_one", runtimes[row].row)
        object.__setattr__(self, "_score_many", runtimes[table].table)

    def score_rows(self, columns: Mapping[str, Any]) -> Scores:
        """Score whole columns; see :meth:`InputSpec.encode_columns`."""
        raw = self._score_many(self.inputs.encode_columns(columns))
        return Scores(raw, self.calibrator.apply(raw))

    def score_row(self, values: Mapping[str, Any]) -> Score:
        """Score one row, bit for bit as :meth:`score_rows` does; see :meth:`InputSpec.encode_row`."""
        raw = self._score_one(self.inputs.encode_row(values, self._rows.row))
        return self._score(raw if isinstance(raw, float) else None, self.calibrator.apply_one(raw))

    def _score(self, raw: float | None, final: Any) -> Score:
        names = self.outputs
        if names == _SCORE:
            return Score(raw, final, {"score": final})
        answers = (*(final if isinstance(final, tuple) else (final,)), *self._constants)
        return Score(raw, final if names[0] == "score" else None, dict(zip(names, answers, strict=True)))

    def row_of(self, values: Mapping[str, Any]) -> bytes:
        """The row as the engine reads it: equal bytes have equal scores."""
        return self.inputs.encode_row(values, np.empty(len(self.inputs), dtype=np.float64)).tobytes()

    def score_each(self, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
        """Score rows as :meth:`score_row` does, bit for bit: together where the engine gives the same bits for that."""
        if not self.engine.exact_rows or not self._together or len(rows) < 2:
            return [self.score_row(values) for values in rows]
        matrix = np.empty((len(rows), len(self.inputs)), dtype=np.float64)
        for place, values in enumerate(rows):
            self.inputs.encode_row(values, matrix[place])
        raw = self._score_many(matrix)
        finals, several = self.calibrator.apply(raw), raw.ndim > 1
        return [
            self._score(None if several else one, tuple(final) if isinstance(final, list) else final)
            for one, final in zip(raw.tolist(), finals.tolist(), strict=True)
        ]

    def measure(self) -> Speed:
        """Time the engine, on the example rows where there are any; the least of a few calls.

        From here on :meth:`score_each` goes row by row where together takes longer, as with a forest whose rows have
        a function of their own.
        """
        rows = np.full((32, len(self.inputs)), np.nan) if self.examples is None else self.examples.rows
        alone, together = _least_us(lambda: self._score_one(rows[0])), None
        if self.engine.exact_rows:
            together = _least_us(lambda: self._score_many(rows)) / len(rows)
            object.__setattr__(self, "_together", together < alone)
        return Speed(alone, together)

    def check(self) -> None:
        """Ask what it was asked when it was made, as columns and row by row.

        Raises
        ------
        IntegrityError
            If an answer differs by more than 1e-6 and 1e-5 of it, or a row alone has another one than among others, by
            more than 1e-12 and 1e-9 of it where the engine promises that there is no difference.
        """
        if self.examples is None:
            return
        rows, expected = self.examples.rows, self.examples.answers
        answers = np.asarray(self.calibrator.apply(self._score_many(rows)))
        alone = np.frombuffer(self.answers()).reshape(answers.shape)
        near = (1e-5, 1e-6)
        same = (1e-9, 1e-12) if self.engine.exact_rows else near  # a last bit of another processor is no other answer
        for values, than, close in ((answers, expected, near), (alone, answers, same)):
            if values.shape != than.shape or not np.allclose(values, than, *close, equal_nan=True):
                apart = float(np.nanmax(np.abs(values - than))) if values.shape == than.shape else math.inf
                raise IntegrityError(
                    "a model must answer as it did when it was made", where=f"model {self.name!r}",
                    got=f"answers to its example rows that are up to {apart:.3g} apart",
                    remedy="Install the library versions of its run (retrodict runs show), or train it again here",
                )  # fmt: skip

    def answers(self) -> bytes:
        """What it answers to its example rows here, bit by bit: another processor may round otherwise."""
        rows = () if self.examples is None else self.examples.rows
        return np.array([self.calibrator.apply_one(self._score_one(row)) for row in rows], dtype=np.float64).tobytes()

    @property
    def target(self) -> Target:
        """What it predicts."""
        return self.engine.target

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives for a row, in the order of the columns of :meth:`score_rows`.

        The last may be ``threshold``, the same for every row and no column.
        """
        return (*self.calibrator.outputs(self.target), *(("threshold",) if self._constants else ()))

    @cached_property
    def _constants(self) -> tuple[float, ...]:
        threshold = self.metadata.get("threshold")
        return () if threshold is None else (float(threshold),)

    def fingerprint(self) -> str:
        """SHA-256 of what was learned, without metadata: equal for a run and its exact replay."""
        return digest(canonical_json({
            "calibrator": digest(self.calibrator.to_json()),
            "engine": self.engine.fingerprint(),
            "inputs": digest(self.inputs.to_json()),
        }))  # fmt: skip

    def save(self, objects: ObjectStore) -> str:
        """Store every part and then the manifest that names them; return the manifest's SHA-256.

        The order makes it safe to die in between: a manifest that exists names only parts that do.
        """
        parts = {
            "calibrator.json": self.calibrator.to_json(),
            "inputs.json": self.inputs.to_json(),
            "metadata.json": canonical_json(dict(self.metadata)),
            **({} if self.examples is None else {_EXAMPLES: self.examples.to_json()}),
            **{_ENGINE + file: data for file, data in self.engine.parts().items()},
        }
        manifest = {
            "engine": self.engine.kind,
            "format": _FORMAT,
            "kind": _KIND,
            "name": self.name,
            "parts": {part: objects.put(data) for part, data in parts.items()},
        }
        return objects.put(canonical_json(manifest))

    @classmethod
    def target_of(cls, objects: ObjectStore, artifact: str) -> Target:
        """What an artifact predicts, read without its engine; of one from before there were others, yes or no.

        Raises
        ------
        NotFoundError, IntegrityError, InputError
            As :meth:`load` does.
        """
        metadata = cls.metadata_of(objects, artifact)
        return Target.from_dict(metadata["target"]) if "target" in metadata else Target()

    @classmethod
    def metadata_of(cls, objects: ObjectStore, artifact: str) -> dict[str, Any]:
        """Metadata of an artifact, read without its engine; errors as of :meth:`load`."""
        where = f"model artifact {short(artifact)}"
        manifest = _manifest(_verified(objects, artifact, where), where)
        metadata: dict[str, Any] = json.loads(_verified(objects, manifest["parts"]["metadata.json"], where))
        return metadata

    @classmethod
    def load(cls, objects: ObjectStore, artifact: str, *, engine: Engine | None = None) -> Self:
        """Read an artifact; nothing of it is parsed before its hash is verified.

        Parameters
        ----------
        objects : ObjectStore
            Where it was saved.
        artifact : str
            What :meth:`save` returned.
        engine : Engine, optional
            Stands in the place of the stored one, which is not read.

        Raises
        ------
        NotFoundError
            If there is no such artifact.
        IntegrityError
            If the manifest or a part was altered or removed.
        InputError
            If the object is not a model, or of a newer format.
        """
        where = f"model artifact {short(artifact)}"
        manifest = _manifest(_verified(objects, artifact, where), where)
        parts = {}
        for part, part_digest in manifest["parts"].items():
            if engine is not None and part.startswith(_ENGINE):
                continue
            try:
                parts[part] = _verified(objects, part_digest, f"{where}, part {part!r}")
            except NotFoundError as error:
                raise IntegrityError("every part of the artifact must be stored", where=f"{where}, part {part!r}",
                                     got="no such object",
                                     remedy="Restore the object store from a backup") from error  # fmt: skip
        engine_parts = {part.removeprefix(_ENGINE): data for part, data in parts.items() if part.startswith(_ENGINE)}
        return cls(
            name=manifest["name"],
            inputs=InputSpec.from_json(parts["inputs.json"]),
            engine=engine or load_engine(manifest["engine"], engine_parts),
            calibrator=load_calibrator(parts["calibrator.json"]),
            metadata=json.loads(parts["metadata.json"]),
            examples=ExampleRows.from_json(parts[_EXAMPLES]) if _EXAMPLES in parts else None,
        )


def _verified(objects: ObjectStore, expected: str, where: str) -> bytes:
    """Bytes of an object. Stores promise to verify; a tree file goes to a C parser, so the artifact looks itself."""
    data = objects.get(expected)
    if digest(data) != expected:
        raise IntegrityError("bytes must be those that were stored", where=where, got=f"SHA-256 {short(digest(data))}",
                             remedy="Restore the object store from a backup")  # fmt: skip
    return data


def _manifest(data: bytes, where: str) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("kind") != _KIND:
        raise InputError("the object must be the manifest of a model", where=where, got=f"{len(data)} bytes",
                         remedy="Give the digest that ModelArtifact.save returned")  # fmt: skip
    if manifest["format"] != _FORMAT:
        raise InputError(f"the format must be {_FORMAT}, which this version of retrodict reads", where=where,
                         got=manifest["format"], remedy="Use the version that wrote it, or a newer one")  # fmt: skip
    return manifest
