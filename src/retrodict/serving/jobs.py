"""Slow work as jobs: many decisions that nobody waits for, asked for with one call and collected later.

A job is in the store of keys, its requests and answers in pieces of a hundred, so that it outlives every process. One
worker at a time works on it, by a lease that each piece renews, and decides pieces as batches of low priority. Every
request has an id: a piece that was being decided when its worker died is asked again, and nothing is decided twice.
Callers are called back beside that, as a server that does not answer must not hold up jobs: each call is counted in the
job before it is made, so that there are five in all whoever makes them, and the lease is the pause before the next.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import os
import uuid
from collections.abc import Awaitable, Callable
from functools import cached_property
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from msgspec import structs

from retrodict.core.clock import format_time
from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import InputError, NotFoundError, RefusedError, RetrodictError, RetryableError
from retrodict.core.identity import canonical_json, digest
from retrodict.decisions.loader import find_servant
from retrodict.decisions.requests import decode_body
from retrodict.serving.batch import decode_batch
from retrodict.serving.http_answer import RETRY, HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import ID_HEADER, PRIORITY_HEADER, TIME_HEADER, HttpRequest, read_header
from retrodict.serving.record_modes import check_takes_ids
from retrodict.serving.routes import route
from retrodict.stores.urls import is_guarded
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["JobRequest", "ScoringJob", "run_jobs"]

BODY = 8 << 20
_STATE, _ASKED, _ANSWERED, _ADDED = b"\0jobs\0s", b"\0jobs\0q", b"\0jobs\0a", b"\0jobs\0n"
_TOGETHER, _MOST = 100, 100_000
_LEASE = 10 * SECOND
_CALLBACK_S = 5.0  # for one attempt, whatever comes of it
_CALLS, _AT_ONCE = 5, 16  # attempts for a job, and callbacks under way in one process
_LOOK_S, _FULL_S, _AWAY_S = 0.5, 0.1, 1.0

_json = msgspec.json.Encoder()
_log = logging.getLogger(__name__)


class JobRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/jobs/score``: requests as those of a batch."""

    policy: str
    requests: list[msgspec.Raw]
    callback: str | None = None


class ScoringJob(msgspec.Struct, frozen=True):
    """What is kept of a job beside its pieces; ``owner`` works on it until ``until``, and ``place`` is its log's."""

    id: str
    policy: str
    caller: str | None
    content: str
    total: int
    created: int
    simulated: str | None = None
    callback: str | None = None
    state: str = "queued"
    done: int = 0
    failed: int = 0
    error: str | None = None
    owner: str = ""
    until: int = 0
    place: str = ""
    notified: str | None = None
    calls: int = 0

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.total // _TOGETHER)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to decide."""
        return self.state in ("done", "failed")

    @property
    def waits_for_call(self) -> bool:
        """Whether its caller is still to be called."""
        return self.ended and self.callback is not None and self.notified is None

    def name(self, prefix: bytes, piece: int | None = None) -> bytes:
        """Key of it, or of one of its pieces."""
        return prefix + self.id.encode() + (b"" if piece is None else b"%06d" % piece)

    def describe(self) -> dict[str, Any]:
        """What its caller sees."""
        facts = {"job": self.id, "policy": self.policy, "state": self.state, "requests": self.total, "done": self.done,
                 "failed": self.failed, "created": format_time(self.created), "error": self.error,
                 "callback": (self.notified or "waits") if self.callback else None}  # fmt: skip
        return {name: fact for name, fact in facts.items() if fact is not None}


_decode = msgspec.json.Decoder(ScoringJob).decode


class _Jobs:
    """The jobs of a project, as one process sees them; blocking, for threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._keys, self._owner = workspace, workspace.keys, uuid.uuid4().hex

    @cached_property
    def _place(self) -> str:
        """Whose request ids ours are: those of a log on a server are everybody's, those of one in files are its own."""
        if is_guarded(self._workspace.config["stores.streams"]):
            return ""
        path = self._workspace.config.path("stores.streams") / ".requests.lock"  # written once, and empty
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))
        return str(path.stat().st_mtime_ns)

    def all(self) -> list[ScoringJob]:
        return sorted((_decode(value) for _, value in self._keys.scan(_STATE)), key=lambda job: job.created)

    def get(self, job_id: str, caller: str | None) -> ScoringJob:
        (value,) = self._keys.get_many([_STATE + job_id.encode()[:64]])
        job = None if value is None else _decode(value)
        if job is None or job.caller != caller:  # also of somebody else
            raise NotFoundError("a job must be one of the caller's, and younger than serving.request_ids_kept",
                                where="address", got="another id", remedy="Send it once more")  # fmt: skip
        return job

    def add(self, job: ScoringJob, requests: list[msgspec.Raw], limit: int) -> ScoringJob | None:
        """Keep a job of which there is none yet, or give the one with its id; None where there would be too many."""
        bodies = (requests[first : first + _TOGETHER] for first in range(0, job.total, _TOGETHER))
        items: dict[bytes, bytes | None] = {_ADDED: uuid.uuid4().bytes, job.name(_STATE): _json.encode(job)}
        items |= {job.name(_ASKED, piece): _json.encode({"requests": body}) for piece, body in enumerate(bodies)}
        while True:
            stored, is_late = self._try_add(job, items, limit)
            if not is_late:
                return stored

    def _try_add(self, job: ScoringJob, items: dict[bytes, bytes | None], limit: int) -> tuple[ScoringJob | None, bool]:
        """The same once; and whether another job came after they were counted, so that nothing was kept."""
        (last,) = self._keys.get_many([_ADDED])
        is_full, former, is_late = len(self.all()) >= limit, None, False

        def change(values: list[bytes | None]) -> dict[bytes, bytes | None]:
            nonlocal former, is_late
            former = None if values[0] is None else _decode(values[0])
            is_late = former is None and values[1] != last
            return {} if former is not None or is_late or is_full else items

        self._keys.update([job.name(_STATE), _ADDED], change)
        return former or (None if is_full else job), is_late

    def remove(self, job: ScoringJob) -> None:
        names = [job.name(prefix, piece) for prefix in (_ASKED, _ANSWERED) for piece in range(job.pieces)]
        self._keys.put_many(dict.fromkeys([job.name(_STATE), *names]))

    def take(self, *, calling: bool = False) -> ScoringJob | None:
        """Hold the oldest job to decide, or to call back, that nobody has, and drop those whose time is over."""
        now, longest = self._workspace.clock.now(), parse_duration(self._workspace.config["serving.request_ids_kept"])
        for job in self.all():
            is_open = job.waits_for_call if calling else not job.ended
            if job.created < now - longest:
                self.remove(job)
                continue
            is_free = is_open and job.until < now and job.place in ("", self._place)
            call: dict[str, Any] = {"calls": job.calls + 1} if calling else {}
            if is_free and (mine := self.change(job, anybody=True, **call)) is not None:
                return mine
        return None

    def change(
        self, job: ScoringJob, answers: bytes | None = None, *, anybody: bool = False, **facts: Any
    ) -> ScoringJob | None:
        """Renew the lease and note what came about; None where it was cancelled, or is another one's by now."""
        result: ScoringJob | None = None

        def change(values: list[bytes | None]) -> dict[bytes, bytes | None]:
            nonlocal result
            result, now = None, self._workspace.clock.now()
            stored = None if values[0] is None else _decode(values[0])
            if stored is None or (stored.until >= now if anybody else stored.owner != self._owner):
                return {}
            lease = {"owner": self._owner, "until": now + _LEASE, "place": self._place}
            state = {"state": "running"} if stored.state == "queued" else {}
            result = structs.replace(stored, **{**lease, **state, **facts})
            piece = {} if answers is None else {job.name(_ANSWERED, job.done // _TOGETHER): answers}
            return {job.name(_STATE): _json.encode(result), **piece}

        self._keys.update([job.name(_STATE)], change, durable=False)
        return result

    def asked(self, job: ScoringJob) -> bytes:
        return self._keys.get_many([job.name(_ASKED, job.done // _TOGETHER)])[0] or b""

    def answers(self, job: ScoringJob) -> msgspec.Raw:
        pieces = self._keys.get_many([job.name(_ANSWERED, piece) for piece in range(job.pieces)])
        return msgspec.Raw(b"[" + b",".join(piece or b"" for piece in pieces) + b"]")


# asking --------------------------------------------------------------------------------------------------------------


@route("POST", "/v1/jobs/score", "score")
async def _submit(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    body = await request.read_body(BODY)
    order = await asyncio.to_thread(decode_body, body, JobRequest, see="/docs")
    servant = find_servant(app.servants, order.policy, where="body, field 'policy'")
    check_takes_ids(servant.policy.policy, where="body, field 'policy'")
    if not 0 < len(order.requests) <= _MOST:
        raise InputError(f"a job must have 1 to {_MOST} requests", where="body, field 'requests'",
                         got=len(order.requests), remedy="Send several jobs")  # fmt: skip
    _check_callback(app.workspace, order.callback)
    simulated = read_header(request.scope, TIME_HEADER, "Retrodict-Time")
    key = read_header(request.scope, ID_HEADER, "Idempotency-Key")
    job_id = app.workspace.new_id() if key is None else digest(canonical_json([request.caller, key]))[:26]
    job = ScoringJob(job_id, order.policy, request.caller, digest(body), len(order.requests), app.workspace.clock.now(),
                     simulated, order.callback)  # fmt: skip
    stored = await asyncio.to_thread(_store, app.workspace, job, order.requests)
    return HttpAnswer(_json.encode(stored.describe()), 202, ((b"location", f"/v1/jobs/{job_id}".encode()),))


def _store(workspace: Workspace, job: ScoringJob, requests: list[msgspec.Raw]) -> ScoringJob:
    stored = _Jobs(workspace).add(job, requests, workspace.config["serving.max_jobs"])
    if stored is None:
        raise RefusedRequestError(429, "there are as many jobs as may be kept; delete one that has ended", RETRY)
    if stored.content != job.content:
        raise RefusedError("a repeated call must ask for the same job", where="header Idempotency-Key",
                           got="another body", remedy="Give each job a key of its own")  # fmt: skip
    return stored


@route("GET", "/v1/jobs/{job}", "score")
async def _show(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    def look() -> dict[str, Any]:
        jobs = _Jobs(app.workspace)
        job = jobs.get(request.parameter, request.caller)
        return {**job.describe(), **({"answers": jobs.answers(job)} if job.state == "done" else {})}

    return HttpAnswer(_json.encode(await asyncio.to_thread(look)))


@route("DELETE", "/v1/jobs/{job}", "score")
async def _delete(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    def remove() -> ScoringJob:
        jobs = _Jobs(app.workspace)
        jobs.remove(job := jobs.get(request.parameter, request.caller))
        return job

    job = await asyncio.to_thread(remove)
    return HttpAnswer(_json.encode({**job.describe(), **({} if job.ended else {"state": "cancelled"})}))


# working -------------------------------------------------------------------------------------------------------------


async def run_jobs(app: DecisionApp) -> None:
    """Work on jobs, one after the other, and call back, as long as the server answers."""
    jobs = await asyncio.to_thread(_Jobs, app.workspace)
    async with asyncio.TaskGroup() as group:
        calls: set[asyncio.Task[None]] = set()

        async def decide() -> None:
            if (job := await asyncio.to_thread(jobs.take)) is not None:
                await _finish(app, jobs, job)

        async def call() -> None:
            while len(calls) < _AT_ONCE and (job := await asyncio.to_thread(jobs.take, calling=True)) is not None:
                calls.add(task := group.create_task(_call(app.workspace, jobs, job)))
                task.add_done_callback(calls.discard)

        group.create_task(_repeat(decide))
        group.create_task(_repeat(call))


async def _repeat(step: Callable[[], Awaitable[None]]) -> None:
    problem = ""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            await step()
            problem = ""
        except Exception as error:  # noqa: BLE001  # an end of this would be the end of every job
            if str(error) != problem:
                problem = str(error)
                _log.error("jobs cannot go on for now: %s", problem)


async def _finish(app: DecisionApp, jobs: _Jobs, taken_job: ScoringJob) -> None:
    job: ScoringJob | None = taken_job
    while job is not None and not job.ended:
        body = await asyncio.to_thread(jobs.asked, job)
        deciding = asyncio.create_task(_decide(app, job, body))
        try:
            answers = await asyncio.shield(deciding)
        except asyncio.CancelledError:  # the server ends: what is being recorded is recorded
            await asyncio.gather(deciding, return_exceptions=True)
            raise
        except (RefusedRequestError, RetryableError) as error:  # others go first, or a store is away
            await asyncio.sleep(_FULL_S if isinstance(error, RefusedRequestError) else _AWAY_S)
            job = await asyncio.to_thread(jobs.change, job)
            continue
        except Exception as error:  # noqa: BLE001  # one that fails again and again would hold up all others
            ours = isinstance(error, RetrodictError)
            _log.error("job %s failed", job.id, exc_info=None if ours else error)
            text = str(error) if ours else "the server failed; its log says why"
            job = await asyncio.to_thread(jobs.change, job, state="failed", error=text, until=0)
            continue
        done, failed = job.done + len(answers), job.failed + sum(one["status"] != 200 for one in answers)
        facts = {"done": done, "failed": failed, **({"state": "done", "until": 0} if done == job.total else {})}
        job = await asyncio.to_thread(jobs.change, job, _json.encode(answers)[1:-1], **facts)
    if job is not None:
        app.telemetry.count("jobs_total", f'state="{job.state}"')


async def _decide(app: DecisionApp, job: ScoringJob, body: bytes) -> list[dict[str, Any]]:
    """Answers to a piece, as if it had come as a batch of low priority."""
    headers = [(PRIORITY_HEADER, b"batch")]
    if job.simulated is not None:
        headers.append((TIME_HEADER, job.simulated.encode()))
    scope = {"method": "POST", "path": "/v1/jobs/score", "headers": headers}
    request = HttpRequest(scope, _nothing, perf_counter_ns(), job.policy, caller=job.caller)
    async with app.turn(request):
        servant = find_servant(app.servants, job.policy, where=f"job {job.id}")
        entries = decode_batch(body, _TOGETHER, app.limits.body, servant.schema)
        for place, entry in enumerate(entries, job.done):
            entry.request_id = entry.request_id or f"job-{job.id}-{place}"
        return await app.decide_items(request, servant, entries)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


# telling -------------------------------------------------------------------------------------------------------------


def _check_callback(workspace: Workspace, url: str | None) -> None:
    """Refuse to call anything that the settings do not name: what a caller asks for reaches no other server."""
    if url is None:
        return
    hosts, secret = workspace.config["serving.callbacks"], os.environ.get(workspace.config["serving.callback_secret"])
    is_plain = url.isascii() and url.isprintable() and len(url) <= 2_000
    if not secret or not is_plain or not any(f"{url}/".startswith(f"{host}/") for host in hosts):
        raise InputError("a callback must be an address of a server in serving.callbacks, and serving.callback_secret "
                         "name a variable that is set", where="body, field 'callback'", got="another one",
                         remedy="Ask for the job with GET, or have the settings name the server")  # fmt: skip


def _signed(workspace: Workspace, job: ScoringJob, body: bytes) -> dict[str, str]:
    """Headers of a webhook, by the Standard Webhooks specification (HMAC-SHA256 of id, time and body)."""
    text = os.environ[workspace.config["serving.callback_secret"]]
    secret = base64.b64decode(text[6:]) if text.startswith("whsec_") else text.encode()
    moment = str(workspace.clock.now() // SECOND)
    mac = hmac.digest(secret, f"{job.id}.{moment}.".encode() + body, "sha256")
    return {"webhook-id": job.id, "webhook-timestamp": moment, "content-type": "application/json",
            "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}  # fmt: skip


async def _call(workspace: Workspace, jobs: _Jobs, job: ScoringJob) -> None:
    """Call back once, and note what came of it; nothing is noted where the store is away, and another one calls."""
    facts: dict[str, Any] = {"notified": "delivered"}
    try:
        error = await _tell(workspace, job) if job.calls <= _CALLS else "a worker ended in the last call"
        if error is not None:
            is_last = job.calls >= _CALLS
            _log.warning("callback of job %s failed with %s, call %d of %d", job.id, error, job.calls, _CALLS)
            pause = workspace.clock.now() + (SECOND << (job.calls - 1))
            facts = {"notified": f"failed: {error}, in {_CALLS} calls"} if is_last else {"until": pause}
        await asyncio.to_thread(jobs.change, job, **facts)
    except Exception as problem:  # noqa: BLE001  # an end of this would be the end of every job
        _log.error("what came of a callback of job %s cannot be noted: %s", job.id, problem)


async def _tell(workspace: Workspace, job: ScoringJob) -> str | None:
    """Call back; why it failed."""
    body = _json.encode(job.describe())
    try:
        _check_callback(workspace, job.callback)  # the settings may be others by now
        async with asyncio.timeout(_CALLBACK_S), httpx.AsyncClient(trust_env=False, timeout=_CALLBACK_S) as client:
            url, headers = str(job.callback), _signed(workspace, job, body)
            async with client.stream("POST", url, content=body, headers=headers) as response:
                return None if response.is_success else f"status {response.status_code}"
    except (httpx.HTTPError, TimeoutError, RetrodictError, ValueError) as error:
        return str(error) if isinstance(error, RetrodictError) else type(error).__name__
