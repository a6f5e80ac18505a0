"""Arrays inside JSON: dtype, shape and the little-endian bytes as base64; nothing in it can run, as a pickle could."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import IntegrityError

_TYPES = {"<f8": np.float64, "<i8": np.int64}


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """Plain JSON form of a float64 or int64 array."""
    kind = "<i8" if array.dtype.kind in "iu" else "<f8"
    data = np.ascontiguousarray(array, dtype=kind).tobytes()
    return {"dtype": kind, "shape": list(array.shape), "base64": base64.b64encode(data).decode()}


def unpack(body: Mapping[str, Any]) -> NDArray[Any]:
    """Inverse of ``pack``.

    Raises
    ------
    IntegrityError
        If the bytes do not fit the dtype and shape.
    """
    try:
        flat = np.frombuffer(base64.b64decode(body["base64"], validate=True), dtype=body["dtype"])
        return flat.reshape(body["shape"]).astype(_TYPES[body["dtype"]])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError("a stored array must have the bytes of its dtype and shape", where="estimator",
                             got=type(error).__name__, remedy="Restore it from a backup") from error  # fmt: skip
