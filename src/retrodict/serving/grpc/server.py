"""gRPC beside HTTP, in the event loop of the same process: messages in, the application, messages out.

grpclib and h2 were rejected: in Python, framing alone would cost more than a decision. A caller has ten seconds to send
its one message, as a body has; what it is told to be too much (streams, bytes, metadata) is bounded by gRPC itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any, NoReturn

import msgspec

from retrodict.core.errors import BusyError, InputError, MissingExtraError
from retrodict.serving.app import PREPARE, DecisionApp
from retrodict.serving.certificate import Certificate
from retrodict.serving.connection import ARRIVED, COMPLETE, HEAD_S
from retrodict.serving.http_request import BODY_S, DEADLINE_HEADER, ID_HEADER, PRIORITY_HEADER, TIME_HEADER

try:
    import grpc
    from google.protobuf.message import DecodeError
except ImportError:
    raise MissingExtraError("grpcio", "grpc", needed_for="serving over gRPC") from None

from retrodict.serving.grpc.calls import METHODS, Headers, Method, Reply

__all__ = ["GrpcServer"]

_DRAIN_S = 10.0
_STREAMS = 1_000  # of one connection; a new caller who begins with more has them reset, which nobody counts
_IDLE_S = 60.0  # between two messages of a stream
_METADATA = 16 << 10  # bytes
_SERVED = (b"server-timing", b"retrodict-served-by")
_TEXT = 1_000  # characters of an error: one longer than the metadata its caller takes would arrive as another one
_LONGEST_S = 900_000.0
_TRACE = (b"traceparent", b"tracestate")
_HEADERS = {name.decode(): name for name in (b"authorization", ID_HEADER, PRIORITY_HEADER, TIME_HEADER, *_TRACE)}
_CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED", 409: "ALREADY_EXISTS", 413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip

_log = logging.getLogger(__name__)
_error = msgspec.json.Decoder(dict[str, str]).decode


class GrpcServer:
    """Answers gRPC on a port that other workers may share (``SO_REUSEPORT``); for the event loop it is made in.

    Parameters
    ----------
    app : DecisionApp
    address : str
        ``host:port``.
    certificate : Certificate, optional
        That of HTTP.

    Attributes
    ----------
    port : int
        That it listens on.

    Raises
    ------
    BusyError
        If the address cannot be listened on.
    """

    def __init__(self, app: DecisionApp, address: str, certificate: Certificate | None) -> None:
        self._app = app
        self._running: set[asyncio.Task[None]] = set()
        handlers = {path: grpc.stream_stream_rpc_method_handler(partial(self._converse, method)) if "Stream" in path
                    else grpc.stream_unary_rpc_method_handler(partial(self._answer, method))
                    for path, method in METHODS.items()}  # fmt: skip
        self._server = grpc.aio.server(handlers=[_Methods(handlers)], options=_options(app.limits.batch_body))
        try:
            if certificate is not None:
                credentials = grpc.dynamic_ssl_server_credentials(
                    grpc.ssl_server_certificate_configuration([certificate.pems]), _renewed(certificate)
                )
                self.port: int = self._server.add_secure_port(address, credentials)
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:  # its own text names neither address nor reason
            raise BusyError("the address for gRPC must be free and open to this user", where=address,
                            remedy="Name another port with --grpc-port", got="another one") from error  # fmt: skip

    async def start(self) -> None:
        """Take calls from here on."""
        await self._server.start()

    async def stop(self) -> None:
        """Answer what has come, and take nothing more."""
        await self._server.stop(_DRAIN_S)
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(self, method: Method, messages: AsyncIterator[bytes], context: Any) -> bytes:
        arrived = perf_counter_ns()
        data = await _next_message(messages, context, BODY_S)
        answer, reply, text = await self._ask(method, data, context, arrived)
        if not text:
            return bytes(answer.SerializeToString())
        return await _refuse(context, reply, text)

    async def _converse(self, method: Method, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answer one message after the other; what is wrong with one ends nothing, unless its caller may not ask."""
        while (data := await _next_message(messages, context, _IDLE_S)) is not None:
            answer, reply, text = await self._ask(method, data, context, perf_counter_ns())
            if reply.status in (401, 403):
                await _refuse(context, reply, text)
            answer.error_message = text
            yield answer.SerializeToString()

    async def _ask(self, method: Method, data: bytes | None, context: Any, arrived: int) -> tuple[Any, Reply, str]:
        """Answer, how it came about, and what is wrong, if anything is."""
        answer, reply = method.answer(), Reply()
        try:
            reply, request = await self._exchange(method, data, context, arrived)
            if reply.status not in method.accepts:
                return answer, reply, _error(reply.body)["error"]
            method.fill(answer, request, reply)
        except Exception:  # noqa: BLE001  # the last resort: grpc would send its text
            _log.exception("call failed")
            return method.answer(), Reply(), "the server failed to answer; its log says why"
        return answer, reply, ""

    async def _exchange(self, method: Method, data: bytes | None, context: Any, arrived: int) -> tuple[Reply, Any]:
        headers, request, fault = _headers(context), method.request(), None
        try:
            request.ParseFromString(data)
        except (DecodeError, TypeError):  # no message at all
            fault = InputError("a call must have one message, of its method", where="message", remedy="Send that one",
                               got="none, or other bytes")  # fmt: skip
            request = method.request()
        path = method.path(request)
        if fault is None and "%" in path.split("/"):
            fault = InputError("a call must name what it asks", where="message", got="an empty name",
                               remedy="Set the field of the policy, model or service")  # fmt: skip
        exchange = _Exchange(method, request, headers, fault)
        scope = {"method": "GET" if method.body is None else "POST", "path": path, "headers": headers,
                 ARRIVED: arrived, COMPLETE: perf_counter_ns(), PREPARE: exchange.prepare}  # fmt: skip
        task = asyncio.create_task(self._app(scope, exchange.receive, exchange.send))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)  # what is being recorded is recorded, also for a caller who has left
        except asyncio.CancelledError:
            exchange.disconnected = True
            raise
        facts = [(name, exchange.reply.headers[name]) for name in _SERVED if name in exchange.reply.headers]
        context.set_trailing_metadata([(name.decode(), value.decode()) for name, value in facts])
        return exchange.reply, request


def _renewed(certificate: Certificate) -> Callable[[], Any]:
    """What gRPC asks before each handshake: the certificate, if it is another one than the last time."""
    pems = certificate.pems

    def look() -> Any:
        nonlocal pems
        if pems is certificate.pems:
            return None
        pems = certificate.pems
        return grpc.ssl_server_certificate_configuration([pems])

    return look


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped
    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


class _Exchange:
    """One request as the application takes it; ``disconnected`` once its caller has left."""

    more_body = disconnected = False

    def __init__(self, method: Method, request: Any, headers: Headers, fault: InputError | None) -> None:
        self._method, self._request, self._headers, self._fault = method, request, headers, fault
        self._body, self.reply = b"", Reply()

    def prepare(self) -> None:
        """Make the body, for a caller who may ask."""
        if self._fault is not None:
            raise self._fault
        if self._method.body is not None:
            self._body = self._method.body(self._request, self._headers)

    async def receive(self) -> Mapping[str, Any]:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.reply.status, self.reply.headers = message["status"], dict(message["headers"])
        else:
            self.reply.body = message["body"]


async def _next_message(messages: AsyncIterator[bytes], context: Any, patience_s: float) -> bytes | None:
    """Bytes of the next message; None where there is none. Who takes too long is told so."""
    try:
        async with asyncio.timeout(patience_s):
            return await anext(messages, None)
    except TimeoutError:
        return await _refuse(context, Reply(408), f"a message must arrive within {patience_s:.0f} s")


async def _refuse(context: Any, reply: Reply, text: str) -> NoReturn:
    """End a call with the code of a reply's status, and when to try again, if that is known."""
    code, trailers = _CODES.get(reply.status, "INTERNAL"), tuple[tuple[str, str], ...]()
    if b"retry-after" in reply.headers:
        seconds = reply.headers[b"retry-after"].decode()
        trailers = ("retry-after", seconds), ("grpc-retry-pushback-ms", f"{seconds}000")
        code = "ABORTED" if reply.status == 409 else code
    await context.abort(grpc.StatusCode[code], text[:_TEXT], trailers)
    raise AssertionError  # abort has raised


def _headers(context: Any) -> Headers:
    """Metadata that are headers, and the deadline as one."""
    headers = [(_HEADERS[name], value if isinstance(value, bytes) else value.encode())
               for name, value in context.invocation_metadata() or () if name in _HEADERS]  # fmt: skip
    remaining = context.time_remaining()
    if remaining is not None and remaining < _LONGEST_S:
        headers.append((DEADLINE_HEADER, f"{max(remaining, 0.0) * 1e3:.3f}".encode()))
    return headers


def _options(message_bytes: int) -> Sequence[tuple[str, int]]:
    minute = 60_000
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_metadata_size", _METADATA), ("grpc.absolute_max_metadata_size", _METADATA),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # as it is: bytes that unfold are not for us
        ("grpc.server_handshake_timeout_ms", int(HEAD_S * 1e3)),
        ("grpc.keepalive_time_ms", minute), ("grpc.keepalive_timeout_ms", minute // 3),
        ("grpc.max_connection_idle_ms", 5 * minute),
        # So that callers come to workers that were started later, and who takes nothing is let go of.
        ("grpc.max_connection_age_ms", 30 * minute), ("grpc.max_connection_age_grace_ms", minute // 2),
    ]  # fmt: skip
