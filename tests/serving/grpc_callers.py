"""Callers of gRPC for the tests: by the project's own messages, in a process, or against one application."""

import asyncio
import contextlib

import grpc
from tests.serving.test_app import Client

from retrodict.serving.grpc.messages import methods
from retrodict.serving.grpc.server import GrpcServer

METHODS = {name: (path, request, answer) for path, name, request, answer in methods()}
SIMULATED = (("retrodict-time", "2024-02-20T10:00:00Z"),)
CASE = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
_FIELDS = {str: ("BYTES", "bytes_contents"), float: ("FP64", "fp64_contents"), bool: ("BOOL", "bool_contents")}


def message(method, **fields):
    return METHODS[method][1](**fields)


def put(value, plain):
    """Set a value of a decision's or a feature's message."""
    kind = {str: "text", bool: "flag", int: "integer", float: "number"}[type(plain)]
    setattr(value, kind, plain)


def decide(case=CASE, **fields):
    """Message for a decision about a parcel."""
    asked = message("Decide", **{"policy": "promise", "key": "p1", **fields})
    put(asked.entities["depot"], case["depot"])
    for name in ("weight", "express", "sent"):
        put(asked.context[name], case[name])
    return asked


def infer(cases, *, raw=False, **fields):
    """Message with the tensors of some cases, typed or in bytes."""
    import numpy as np

    from retrodict.serving.open_inference import pack_texts

    asked = message("ModelInfer", **{"model_name": "promise", **fields})
    for name, one in cases[0].items():
        datatype, field = _FIELDS[type(one)]
        values = [case[name] for case in cases]
        tensor = asked.inputs.add(name=name, datatype=datatype, shape=[len(cases)])
        plain = [value.encode() for value in values] if datatype == "BYTES" else values
        if not raw:
            getattr(tensor.contents, field).extend(plain)
        elif datatype == "BYTES":
            asked.raw_input_contents.append(pack_texts(plain))
        else:
            asked.raw_input_contents.append(np.array(values).tobytes())
    return asked


def outputs(answer):
    """Values of an answer's tensors by name, whichever way they came."""
    import numpy as np

    columns = {}
    for place, one in enumerate(answer.outputs):
        if answer.raw_output_contents:
            data, values = answer.raw_output_contents[place], []
            if one.datatype == "FP64":
                values = np.frombuffer(data, "<f8").tolist()
            while one.datatype == "BYTES" and data:
                size = int.from_bytes(data[:4], "little")
                values, data = [*values, data[4 : 4 + size].decode()], data[4 + size :]
        else:
            values = [*one.contents.fp64_contents, *(text.decode() for text in one.contents.bytes_contents)]
        columns[one.name] = values
    return columns


class GrpcCaller:
    """Asks one address; an error is its code's name and its text."""

    def __init__(self, address, credentials=None, options=()):
        options = [("grpc.enable_retries", 0), *options]
        self.channel = (grpc.insecure_channel(address, options) if credentials is None
                        else grpc.secure_channel(address, credentials, options))  # fmt: skip

    def send(self, name, data, metadata=SIMULATED, timeout=20):
        """Answer to some bytes as a message, with the trailing metadata."""
        path, _, answer = METHODS[name]
        call = self.channel.unary_unary(path, response_deserializer=answer.FromString)
        try:
            got, done = call.with_call(data, metadata=metadata, timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details(), dict(error.trailing_metadata() or ())
        return "OK", got, dict(done.trailing_metadata() or ())

    def ask(self, asked, name=None, **options):
        """Answer to a message; AssertionError if there is none."""
        name = name or next(name for name, (_, kind, _) in METHODS.items() if type(asked) is kind)
        code, got, _ = self.send(name, asked.SerializeToString(), **options)
        assert code == "OK", f"{code}: {got}"
        return got

    def refuse(self, asked, **options):
        """Code, text and trailing metadata of a refusal."""
        name = next(name for name, (_, kind, _) in METHODS.items() if type(asked) is kind)
        code, *rest = self.send(name, asked.SerializeToString(), **options)
        assert code != "OK", rest
        return code, *rest


@contextlib.asynccontextmanager
async def serving(workspace, **limits):
    """One application over gRPC, in this event loop, and a channel to it."""
    client = Client(workspace, **{"batch_body": 1 << 16, **limits})
    server = GrpcServer(client.app, "127.0.0.1:0", None)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield client.app, server, channel
    finally:
        await server.stop()
        await client.close()


async def ask(channel, asked, metadata=SIMULATED, seconds=20):
    """Code and answer, or text, of one call."""
    path, kind, answer = next(entry for entry in METHODS.values() if type(asked) is entry[1])
    call = channel.unary_unary(path, request_serializer=kind.SerializeToString, response_deserializer=answer.FromString)
    try:
        return "OK", await call(asked, metadata=metadata, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details()


def run(work):
    return asyncio.run(work)
