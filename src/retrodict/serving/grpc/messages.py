"""Classes of the messages, from descriptors in a pool of our own.

Generated modules were rejected: they register in the one pool of the process, where the same names of a client that is
loaded as well (Triton's, KServe's) end in an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from retrodict.core.errors import MissingExtraError

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    raise MissingExtraError("protobuf", "grpc", needed_for="serving over gRPC") from None

__all__ = ["methods"]

_SERVICES = ("inference.GRPCInferenceService", "retrodict.v1.Decisions", "retrodict.v1.Features")


def methods() -> Iterator[tuple[str, str, Any, Any]]:
    """Path and name of every method, and the classes of its request and its answer."""
    pool = descriptor_pool.DescriptorPool()
    data = (files(__package__) / "messages.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    for name in _SERVICES:
        for method in pool.FindServiceByName(name).methods:
            request, answer = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
            yield f"/{name}/{method.name}", method.name, request, answer
