"""Every call of open-inference-openapi and its asyncio twin; run by test_clients in its environment."""

import asyncio
import inspect
import sys

from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.types import InferenceRequest
from report import CASES, Report

DATATYPES = {"depot": "BYTES", "sent": "BYTES", "weight": "FP64", "express": "BOOL"}


async def ask(report, title, client):
    async def do(name, *args, **options):
        answer = getattr(client, name)(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    request = InferenceRequest.parse_obj({"id": "r1", "inputs": [
        {"name": name, "datatype": datatype, "shape": [len(CASES)], "data": [case[name] for case in CASES]}
        for name, datatype in DATATYPES.items()]})  # fmt: skip

    async def model(name, *version):
        answer = await do(name, "promise", *version)
        assert {one.name: one.datatype for one in answer.inputs} == DATATYPES
        assert answer.versions == ["1"]

    async def infer(name, *version):
        answer = await do(name, "promise", *version, request=request)
        outputs = {one.name: one.data for one in answer.outputs}
        assert answer.id == "r1"
        assert len(outputs["score"].__root__ if hasattr(outputs["score"], "__root__") else outputs["score"]) == len(
            CASES
        )

    async def server():
        assert (await do("read_server_metadata")).name == "retrodict"

    async def refused(name, *args):
        try:
            await do(name, *args)
        except Exception as error:
            assert getattr(error, "status_code", 0) == 404, error
        else:
            raise AssertionError("it was answered")

    for name, args in {"check_server_liveness": (), "check_server_readiness": (), "check_model_readiness": ("promise",),
                       "check_model_version_readiness": ("promise", "1")}.items():  # fmt: skip
        await report.run(f"{title}.{name}", lambda name=name, args=args: do(name, *args))
    await report.run(f"{title}.check_model_readiness, of none", lambda: refused("check_model_readiness", "promis"))
    await report.run(f"{title}.read_server_metadata", server)
    await report.run(f"{title}.read_model_metadata", lambda: model("read_model_metadata"))
    await report.run(f"{title}.read_model_version_metadata", lambda: model("read_model_version_metadata", "1"))
    await report.run(f"{title}.model_infer", lambda: infer("model_infer"))
    await report.run(f"{title}.model_version_infer", lambda: infer("model_version_infer", "1"))


async def main(http_url, _):
    report, url = Report(), f"http://{http_url}"
    await ask(report, "open_inference.openapi", OpenInferenceClient(base_url=url))
    await ask(report, "open_inference.openapi.async", AsyncOpenInferenceClient(base_url=url))
    report.close()


asyncio.run(main(*sys.argv[1:]))
