"""Feature services of one server process: read for many entities at once, each value with its status.

Requests are checked like those of decisions and answered from the same state; nothing is recorded, since nothing is
decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from retrodict.core.clock import format_time
from retrodict.core.errors import ConfigurationError, InputError, RetrodictError
from retrodict.core.kinds import KINDS, kind_error, kind_of, reader_of
from retrodict.decisions.records import Value
from retrodict.decisions.requests import decode_body
from retrodict.features.catalogue import declared_schemas, service_features
from retrodict.features.definitions import FeatureService
from retrodict.features.offline.texts import request_types
from retrodict.features.online import FeatureHealth, FeatureRow, age_of, online_features
from retrodict.models.readers import defined_services
from retrodict.serving.deadlines import late, within
from retrodict.workspace import Workspace

__all__ = ["FeatureRequest", "ServedFeatures", "load_services"]

_ROWS = 100  # read together, before other requests have their turn
_WHOLE_VIEW = {"no_state", "beyond_horizon", "not_read"}  # statuses that are of a view, whatever the entity

_log = logging.getLogger(__name__)
T = TypeVar("T")


class FeatureRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/features/{service}``.

    Attributes
    ----------
    entities : list of dict
        One object per entity: its keys, and what derived functions read of it.
    context : dict
        The same for every entity, unless the entity itself says otherwise.
    """

    entities: list[dict[str, Value]]
    context: dict[str, Value] = {}


class ServedFeatures:
    """One service, ready to be read; for one thread.

    Parameters
    ----------
    workspace : Workspace
    service : FeatureService
    health : FeatureHealth
        Counts what reads give, and knows which views are behind their tables.
    """

    def __init__(self, workspace: Workspace, service: FeatureService, health: FeatureHealth) -> None:
        self._workspace, self._service, self._health = workspace, service, health
        self._features, self._columns = service_features(service)
        self._names = [*self._features.request_keys, *self._features.request_columns]
        self._reader = online_features(workspace, self._features)
        self._kinds: dict[str, str] = {}

    async def answer(self, body: bytes, at: int, until_ns: int | None = None) -> dict[str, Any]:
        """Values, statuses and ages for the entities of a body.

        Parameters
        ----------
        body : bytes
            JSON of a :class:`FeatureRequest`.
        at : int
            Time of the request, microseconds since 1970-01-01 UTC.
        until_ns : int, optional
            ``time.perf_counter_ns()`` until which the caller waits for a store on a server.

        Returns
        -------
        dict
            ``features``: by name ``values`` and ``statuses``, in the order of the entities. ``views``: by name
            ``version``, ``status`` (``ok``, ``behind`` its table, ``no_state``, ``beyond_horizon``, ``not_read``) and
            ``age_s`` of its newest event.

        Raises
        ------
        InputError
            If the body has another form, or a value is missing or of another kind; what was sent stays out of it.
        LateError
            If a server did not answer before the caller's deadline.
        """
        request = decode_body(body, FeatureRequest, see="GET /v1/features")
        rows = self._check(request)
        features: dict[str, dict[str, list[Any]]] = {name: {"values": [], "statuses": []} for name in self._columns}
        doubts: dict[str, str] = {}
        for first in range(0, len(rows), _ROWS):
            for row in await self._ask(partial(self._rows, rows[first : first + _ROWS], at), until_ns):
                self._health.count(row)
                doubts |= {view: status for view, status in row.statuses.items() if status in _WHOLE_VIEW}
                _append(row, features)
            await asyncio.sleep(0)
        service, views = self._service, await self._ask(partial(self._views, doubts, at), until_ns)
        return {"service": service.name, "version": service.version, "at": format_time(at), "features": features,
                "views": views}  # fmt: skip

    async def _ask(self, read: Callable[[], T], until_ns: int | None) -> T:
        """Result of a read of the store: in a thread where it is on a server, as long as the caller waits."""
        if not self._reader.on_server:
            return read()
        return await within(asyncio.to_thread(read), until_ns, late("a server of keys that says nothing"))

    def _rows(self, requests: list[dict[str, Any]], at: int) -> list[FeatureRow]:
        try:
            return self._reader.read_many(requests, at)
        except ConfigurationError as error:  # the state has another number of partitions
            _log.warning("service %s has no values: %s", self._service.name, error)
            return [self._reader.unread() for _ in requests]

    def describe(self) -> dict[str, Any]:
        """What it serves, and what a request has to bring, for ``GET /v1/features``."""
        kinds = self._request_kinds()
        words = {name: KINDS[kinds[name]].request_word if kinds.get(name) in KINDS else "any" for name in self._names}
        return {"version": self._service.version, "features": self._columns, "request": words}

    def _request_kinds(self) -> Mapping[str, str]:
        """Kind of every value of a request by name; a table that has neither rows nor declared columns has none yet."""
        if not self._kinds.keys() >= set(self._names):
            types = request_types(self._features, declared_schemas(self._workspace, self._features))
            self._kinds = {name: kind_of(type_) for name, type_ in types.items()}
        return self._kinds

    def _check(self, request: FeatureRequest) -> list[dict[str, Any]]:
        kinds = self._request_kinds()
        readers = {name: reader_of(kinds[name]) if kinds.get(name) in KINDS else None for name in self._names}
        rows = []
        for place, entity in enumerate(request.entities):
            values = {**request.context, **entity}
            if unknown := len(values.keys() - readers.keys()):
                raise InputError(f"an entity must have {_listed(self._names)} only", where=f"body, entity {place}",
                                 got=f"{unknown} of other names", remedy="Leave the others out")  # fmt: skip
            rows.append({n: _read(values, n, read, kinds.get(n, ""), place) for n, read in readers.items()})
        return rows

    def _views(self, doubts: Mapping[str, str], at: int) -> dict[str, dict[str, Any]]:
        plans, behind = self._features.views, self._health.behind
        names = [plan.name for plan in plans]
        newest = dict.fromkeys(names) if "not_read" in doubts.values() else self._reader.watermarks(names)
        views = {}
        for plan in plans:
            version, moment = plan.view.version, newest[plan.name]
            status = doubts.get(plan.name, "behind" if version in behind else "ok")
            views[plan.name] = {"version": version, "status": status, "age_s": age_of(moment, at)}
        return views


def _append(row: FeatureRow, features: Mapping[str, dict[str, list[Any]]]) -> None:
    for name, lists in features.items():
        lists["values"].append(row.values[name])
        lists["statuses"].append(row.status(name))


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "no value"


def _read(values: Mapping[str, Value], name: str, read: Callable[[Any], Any] | None, kind: str, place: int) -> Any:
    """One value of an entity, of its kind."""
    where = f"body, entity {place}, {name!r}"
    if name not in values:
        raise InputError("an entity must have every key and input of the features", where=where,
                         got="no value of this name", remedy="Send it, or null; or put it into context")  # fmt: skip
    value = values[name]
    # An input of a function that is a number may be true or false: a function gets either as a float.
    if value is None or read is None or (kind == "float" and isinstance(value, bool)):
        return value
    try:
        return read(value)
    except (TypeError, ValueError):
        raise kind_error(kind, value, where=where) from None


def load_services(workspace: Workspace, health: FeatureHealth) -> tuple[dict[str, ServedFeatures], str | None]:
    """Services of the definitions module by name; and why there are none if it cannot be read.

    Policies in force have code of their own and decide all the same, so this is no error.
    """
    try:
        services = defined_services(workspace)
        return {service.name: ServedFeatures(workspace, service, health) for service in services}, None
    except RetrodictError as error:
        _log.error("no feature service is served: %s", error)
        return {}, f"no feature service is served: {error}"
