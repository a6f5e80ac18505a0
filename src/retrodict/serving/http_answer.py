"""What goes back to a caller: a body and its status, and which status an error has."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from retrodict.core.errors import InputError, NotFoundError, RefusedError, RetrodictError, RetryableError
from retrodict.serving.deadlines import GoneError, LateError
from retrodict.serving.idempotency import RequestUnderWayError

__all__ = ["REPLAYED", "RETRY", "HttpAnswer", "RefusedRequestError", "status_of"]

REPLAYED = ((b"idempotency-replayed", b"true"),)
RETRY = ((b"retry-after", b"1"),)

_json = msgspec.json.Encoder()


class HttpAnswer(NamedTuple):
    """Body, status and headers of an answer, and the type of its content."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    kind: bytes = b"application/json"


class RefusedRequestError(Exception):
    """An answer that is not a decision: status, text, extra headers."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.answer = HttpAnswer(_json.encode({"error": text}), status, headers)


_STATUSES: tuple[tuple[type[RetrodictError], int], ...] = (
    (NotFoundError, 404), (InputError, 400), (RefusedError, 409), (RequestUnderWayError, 409), (LateError, 504),
    (GoneError, 499), (RetryableError, 503),
)  # fmt: skip


def status_of(error: RetrodictError) -> int:
    """Status that a caller gets for an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
