"""The same trees behind other servers: rows of 36 numbers come with the request, nothing is read and nothing is kept.

``bare`` is the floor: uvicorn, msgspec and LightGBM's prepared call for one row. ``fastapi`` is what its documentation
and LightGBM's say to write. Both run in the peers' environment.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import lightgbm
import numpy as np
import uvicorn

MODEL = os.environ.get("BENCH_MODEL", "")


def bare() -> Any:
    """ASGI without a framework."""
    import msgspec

    class Row(msgspec.Struct):
        values: list[float | None]

    booster = lightgbm.Booster(model_file=MODEL)
    library = ctypes.PyDLL(lightgbm.basic._LIB._name)  # noqa: SLF001
    width = booster.num_feature()
    row, result, length = np.empty(width), np.empty(width + 1), ctypes.c_int64()
    handle = ctypes.c_void_p()
    lightgbm.basic._LIB.LGBM_BoosterPredictForMatSingleRowFastInit(  # noqa: SLF001
        booster._handle, ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(1), ctypes.c_int32(width),  # noqa: SLF001
        ctypes.c_char_p(b"num_threads=1 verbosity=-1"), ctypes.byref(handle),
    )  # fmt: skip
    call = library.LGBM_BoosterPredictForMatSingleRowFast
    arguments = (handle, ctypes.c_void_p(row.ctypes.data), ctypes.byref(length), ctypes.c_void_p(result.ctypes.data))
    decode, encode = msgspec.json.Decoder(Row).decode, msgspec.json.Encoder().encode

    async def app(_: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        row[:] = decode(body).values
        call(*arguments)
        answer = encode({"score": float(result[0])})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    app.booster = booster  # type: ignore[attr-defined]
    return app


def fastapi() -> Any:
    """The usual way."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Row(BaseModel):
        values: list[float | None]

    app = FastAPI()
    booster = lightgbm.Booster(model_file=MODEL, params={"num_threads": 1})

    async def predict(row: Row) -> dict[str, float]:
        return {"score": float(booster.predict(np.array([row.values], dtype=np.float64), num_threads=1)[0])}

    predict.__annotations__["row"] = Row  # a class of this function is not in the globals that names are looked up in
    app.post("/predict")(predict)
    return app


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    app = {"bare": bare, "fastapi": fastapi}[name]()
    uvicorn.run(app, port=port, log_level="error", access_log=False, lifespan="off", interface="asgi3",
                server_header=False, date_header=False)  # fmt: skip
