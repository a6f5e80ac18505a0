"""Boosted trees of LightGBM, kept as its own text format.

A batch goes through ``Booster.predict``. One row goes through the single-row functions of LightGBM's C API, which
prepare everything once: several times faster than ``Booster.predict`` and bit for bit the same, which tests hold.

The text is kept without its ``parameters`` section. The trees do not depend on the number of threads, but that section
records it, so that two equal models would have two hashes; what was asked for belongs to the run, not to the model.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import lightgbm
import numpy as np
from lightgbm.basic import _LIB  # type: ignore[attr-defined]  # the loaded library; LightGBM exports no public handle of it
from numpy.typing import NDArray

from retrodict.core.errors import InputError, IntegrityError, InternalError
from retrodict.core.identity import digest
from retrodict.models.engines.base import check_matrix, check_row

__all__ = ["TreesEngine", "tree_hash"]

_FILE = "trees.txt"
_TREES_END = "\nend of trees\n"
_PARAMETERS = "\nparameters:\n"
_FLOAT64 = 1
# Numbers of C_API_PREDICT_NORMAL, _RAW_SCORE and _CONTRIB in LightGBM's c_api.h.
_PREDICT: dict[str, int] = {"score": 0, "margin": 1, "contributions": 3}

# Called with Python's lock held: a row takes microseconds, while to give the lock away and to win it back under load
# takes a switch interval (milliseconds). Contributions take long enough to be worth it and use the ordinary handle.
_HOLDING_THE_LOCK = ctypes.PyDLL(_LIB._name)  # noqa: SLF001  # path of the library LightGBM itself loaded


def _text_until(text: str, mark: str) -> str:
    head, found, _ = text.partition(mark)
    return head + mark[:1] if found else text


def tree_hash(text: str) -> str:
    """SHA-256 of the trees of a LightGBM model: everything up to ``end of trees``, so nothing of its parameters.

    Equal for any number of training threads; another row order, seed or value gives another one.

    Raises
    ------
    InputError
        If the text is not a LightGBM model.
    """
    head, found, _ = text.partition(_TREES_END)
    if not found or not head.startswith("tree\n"):
        raise InputError("a LightGBM model text begins with 'tree' and holds 'end of trees'", where="tree hash")
    return digest(head.encode())


class _FastRow:
    """One prepared single-row prediction: for one thread at a time, since it writes to buffers of its own."""

    __slots__ = ("__weakref__", "_arguments", "_call", "_length", "_result", "_row")

    def __init__(
        self, booster: lightgbm.Booster, width: int, what: Literal["score", "margin", "contributions"]
    ) -> None:
        library = _LIB if what == "contributions" else _HOLDING_THE_LOCK
        self._row = np.empty(width, dtype=np.float64)
        self._result = np.empty(width + 1, dtype=np.float64)
        self._length = ctypes.c_int64()
        handle = ctypes.c_void_p()
        _check(_LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, ctypes.c_int(_PREDICT[what]), ctypes.c_int(0), ctypes.c_int(-1),  # noqa: SLF001  # as above
            ctypes.c_int(_FLOAT64), ctypes.c_int32(width), ctypes.c_char_p(b"num_threads=1 verbosity=-1"),
            ctypes.byref(handle),
        ))  # fmt: skip
        # The prepared call points into the booster, so the finalizer keeps the booster until it has run.
        weakref.finalize(self, _free, handle, booster).atexit = False
        self._call = library.LGBM_BoosterPredictForMatSingleRowFast
        self._arguments = (
            handle,
            ctypes.c_void_p(self._row.ctypes.data),
            ctypes.byref(self._length),
            ctypes.c_void_p(self._result.ctypes.data),
        )

    def __call__(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the result buffer, valid until the next call."""
        self._row[:] = row
        if self._call(*self._arguments):
            _check(-1)
        return self._result


def _free(handle: ctypes.c_void_p, _booster: lightgbm.Booster) -> None:
    _LIB.LGBM_FastConfigFree(handle)


def _check(code: int) -> None:
    if code:
        raise InternalError(f"LightGBM refuses a row ({_LIB.LGBM_GetLastError().decode()})", where="engine")


class TreesEngine:
    """LightGBM trees of a binary objective.

    Safe for threads: each thread prepares its own single-row calls on first use.

    Parameters
    ----------
    text : str
        LightGBM model text, from a trusted or verified source: its C parser may crash on damaged text.

    Raises
    ------
    IntegrityError
        If LightGBM cannot read the text.
    InputError
        If the model has another objective than ``binary``.
    """

    kind: ClassVar[str] = "lightgbm"

    def __init__(self, text: str) -> None:
        self._text = _text_until(text, _PARAMETERS)
        self._trees = tree_hash(self._text)
        try:
            self._booster = lightgbm.Booster(model_str=self._text)
        except lightgbm.basic.LightGBMError as error:
            raise IntegrityError(f"LightGBM cannot read the model ({error})", where="engine") from error
        if "\nobjective=binary " not in self._text:
            raise InputError("this engine serves models of the objective 'binary'", where="engine",
                             remedy="Train with retrodict.models.fit_lightgbm")  # fmt: skip
        self._width = int(self._booster.num_feature())
        self._local = threading.local()

    @property
    def text(self) -> str:
        """Model text without parameters."""
        return self._text

    @property
    def width(self) -> int:
        """Number of features."""
        return self._width

    @property
    def trees(self) -> int:
        """Number of trees."""
        return int(self._booster.num_trees())

    def _fast(self, what: Literal["score", "margin", "contributions"]) -> _FastRow:
        fast: _FastRow | None = getattr(self._local, what, None)
        if fast is None:
            fast = _FastRow(self._booster, self._width, what)
            setattr(self._local, what, fast)
        return fast

    def _predict(self, matrix: NDArray[np.float64], **how: Any) -> NDArray[np.float64]:
        check_matrix(matrix, self._width)
        if not len(matrix):
            return np.empty(0)
        return np.asarray(self._booster.predict(matrix, **how), dtype=np.float64)

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, shape (n,)."""
        return self._predict(matrix)

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Probability of one row."""
        check_row(row, self._width)
        return float(self._fast("score")(row)[0])

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds, shape (n,)."""
        return self._predict(matrix, raw_score=True)

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of one row."""
        check_row(row, self._width)
        return float(self._fast("margin")(row)[0])

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Exact Shapley values along the trees (TreeSHAP, Lundberg et al. 2018), then the expected margin.

        The background is the training rows as the trees counted them, so it is part of the model.
        """
        check_row(row, self._width)
        return self._fast("contributions")(row).copy()

    def parts(self) -> Mapping[str, bytes]:
        """One text file."""
        return {_FILE: self._text.encode()}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> TreesEngine:
        """Read what :meth:`parts` gave."""
        return cls(parts[_FILE].decode())

    def fingerprint(self) -> str:
        """:func:`tree_hash` of the text."""
        return self._trees
