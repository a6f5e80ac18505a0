"""Every call of tritonclient, over HTTP and gRPC, with threads and asyncio; run by test_clients in its environment."""

import asyncio
import inspect
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from report import CASES, Report
from tritonclient.utils import InferenceServerException

DATATYPES = {"depot": "BYTES", "sent": "BYTES", "weight": "FP64", "express": "BOOL"}


def tensors(module, binary):
    inputs = []
    for name, datatype in DATATYPES.items():
        values = np.array([case[name] for case in CASES], object if datatype == "BYTES" else None)
        one = module.InferInput(name, [len(CASES)], datatype)
        one.set_data_from_numpy(values, **binary)
        inputs.append(one)
    return inputs


def is_right(answer):
    scores, decisions = answer.as_numpy("score"), answer.as_numpy("decision")
    assert scores.dtype == np.float64
    assert scores.shape == decisions.shape == (len(CASES),)
    assert all(0 < score < 1 for score in scores)
    assert {word.decode() if isinstance(word, bytes) else word for word in decisions} <= {"ok", "warn"}


async def ask(report, title, module, client):
    """Calls that both forms of both clients have."""

    async def do(name, *args, **options):
        answer = getattr(client, name)(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    def field(answer, name):
        return answer[name] if isinstance(answer, dict) else getattr(answer, name)

    async def check(name, work):
        await report.run(f"{title}.{name}", work)

    async def truth(name, *args):
        assert await do(name, *args)

    async def unknown_model():
        assert not await do("is_model_ready", "promis")

    async def metadata():
        assert field(await do("get_server_metadata"), "name") == "retrodict"

    async def model():
        for version in ("", "1"):
            answer = await do("get_model_metadata", "promise", version)
            assert {field(one, "name"): field(one, "datatype") for one in field(answer, "inputs")} == DATATYPES

    async def config():
        answer = await do("get_model_config", "promise")
        answer = answer.config if hasattr(answer, "config") else answer
        assert field(answer, "max_batch_size") == 1000

    async def index():
        answer = await do("get_model_repository_index")
        models = answer if isinstance(answer, list) else answer.models
        assert [(field(one, "name"), field(one, "state")) for one in models] == [("promise", "READY")]

    async def statistics():
        for args in (("promise", "1"), ("promise",), ()):
            (one,) = field(await do("get_inference_statistics", *args), "model_stats")
            assert int(field(one, "inference_count")) > 0

    async def refused(name, *args):
        try:
            await do(name, *args)
        except InferenceServerException as error:
            assert error.message()
        else:
            raise AssertionError("it was answered")

    async def infer():
        for binary in ({"binary_data": True}, {"binary_data": False}) if "http" in title else ({},):
            for version in ("", "1"):
                answer = await do("infer", "promise", tensors(module, binary), model_version=version, request_id="r1")
                is_right(answer)
                response = answer.get_response()
                assert field(response, "id") == "r1"
        output = module.InferRequestedOutput("score")
        answer = await do("infer", "promise", tensors(module, {}), outputs=[output])
        assert answer.as_numpy("score").shape == (len(CASES),)
        assert answer.as_numpy("decision") is None

    async def wrong():
        await refused("infer", "promise", tensors(module, {})[1:])

    for name, args in (("is_server_live", ()), ("is_server_ready", ()), ("is_model_ready", ("promise", "1"))):
        await check(name, lambda name=name, args=args: truth(name, *args))
    await check("is_model_ready, of none", unknown_model)
    await check("get_server_metadata", metadata)
    await check("get_model_metadata", model)
    await check("get_model_config", config)
    await check("get_model_repository_index", index)
    await check("infer", infer)
    await check("infer, a wrong one", wrong)
    await check("get_inference_statistics", statistics)
    for name in ("load_model", "unload_model"):
        await check(f"{name}, refused", lambda name=name: refused(name, "promise"))
    for name in ("get_trace_settings", "get_log_settings", "get_system_shared_memory_status"):
        await check(f"{name}, refused", lambda name=name: refused(name))


async def ask_later(report, http, grpc):
    """What only the callers with threads have."""

    async def async_http():
        is_right(http.async_infer("promise", tensors(over_http, {})).get_result())

    async def async_grpc():
        answers = []
        grpc.async_infer("promise", tensors(over_grpc, {}), lambda result, error: answers.append((result, error)))
        while not answers:
            await asyncio.sleep(0.01)
        is_right(answers[0][0])

    async def stream():
        answers = []
        grpc.start_stream(lambda result, error: answers.append((result, error)))
        for _ in range(3):
            grpc.async_stream_infer("promise", tensors(over_grpc, {}))
        grpc.async_stream_infer("promise", tensors(over_grpc, {})[1:])
        while len(answers) < 4:
            await asyncio.sleep(0.01)
        grpc.stop_stream()
        for result, error in answers[:3]:
            assert error is None
            is_right(result)
        assert "must be there" in answers[3][1].message()

    await report.run("tritonclient.http.async_infer", async_http)
    await report.run("tritonclient.grpc.async_infer", async_grpc)
    await report.run("tritonclient.grpc.async_stream_infer", stream)


async def main(http_url, grpc_url):
    report = Report()
    http, grpc = over_http.InferenceServerClient(http_url), over_grpc.InferenceServerClient(grpc_url)
    await ask(report, "tritonclient.http", over_http, http)
    await ask(report, "tritonclient.grpc", over_grpc, grpc)
    await ask_later(report, http, grpc)
    async with over_http_aio.InferenceServerClient(http_url) as client:
        await ask(report, "tritonclient.http.aio", over_http_aio, client)
    async with over_grpc_aio.InferenceServerClient(grpc_url) as client:
        await ask(report, "tritonclient.grpc.aio", over_grpc_aio, client)

        async def stream():
            async def asked():
                for _ in range(3):
                    yield {"model_name": "promise", "inputs": tensors(over_grpc_aio, {})}

            results = [pair async for pair in client.stream_infer(asked())]
            assert len(results) == 3
            for result, error in results:
                assert error is None
                is_right(result)

        await report.run("tritonclient.grpc.aio.stream_infer", stream)
    report.close()


asyncio.run(main(*sys.argv[1:]))
