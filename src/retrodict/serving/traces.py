"""Spans of requests for OpenTelemetry (extra ``otel``), made after each answer from times that were measured anyway.

Nothing is entered or left on the way to an answer, so that a server without traces pays for none; the usual middleware
was rejected for that. A thread sends the spans; what a collector does not take in time is dropped.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodict.core.config import Config
from retrodict.core.errors import ConfigurationError, MissingExtraError
from retrodict.decisions.records import DecisionRecord
from retrodict.serving.http_answer import RefusedRequestError
from retrodict.serving.http_request import HttpRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Traces", "open_traces"]

_SWITCHES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER")
_PROTOCOL = "http/protobuf"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")  # the first that is set counts
_END_S = 2.0  # in which a collector must take the last spans when the server ends
_IDS = 100  # of a batch, which its span names

_log = logging.getLogger(__name__)


class Traces:
    """Makes the span of each request of one process, with one below it for every stage.

    Parameters
    ----------
    provider : TracerProvider
        Samples the spans and sends them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace

        self._provider, self._api, self._extract = provider, trace, propagate.extract
        self._tracer = provider.get_tracer("retrodict")

    def note(self, request: HttpRequest, records: Sequence[DecisionRecord], began: int) -> None:
        """Note what was decided for a request and recorded from a moment of ``time.perf_counter_ns()`` until now."""
        request.decided = [*(request.decided or ()), (records, began, time.perf_counter_ns())]

    def begin(self, request: HttpRequest) -> str:
        """Begin the span of a request that other servers are asked for; its ``traceparent``."""
        if request.span is None:
            request.span = self._start(
                request, self._extract(_headers(request)), time.time_ns() - time.perf_counter_ns()
            )
        context = request.span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def _start(self, request: HttpRequest, parent: Any, epoch: int) -> Any:
        method = request.scope["method"]
        name, start = f"{method} {request.route}".rstrip(), epoch + request.arrived
        return self._tracer.start_span(
            name, parent, self._api.SpanKind.SERVER, {"http.request.method": method}, start_time=start
        )

    def end(self, request: HttpRequest, status: int, failure: Exception | None) -> None:
        """Make the spans of a request that was answered just now; nothing in them is of what a caller sent."""
        ended = time.perf_counter_ns()
        epoch, scope, decided = time.time_ns() - ended, request.scope, request.decided or ()
        attributes = {"http.request.method": scope["method"], "http.response.status_code": status}
        if request.route:
            attributes["http.route"] = request.route
        if failure is not None:
            attributes["error.type"] = (
                str(status) if isinstance(failure, RefusedRequestError) else type(failure).__name__
            )
        if records := [record for group, *_ in decided for record in group]:
            attributes |= _describe(records)
        if request.origin is not None:
            attributes["retrodict.request_id"] = request.origin[0]
        for name, parent in request.origins:  # of each request that a server of decisions asks for, in its own trace
            span = self._start(request, self._extract({"traceparent": parent}), epoch)
            span.set_attributes({**attributes, "retrodict.request_id": name})
            self._end(span, decided, status, epoch, ended)
        if not request.origins:
            span = request.span or self._start(request, self._extract(_headers(request)), epoch)
            span.set_attributes(attributes)
            self._end(span, decided, status, epoch, ended)

    def _end(self, span: Any, decided: Sequence[Any], status: int, epoch: int, ended: int) -> None:
        if not span.is_recording():
            return
        if status >= 500:
            span.set_status(self._api.StatusCode.ERROR)
        below = self._api.set_span_in_context(span)
        for group, began, recorded in decided if any(one[1] for one in decided) else ():
            spent: Counter[str] = Counter()
            for record in group:
                spent.update(record.stages)
            moment = began - 1_000 * spent.total()  # they follow each other, and the record follows them
            for stage, duration in [*((name, 1_000 * us) for name, us in spent.items()), ("record", recorded - began)]:
                child = self._tracer.start_span(stage, below, start_time=epoch + moment)
                moment += duration
                child.end(epoch + moment)
        span.end(epoch + ended)

    def close(self) -> None:
        """Send what waits, as far as the collector takes it within two seconds."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_END_S)


def _headers(request: HttpRequest) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}


def _describe(records: Sequence[DecisionRecord]) -> dict[str, Any]:
    first = records[0]
    facts = {"policy": first.policy, "revision": first.revision, "model": first.model, "cases": len(records),
             "decision_ids": [record.id for record in records[:_IDS]],
             "fallback": next((record.fallback for record in records if record.fallback), None),
             "error": next((record.error for record in records if record.error), None)}  # fmt: skip
    if len(records) == 1:
        facts["decision_id"] = first.id
        del facts["cases"], facts["decision_ids"]
    return {f"retrodict.{name}": value for name, value in facts.items() if value}


def open_traces(config: Config) -> Traces | None:
    """What makes spans, by the settings or the variables of OpenTelemetry; None where neither asks for traces.

    Raises
    ------
    MissingExtraError
        If the settings ask for them and the library is not installed; of the variables, which are often of everything
        on a machine, the log says so.
    ConfigurationError
        If the settings ask for them and the variables for another protocol than ``http/protobuf``; of the variables
        alone the log says so, and there are none: a collector would get what it cannot read.
    """
    url, environment = config["serving.traces"], os.environ
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or "otlp" not in (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        return None
    if not url and not any(map(environment.get, _SWITCHES)):
        return None
    variable = next(filter(environment.get, _PROTOCOLS), "")
    if (protocol := environment.get(variable, _PROTOCOL).strip().lower()) != _PROTOCOL:
        wrong = ConfigurationError(
            f"traces must go by {_PROTOCOL}", where=f"environment variable {variable}", got=protocol[:40],
            remedy=f"Set it to {_PROTOCOL}, and the endpoint to the collector's port for HTTP, often 4318",
        )  # fmt: skip
        if url:
            raise wrong
        _log.warning("there are no traces, which the environment asks for: %s", wrong)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        missing = MissingExtraError("opentelemetry", "otel", needed_for="traces")
        if url:
            raise missing from error
        _log.warning("there are no traces, which the environment asks for: %s", missing)
        return None
    name = OTELResourceDetector().detect().attributes.get(SERVICE_NAME, "retrodict")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    endpoint = f"{url.rstrip('/')}/v1/traces" if url else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return Traces(provider)
