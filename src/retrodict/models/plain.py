"""A model that leaves: one folder with what the artifact holds, and a script that scores by it without this package.

The script is put together from the functions of ``_plain_reader``, those only that the model needs. A conversion of
every model to ONNX was left out: it has float32 where the libraries have float64, so the scores would be others.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from retrodict.core.errors import InputError
from retrodict.core.files import write_text
from retrodict.core.identity import canonical_json
from retrodict.models import _logistic, _plain_reader
from retrodict.models.artifact import ModelArtifact

__all__ = ["LIBRARIES", "write_plain"]

LIBRARIES: dict[str, tuple[str, ...]] = {
    "catboost": ("catboost",),
    "corrected": (),
    "generalised": (),
    "lightgbm": ("lightgbm",),
    "lightgbm_levels": ("lightgbm",),
    "linear": (),
    "sklearn": ("scikit-learn", "skops"),
    "xgboost": ("xgboost", "xgboost-cpu"),
}
"""Engines that are exported, with the packages that score by them beside NumPy."""

_HEAD = '''"""Scores of {ref}, without what trained it: `python score.py rows.csv`, `python score.py --check`."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
TINY = 2.0**-52


'''
_TAIL = """

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
_README = """# {ref}

`python score.py rows.csv` prints {outputs} for each row, `python score.py --check` scores the rows of `examples.json`
and exits with 1 where they differ by more than a millionth. In Python: `from score import open_model`, then
`open_model()([{{"name": value, ...}}, ...])`. Needs Python 3.11 and the packages of `requirements.txt`, nothing else.

The columns that are read, by name; None or an empty cell is a missing value, a category that training did not hold
counts as missing:

{columns}

They are the **features** as the model reads them. Features that were derived from histories, windows or other columns
are not computed here: give their values. Scores are those of the platform bit by bit with the same versions of the
libraries on the same kind of processor; other versions may round the last bits differently.
{threshold}
`engine/` has the model in the form of its own library, `model.json` inputs, categories and calibration.
"""


def write_plain(artifact: ModelArtifact, ref: str, folder: Path) -> Path:
    """Write a model as a folder that scores without this package, and return the folder.

    Parameters
    ----------
    artifact : ModelArtifact
    ref : str
        ``name@version``.
    folder : Path
        Made if needed; what lies in it under the same names is replaced.

    Raises
    ------
    InputError
        If the engine, or a part of it, has no plain reader; the message names those that have one.
    """
    kinds = list(_kinds(artifact.engine))
    if artifact.examples is None:
        raise InputError("a model must have example rows to be exported plainly", where=ref, got="none",
                         remedy="Train it again with this version")  # fmt: skip
    for file, data in artifact.engine.parts().items():
        (folder / "engine" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "engine" / file).write_bytes(data)
    if "sklearn" in kinds:
        from retrodict.estimators._skops import TRUSTED

        for objects in [*folder.glob("engine/**/models.skops")]:
            write_text(objects.with_name("trusted.json"), json.dumps(TRUSTED))
    features, calibrator = json.loads(artifact.inputs.to_json()), json.loads(artifact.calibrator.to_json())
    outputs = [name for name in artifact.outputs if name != "threshold"]
    threshold = artifact.metadata.get("threshold")
    plan = {"model": ref, "engine": artifact.engine.kind, "inputs": features, "calibrator": calibrator,
            "outputs": outputs, "threshold": threshold}  # fmt: skip
    write_text(folder / "model.json", json.dumps(plan, indent=1))
    rows = list(_examples(artifact))
    columns = {name: [row[name] for row in rows] for name in artifact.inputs.names}
    scores = artifact.score_rows(columns).score
    answers = {"rows": rows, "scores": scores.reshape(len(rows), -1).tolist()}
    (folder / "examples.json").write_bytes(canonical_json(answers))
    write_text(folder / "score.py", _HEAD.format(ref=ref) + "\n\n".join(_sources(kinds, calibrator)) + _TAIL)
    libraries = {name for kind in kinds for name in LIBRARIES[kind]} | ({"pandas"} if "sklearn" in kinds else set())
    write_text(folder / "requirements.txt", "".join(map(_pinned, sorted({"numpy", *libraries}))))
    words = [f"* `{f['name']}`: " + (f"category, {len(f['vocabulary'])} known" if f["type"] == "category" else "number")
             for f in features]  # fmt: skip
    cut = "" if threshold is None else f"The threshold of the model is {threshold!r}, the same for every row.\n"
    write_text(folder / "README.md", _README.format(ref=ref, outputs=", ".join(f"`{name}`" for name in outputs),
                                                    columns="\n".join(words), threshold=cut))  # fmt: skip
    return folder


def _kinds(engine: Any) -> Iterator[str]:
    """Kinds of an engine and of those inside it."""
    about = engine.kind
    if about == "sklearn" and engine.reading.ranks:
        about = "anomaly scores of scikit-learn"
    elif about == "xgboost" and engine.target.task == "survival":
        about = "xgboost of a time to an event"
    if about not in LIBRARIES:
        raise InputError("a model that is exported plainly must be of an engine with a plain reader: "
                         + ", ".join(sorted(LIBRARIES)), where="models export", got=about,
                         remedy="Export it for MLflow, or train another estimator")  # fmt: skip
    yield about
    for inner in (*getattr(engine, "members", ()), *((engine.engine,) if hasattr(engine, "engine") else ())):
        yield from _kinds(inner)


def _examples(artifact: ModelArtifact) -> Iterator[dict[str, Any]]:
    """Example rows by the names and values of the features."""
    assert artifact.examples is not None
    for values in artifact.examples.rows.tolist():
        yield {feature.name: None if value != value else  # noqa: PLR0124  # NaN
               feature.vocabulary[int(value)] if feature.type == "category" else value
               for feature, value in zip(artifact.inputs.features, values, strict=True)}  # fmt: skip


def _pinned(package: str) -> str:
    try:
        return f"{package}=={version(package)}\n"
    except PackageNotFoundError:
        return ""


def _sources(kinds: Sequence[str], calibrator: Any) -> list[str]:
    """Functions of the reader that a model needs, in the order in which they stand there."""
    needed = [_plain_reader.main, *(getattr(_plain_reader, f"open_{kind}") for kind in kinds),
              *(getattr(_plain_reader, f"calibrate_{kind}") for kind in _calibrators(calibrator))]  # fmt: skip
    homes = {_plain_reader.__name__, _logistic.__name__}
    for function in needed:  # grows while it is read
        used = (function.__globals__.get(name) for name in _names(function.__code__))
        needed += [one for one in used
                   if isinstance(one, FunctionType) and one.__module__ in homes and one not in needed]  # fmt: skip
    needed.sort(key=lambda one: (one.__module__ == _plain_reader.__name__, one.__code__.co_firstlineno))
    return [inspect.getsource(function) for function in dict.fromkeys(needed)]


def _calibrators(body: Any) -> Iterator[str]:
    yield body["kind"]
    for inner in (*body.get("classes", ()), *((body["inner"],) if "inner" in body else ())):
        yield from _calibrators(inner)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
