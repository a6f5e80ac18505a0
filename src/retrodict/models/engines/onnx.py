"""A network of :mod:`~retrodict.models.engines.network` by ONNX Runtime (extra ``onnx``): float32, or int8.

Rows are prepared as for the network; the layers are a graph. Integers are of static quantisation: ranges of the inputs
of each layer are measured on training rows, since ranges taken from each batch would make an answer depend on its
neighbours. Weights have 7 bits: a sum of two products of 8 bits overflows 16 on processors without the instructions for
it, which made a sample model agree with its original in half of the answers. The last layer stays in float32, as its
outputs would be a few hundred different ones.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import IntegrityError, MissingExtraError
from retrodict.core.identity import canonical_json, digest
from retrodict.models.engines.network import NetworkEngine, NetworkPlan

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["OnnxNetworkEngine", "convert_network"]

Array = NDArray[np.float64]

_GRAPH, _ARRAYS, _PLAN = "graph.onnx", "arrays.npz", "engine.json"
_MOST_ROWS = 2_000  # that ranges are measured on
_OPSET, _FORMAT = 17, 8


def _runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", needed_for="networks in other numbers") from error
    runtime: ModuleType = onnxruntime
    return runtime


class OnnxNetworkEngine(NetworkEngine):
    """A network whose layers are a graph of ONNX.

    Parameters
    ----------
    plan : NetworkPlan
    arrays : mapping of str to ndarray
        ``mean``, ``scale`` and the embeddings.
    graph : bytes
        From a trusted or verified source.

    Raises
    ------
    IntegrityError
        If ONNX Runtime cannot read the graph.
    """

    kind: ClassVar[str] = "network_onnx"

    def __init__(self, plan: NetworkPlan, arrays: Mapping[str, NDArray[Any]], graph: bytes) -> None:
        self.plan, self.arrays, self._graph = plan, dict(arrays), graph
        self._read_scales({name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()})
        self._tables = [np.asarray(arrays[f"embedding_{at}"], np.float64) for at in range(len(plan.categories))]
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class but this
            raise IntegrityError("ONNX Runtime must read the graph", where="engine", got=f"{len(graph)} bytes",
                                 remedy="Restore the object store from a backup") from error  # fmt: skip

    def _run(self, inputs: Array) -> Array:
        (sums,) = self._session.run(None, {"x": inputs.astype(np.float32)})
        return np.asarray(sums.astype(np.float64) * self.plan.unit + self.plan.centre, dtype=np.float64)

    def dense(self, matrix: Array) -> Array:
        """Inputs of the first layer, embeddings included."""
        blocks = [self.inputs(matrix)]
        for place, table in zip(self.plan.categories, self._tables, strict=True):
            codes, unseen = matrix[:, place], len(table) - 1
            blocks.append(table[np.where((codes >= 0) & (codes < unseen), codes, unseen).astype(np.intp)])
        return np.hstack(blocks)

    def _sums(self, matrix: Array) -> Array:
        return self._run(self.dense(matrix))

    def _row_sums(self, row: Array) -> Array:
        values = row.tolist()
        inputs = self._row_inputs(values)
        for place, table in zip(self.plan.categories, self._tables, strict=True):
            code = values[place]
            inputs += table[int(code) if 0 <= code < len(table) - 1 else -1].tolist()
        sums: Array = self._run(np.array([inputs]))[0]
        return sums

    def parts(self) -> Mapping[str, bytes]:
        """The graph, the arrays before it, and what they mean."""
        sink = io.BytesIO()
        np.savez(sink, **{name: self.arrays[name] for name in sorted(self.arrays)})  # type: ignore[arg-type]
        return {_GRAPH: self._graph, _ARRAYS: sink.getvalue(), _PLAN: canonical_json(self.plan.to_dict())}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> OnnxNetworkEngine:
        """Read what :meth:`parts` gave."""
        with np.load(io.BytesIO(parts[_ARRAYS]), allow_pickle=False) as stored:
            return cls(NetworkPlan.from_dict(json.loads(parts[_PLAN])), dict(stored), parts[_GRAPH])

    def fingerprint(self) -> str:
        """SHA-256 of the network before the graph, and of the graph."""
        return digest(canonical_json({"before": super().fingerprint(), "graph": digest(self._graph)}))


def convert_network(engine: Any, matrix: Array, *, int8: bool) -> OnnxNetworkEngine:
    """Convert a network, and calibrate its integers on rows.

    Parameters
    ----------
    engine : NetworkEngine
    matrix : ndarray of shape (n, width)
        Training rows; 2,000 of them at most are looked at.
    int8 : bool
        Else float32.
    """
    _runtime()
    graph = _graph_of(engine.plan, engine.arrays)
    before = {name: values for name, values in engine.arrays.items() if name.startswith(("mean", "scale", "embedding"))}
    before = {name: values.astype(np.float32) if name.startswith("embedding") else values
              for name, values in before.items()}  # fmt: skip
    plain = OnnxNetworkEngine(engine.plan, before, graph)
    if not int8:
        return plain
    places = np.linspace(0, len(matrix) - 1, min(len(matrix), _MOST_ROWS)).round().astype(np.intp)
    return OnnxNetworkEngine(engine.plan, before, _quantised(graph, plain.dense(matrix[places]), engine.plan.layers))


def _graph_of(plan: NetworkPlan, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Layers as a graph of float32, from the inputs of the first layer to the sums of the last."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, name = [], [], "x"
    width = arrays["weight_0"].shape[0]
    for layer in range(plan.layers + 1):
        for part in ("weight", "bias"):
            values = np.ascontiguousarray(arrays[f"{part}_{layer}"], dtype=np.float32)
            weights.append(numpy_helper.from_array(values, f"{part}_{layer}"))
        out = f"sums_{layer}"
        nodes.append(helper.make_node("Gemm", [name, f"weight_{layer}", f"bias_{layer}"], [out], name=f"layer_{layer}"))
        name = out
        if layer < plan.layers:
            operator = {"relu": "Relu", "tanh": "Tanh"}[plan.activation]
            nodes.append(helper.make_node(operator, [out], [f"hidden_{layer}"], name=f"activation_{layer}"))
            name = f"hidden_{layer}"
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", size])
            for end, size in (("x", width), (name, len(arrays[f"bias_{plan.layers}"])))]  # fmt: skip
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="retrodict")
    model.ir_version = _FORMAT
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _quantised(graph: bytes, inputs: Array, layers: int) -> bytes:
    """The graph in integers, but for its last layer."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantise

    batches = iter([{"x": inputs.astype(np.float32)}])

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
        def get_next(self) -> Any:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _GRAPH
        quantise(
            onnx.load_from_string(graph), str(path), Reader(), quant_format=QuantFormat.QDQ, reduce_range=True,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, nodes_to_exclude=[f"layer_{layers}"],
        )  # fmt: skip
        model = onnx.load(str(path))
    data: bytes = model.SerializeToString(deterministic=True)
    return data
