"""Every call of the stub in open-inference-grpc; run by test_clients in its environment."""

import asyncio
import struct
import sys

import grpc
from open_inference.grpc import protocol
from open_inference.grpc.service import GRPCInferenceServiceStub
from report import CASES, Report

TEXT = "BYTES", "bytes_contents"
FIELDS = {"depot": TEXT, "sent": TEXT, "weight": ("FP64", "fp64_contents"), "express": ("BOOL", "bool_contents")}


def request(raw):
    asked = protocol.ModelInferRequest(model_name="promise", model_version="1", id="r1")
    for name, (datatype, field) in FIELDS.items():
        values = [case[name].encode() if datatype == "BYTES" else case[name] for case in CASES]
        one = asked.inputs.add(name=name, datatype=datatype, shape=[len(CASES)])
        if not raw:
            getattr(one.contents, field).extend(values)
        elif datatype == "BYTES":
            asked.raw_input_contents.append(b"".join(struct.pack("<I", len(value)) + value for value in values))
        else:
            kind = "d" if datatype == "FP64" else "?"
            asked.raw_input_contents.append(struct.pack(f"<{len(values)}{kind}", *values))
    return asked


async def main(_, grpc_url):
    report, stub = Report(), GRPCInferenceServiceStub(grpc.insecure_channel(grpc_url))

    async def truth(name, asked, field):
        assert getattr(getattr(stub, name)(asked), field)

    async def server():
        assert stub.ServerMetadata(protocol.ServerMetadataRequest()).name == "retrodict"

    async def model():
        answer = stub.ModelMetadata(protocol.ModelMetadataRequest(name="promise", version="1"))
        assert {one.name: one.datatype for one in answer.inputs} == {name: kind for name, (kind, _) in FIELDS.items()}

    async def infer(raw):
        answer = stub.ModelInfer(request(raw))
        assert (answer.model_name, answer.model_version, answer.id) == ("promise", "1", "r1")
        place = [one.name for one in answer.outputs].index("score")
        if raw:
            scores = struct.unpack(f"<{len(CASES)}d", answer.raw_output_contents[place])
        else:
            scores = answer.outputs[place].contents.fp64_contents
        assert len([score for score in scores if 0 < score < 1]) == len(CASES)

    async def unknown():
        try:
            stub.ModelMetadata(protocol.ModelMetadataRequest(name="promis"))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
        else:
            raise AssertionError("it was answered")

    title = "open_inference.grpc"
    await report.run(f"{title}.ServerLive", lambda: truth("ServerLive", protocol.ServerLiveRequest(), "live"))
    await report.run(f"{title}.ServerReady", lambda: truth("ServerReady", protocol.ServerReadyRequest(), "ready"))
    ready = protocol.ModelReadyRequest(name="promise")
    await report.run(f"{title}.ModelReady", lambda: truth("ModelReady", ready, "ready"))
    await report.run(f"{title}.ServerMetadata", server)
    await report.run(f"{title}.ModelMetadata", model)
    await report.run(f"{title}.ModelMetadata, of none", unknown)
    await report.run(f"{title}.ModelInfer", lambda: infer(raw=False))
    await report.run(f"{title}.ModelInfer, in bytes", lambda: infer(raw=True))
    report.close()


asyncio.run(main(*sys.argv[1:]))
