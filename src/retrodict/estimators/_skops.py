"""Fitted scikit-learn objects as bytes without pickle, the same bytes for the same object in every process."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from retrodict.core.errors import DefinitionError, IntegrityError
from retrodict.core.identity import canonical_json, digest

__all__ = ["TRUSTED", "content_digest", "dump_sklearn", "load_sklearn", "pack"]

TRUSTED = (
    "builtins.object",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.CompoundKernel",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.DotProduct",
    "sklearn.gaussian_process.kernels.Exponentiation",
    "sklearn.gaussian_process.kernels.ExpSineSquared",
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RationalQuadratic",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)
"""Types that are read beside those that skops itself trusts (estimators of scikit-learn, arrays, ufuncs).

Each is plain data of scikit-learn's compiled code. skops leaves trees out because a forged file could make them read
past their arrays: here the bytes are verified by the hash in the manifest before they are read.
"""

_SCHEMA = "schema.json"
_REMEDY = "Take parts of scikit-learn, or register your own with an engine of its own"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary of a schema, in the order in which it is written."""
    if isinstance(node, dict):
        yield node
        for part in node.values():
            yield from _nodes(part)
    elif isinstance(node, list):
        for part in node:
            yield from _nodes(part)


def dump_sklearn(model: Any) -> bytes:
    """Bytes of a fitted object: the file of skops, with memory addresses and the time of day taken out.

    Raises
    ------
    DefinitionError
        If the object holds something that is not on the list of trusted types, or that skops cannot write.
    """
    import skops.io

    where = f"estimator {type(model).__name__}"
    try:
        data = skops.io.dumps(model)
        refused = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
    except Exception as error:  # skops raises the errors of whatever it visits
        raise DefinitionError(f"a fitted estimator must be stored without pickle ({error})", where=where,
                              got=type(error).__name__,
                              remedy=_REMEDY) from error  # fmt: skip
    if refused:
        raise DefinitionError("every part of a fitted estimator must be of a trusted type", where=where,
                              got=sorted(refused)[:5],
                              remedy=_REMEDY)  # fmt: skip
    return pack(data)


def pack(data: bytes) -> bytes:
    """A file of skops without memory addresses and the time of day: equal bytes for equal objects.

    skops names arrays and objects by their address; here they are numbered in the order of the schema. Bytes between
    the fields of records, such as nodes of trees, are whatever memory held where a tree was read from a file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        numbers: dict[int, int] = {}
        files: dict[str, str] = {}
        for node in _nodes(schema):
            if "__id__" in node:
                node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
            if isinstance(name := node.get("file"), str):
                ending = name.rpartition(".")[2]
                node["file"] = files.setdefault(name, f"{len(files)}.{ending}")
        contents = {new: _without_gaps(archive.read(name)) for name, new in files.items()}
    contents[_SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _without_gaps(data: bytes) -> bytes:
    """A file of NumPy with zeros between the fields of its records; any other as it is."""
    if b"('', '|V" not in data[:1_000]:
        return data
    import numpy as np

    records = np.load(io.BytesIO(data), allow_pickle=False)
    clean = np.zeros(records.shape, records.dtype)
    for name in records.dtype.names:
        clean[name] = records[name]
    sink = io.BytesIO()
    np.save(sink, clean, allow_pickle=False)
    return sink.getvalue()


def load_sklearn(data: bytes) -> Any:
    """Object from the bytes of :func:`dump_sklearn`, which must be trusted, that is, verified by hash.

    Raises
    ------
    IntegrityError
        If it holds a type that is not trusted, or cannot be read.
    """
    import skops.io

    try:
        return skops.io.loads(data, trusted=list(TRUSTED))
    except Exception as error:  # skops raises whatever the file makes it raise
        raise IntegrityError(
            f"skops must read the model, of trusted types only ({type(error).__name__}: {error})", where="engine",
            got=f"{len(data)} bytes",
            remedy="Restore the object store, or use the versions that trained it",
        ) from error  # fmt: skip


def content_digest(data: bytes) -> str:
    """SHA-256 of what an object holds, apart from which of its parts share memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        for node in _nodes(schema):
            node.pop("__id__", None)
            if isinstance(name := node.get("file"), str):
                node["file"] = digest(archive.read(name))
    return digest(canonical_json(schema))
