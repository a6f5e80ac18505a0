"""Every call of kserve's clients, over HTTP and gRPC; run by test_clients in its environment."""

import asyncio
import sys
from functools import partial

sys.path.append(sys.path.pop(0))  # so that this file is not taken for the library of its name

import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from report import CASES, Report

DATATYPES = {"depot": "BYTES", "sent": "BYTES", "weight": "FP64", "express": "BOOL"}


def request(binary):
    inputs = []
    for name, datatype in DATATYPES.items():
        values = [case[name] for case in CASES]
        one = InferInput(name=name, shape=[len(CASES)], datatype=datatype)
        if binary:
            one.set_data_from_numpy(np.array(values, object if datatype == "BYTES" else None), binary_data=True)
        else:
            one.data = values
        inputs.append(one)
    return InferRequest(model_name="promise", request_id="r1", infer_inputs=inputs)


def is_right(answer):
    assert (answer.model_name, answer.id) == ("promise", "r1")
    scores = next(one for one in answer.outputs if one.name == "score").as_numpy()
    assert scores.shape == (len(CASES),)
    assert all(0 < score < 1 for score in scores)


async def main(http_url, grpc_url):
    report, url = Report(), f"http://{http_url}"
    rest, grpc = InferenceRESTClient(RESTConfig(protocol="v2")), InferenceGRPCClient(grpc_url)

    async def truth(answer):
        assert await answer()

    async def false(answer):
        assert not await answer()

    async def over_rest(binary):
        is_right(await rest.infer(url, request(binary), model_name="promise"))

    async def over_grpc(binary):
        is_right(await grpc.infer(request(binary)))

    for title, client, args in (("rest", rest, (url,)), ("grpc", grpc, ())):
        names = "is_server_live", "is_server_ready", "is_model_ready"
        live, up, ready = (partial(getattr(client, name), *args) for name in names)
        await report.run(f"kserve.{title}.is_server_live", partial(truth, live))
        await report.run(f"kserve.{title}.is_server_ready", partial(truth, up))
        await report.run(f"kserve.{title}.is_model_ready", partial(truth, partial(ready, model_name="promise")))
        await report.run(f"kserve.{title}.is_model_ready, of none", partial(false, partial(ready, model_name="promis")))
    for binary in (False, True):
        what = "infer, in bytes" if binary else "infer"
        await report.run(f"kserve.rest.{what}", lambda binary=binary: over_rest(binary))
        await report.run(f"kserve.grpc.{what}", lambda binary=binary: over_grpc(binary))
    await rest.close()
    await grpc.close()
    report.close()


asyncio.run(main(*sys.argv[1:]))
